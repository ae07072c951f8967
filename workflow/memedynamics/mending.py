"""Parts of other libraries that are no interface, and what stands in their place here."""

from memedynamics.errors import InputError


def replace(owner: object, name: str, by: object) -> None:
    """Let `by` be `owner`'s part `name`; raises InputError where it has none, as in a release that nobody has tried."""
    if not hasattr(owner, name):
        where = getattr(owner, "__qualname__", None) or getattr(owner, "__name__", type(owner).__qualname__)
        raise InputError(f"{where} has no {name} to mend: install the versions of envs/main.txt")
    setattr(owner, name, by)
