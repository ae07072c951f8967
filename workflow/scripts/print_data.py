"""Print what was found of every dataset and what is missing."""

from pathlib import Path

from rich.console import Console

from memedynamics import tables
from memedynamics.job import run
from memedynamics.quality import losses, overview


def main(quality: list[Path], rejected: list[Path]) -> None:
    found, lost = tables.read_all(quality, "quality"), tables.read_all(rejected, "rejected")
    console = Console(width=None if Console().is_terminal else 140)
    console.print(overview(found))
    console.print(losses(lost) if len(lost) else "No row was left out.")


if __name__ == "__main__":
    run(main)
