"""Every figure and every panel on paper, in every format."""

import json
from pathlib import Path

from memedynamics.job import run
from memedynamics.paper_figures import prints
from memedynamics.printing import print_drawings


def main(drawings: list[Path], panels: Path) -> None:
    """Print the figures drawn in `drawings` (Plotly's JSON) beside the folder `panels`, their panels into it."""
    panels.mkdir(parents=True, exist_ok=True)
    print_drawings(prints({path.stem: json.loads(path.read_text()) for path in drawings}, panels.parent))


if __name__ == "__main__":
    run(main)
