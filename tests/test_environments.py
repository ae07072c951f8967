"""The pinned environments: exact, complete, equal for pip and conda, and the one the tests run in."""

import re
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENVS = Path(__file__).resolve().parents[1] / "envs"


def pins(name):
    lines = (ENVS / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_pin_is_exact():
    for line in pins("main.txt") + pins("dev.txt") + pins("llamafactory.txt"):
        assert re.fullmatch(r"[\w.-]+(==|===)[\w.+]+( ; sys_platform == \"linux\")?", line), line


def test_torch_is_pinned_so_that_no_local_build_matches():
    assert "torch===2.13.0" in pins("main.txt")


@pytest.mark.parametrize("name", ["main", "llamafactory"])
def test_conda_twin_has_the_same_pins(name):
    environment = yaml.safe_load((ENVS / f"{name}.yaml").read_text())
    assert environment["dependencies"][-1]["pip"] == pins(f"{name}.txt")


def test_pins_are_what_is_installed_and_leave_nothing_out():
    """Walks the dependencies of every pinned package: each must be pinned too."""
    pinned = {canonicalize_name(re.split("=", line)[0]): re.split(r"===?|\s", line)[1] for line in pins("main.txt")}
    for name, version in pinned.items():
        found = metadata.distribution(name)
        assert found.version.partition("+")[0] == version, name
        for line in found.requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in {*pinned, "pip", "setuptools"}, f"{name} needs {needed.name}"
