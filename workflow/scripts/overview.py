"""Print the closing table of a study: `python workflow/scripts/overview.py results/demo`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run by hand and by make, not as a job

from memedynamics.errors import InputError
from memedynamics.overview import show


def main(arguments: list[str]) -> None:
    """Print the study in the one folder that `arguments` name; an InputError ends the process with its one line."""
    if len(arguments) != 1:
        sys.exit("usage: python workflow/scripts/overview.py results/<study>")
    try:
        show(Path(arguments[0]))
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
