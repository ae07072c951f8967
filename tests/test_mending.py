"""A part of another library is replaced where it is, and missed where it is not."""

from types import SimpleNamespace

import pytest

from memedynamics import mending
from memedynamics.errors import InputError


class Scheduler:
    """As another library's, with one part."""

    def look(self) -> str:
        return "theirs"


def test_a_part_is_replaced_in_classes_modules_and_objects(monkeypatch):
    monkeypatch.setattr(Scheduler, "look", Scheduler.look)  # put back when the test ends
    mending.replace(Scheduler, "look", lambda scheduler: "ours")
    assert Scheduler().look() == "ours"
    one = SimpleNamespace(size=1)
    mending.replace(one, "size", 2)
    assert one.size == 2


@pytest.mark.parametrize(("owner", "named"), [(Scheduler, "Scheduler"), (pytest, "pytest"), (Scheduler(), "Scheduler")])
def test_a_part_that_is_missing_is_named(owner, named):
    with pytest.raises(InputError, match=f"^{named} has no look_again to mend: install the versions of envs/main.txt"):
        mending.replace(owner, "look_again", None)
    assert not hasattr(owner, "look_again")
