"""Print what was found of every dataset and what is missing."""

from pathlib import Path

from rich.console import Console

from memedynamics import tables
from memedynamics.errors import InputError
from memedynamics.job import run
from memedynamics.quality import losses, overview


def main(quality: list[Path], rejected: list[Path], missing: dict[str, list[str]]) -> None:
    """`missing`: by dataset the files that are not there. Raises InputError naming them, after the others are shown."""
    if quality:
        found, lost = tables.read_all(quality, "quality"), tables.read_all(rejected, "rejected")
        console = Console(width=None if Console().is_terminal else 140)
        console.print(overview(found))
        console.print(losses(lost) if len(lost) else "No row was left out.")
    if missing:
        absent = "; ".join(f"datasets.{name}: {', '.join(files)}" for name, files in missing.items())
        raise InputError(f"not found: {absent}; put the files there, or correct root and splits in the study file")


if __name__ == "__main__":
    run(main)
