"""The fingerprints of all scripts, which every `snakemake` takes: from what is kept of the library, and read anew.

    PYTHONPATH=workflow python benchmarks/fingerprints.py

Each side in processes of its own on a copy of the library. The claims: the same digests, five times faster. Exits 1
where one fails.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from memedynamics.fingerprint import fingerprint

LIBRARY = Path(__file__).resolve().parents[1] / "workflow"


def digests(workflow: Path) -> list[str]:
    """The fingerprint of each script of the project's folder `workflow`."""
    return [fingerprint(script, workflow / "memedynamics") for script in sorted(workflow.glob("scripts/*.py"))]


def measured(workflow: Path, keep: bool, times: int) -> tuple[float, str]:
    """Seconds that a process takes for all digests (median), and the digests."""
    silent = {} if keep else {"PYTHONDONTWRITEBYTECODE": "1"}
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | silent
    command = [sys.executable, __file__, "--of", str(workflow)]
    said = [
        subprocess.run(command, env=surroundings, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\n")
        for _ in range(times)
    ]
    # The first process keeps what it reads for the others.
    return median(float(lines[0]) for lines in said[int(keep) :]), said[0][1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--of", type=Path, help="take those of this folder, and print seconds and digests")
    options = parser.parse_args()
    if options.of:
        start = time.perf_counter()
        found = digests(options.of)
        print(time.perf_counter() - start)
        print(*found)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        copy = shutil.copytree(LIBRARY, Path(temporary, "workflow"), ignore=shutil.ignore_patterns("__pycache__"))
        anew, expected = measured(copy, False, options.times)
        kept, found = measured(copy, True, options.times + 1)
    print(f"read anew {anew:.2f} s, kept {kept:.2f} s: {anew / kept:.1f} times faster; equal: {found == expected}")
    return int(found != expected or anew < 5 * kept)


if __name__ == "__main__":
    sys.exit(main())
