"""Print the closing table of a finished study: `python workflow/scripts/overview.py results/demo`."""

import sys
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from memedynamics.errors import InputError
from memedynamics.overview import overview

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("error: give one results folder, such as results/demo")
    try:
        console = Console(highlight=False)
        console.width = max(console.width, 100)
        console.print(overview(Path(sys.argv[1])))
    except InputError as error:
        sys.exit(f"error: {error}")
