"""What Snakemake itself costs while jobs run: as it looks for jobs to start by itself, and as studies have it look.

    PYTHONPATH=workflow python benchmarks/pace.py

A workflow of short jobs of which a few run at once and the others wait, as in any study, runs twice. The claims: at
most 0.7 of the CPU time, and no later at its end. Exits 1 where one fails.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1] / "workflow"
WORKFLOW = """
import sys
sys.path.insert(0, "{library}")
from memedynamics import pace
if {once}:
    pace.look_once()

rule all:
    input: expand("made/{{n}}", n=range({jobs}))

rule one:
    output: "made/{{n}}"
    shell: "sleep 1; touch {{output}}"
"""


def measured(folder: Path, jobs: int, at_once: int, once: bool) -> tuple[float, float]:
    """Seconds of CPU, of Snakemake and of the jobs, which only sleep; and seconds from start to end."""
    folder.mkdir()
    (folder / "Snakefile").write_text(WORKFLOW.format(library=LIBRARY, once=once, jobs=jobs))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "snakemake", "--cores", str(at_once), "--quiet", "all"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = {
            name: measured(Path(temporary, name), options.jobs, options.at_once, once)
            for name, once in (("by itself", False), ("one look planned", True))
        }
    for name, (spent, seconds) in found.items():
        print(f"{name:17} {spent:6.1f} s of CPU, {seconds:6.1f} s in all")
    (plain, longer), (once, shorter) = found.values()
    print(f"{once / plain:.2f} of the CPU time, {shorter / longer:.2f} of the time")
    return int(once > 0.7 * plain or shorter > 1.05 * longer)


if __name__ == "__main__":
    sys.exit(main())
