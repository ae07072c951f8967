"""What planning costs as Snakemake does it by itself, and as studies have it do it.

    PYTHONPATH=workflow python benchmarks/quick_plans.py

`snakemake -n` of a study of 48 methods × 5 seeds × 6 milestones × 4 datasets × 8 shards, each way in turn. The claims:
at most 0.85 of the CPU time, and the same plan. Exits 1 where one fails.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from dag import ROOT, STUDY, lay_out

AS_IT_IS = "from memedynamics import quick_plans; quick_plans.use = lambda: None; "
MAIN = "from snakemake.cli import main; main()"


def planned(folder: Path, before: str) -> tuple[float, str]:
    """Seconds of CPU, and what the dry run says will be made."""
    start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-c", before + MAIN, "--configfile", STUDY, "-n"]
    around = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run(command, cwd=folder, env=around, check=True, capture_output=True, text=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start
    jobs = done.stdout[done.stdout.index("Job stats") :].splitlines()  # in no order, with times, reasons in no order
    return spent, "\n".join(sorted(line for line in jobs if not line.startswith(("[", "    reason:"))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", type=int, default=48)
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    ways = {"by itself": AS_IT_IS, "as studies have it": ""}
    spent, plans = {name: [] for name in ways}, set()
    with tempfile.TemporaryDirectory() as temporary:
        lay_out(Path(temporary), options.methods)
        for _ in range(options.turns):
            for name, before in ways.items():
                seconds, plan = planned(Path(temporary), before)
                spent[name].append(seconds)
                plans.add(plan)
    for name, seconds in spent.items():
        print(f"{name:24} {min(seconds):6.2f} s of CPU")
    plain, once = (min(seconds) for seconds in spent.values())
    print(f"{once / plain:.2f} of the CPU time, plans {'equal' if len(plans) == 1 else 'DIFFERENT'}")
    return int(once > 0.85 * plain or len(plans) > 1)


if __name__ == "__main__":
    sys.exit(main())
