"""The paper's words: captions of the figures, and the summary's tables."""

import json
from pathlib import Path

from memedynamics import tables
from memedynamics.job import run
from memedynamics.paper_captions import captions
from memedynamics.paper_tables import summary_tables


def main(drawings: list[Path], analyses: list[Path], captions_file: Path, summary: Path) -> None:
    """Write the captions of `drawings` (Plotly's JSON) and the tables of the study as LaTeX."""
    drawn = {path.stem: json.loads(path.read_text()) for path in drawings}
    found = {path.stem: tables.read(path, path.stem) for path in analyses}
    captions_file.write_text(captions(drawn, found))
    summary.write_text(summary_tables(found))


if __name__ == "__main__":
    run(main)
