"""Snakemake looks for jobs to start as often as its limit asks for, however many have ended: the real scheduler."""

import subprocess
import sys
from pathlib import Path

from memedynamics import pace

LIBRARY = str(Path(pace.__file__).parents[1])
# Each look is written down. After the quick jobs a slow one runs, and another waits for its cores.
WORKFLOW = """
import sys, time
sys.path.insert(0, {library!r})
from snakemake.scheduling.job_scheduler import JobScheduler
from memedynamics import pace
if {mended}:
    pace.look_once()
pick = JobScheduler.job_selector
def noted(scheduler, jobs):
    with open("looks", "a") as looks:
        print(time.time(), file=looks)
    return pick(scheduler, jobs)
JobScheduler.job_selector = noted

rule all:
    input: expand("slow/{{n}}", n=range(2))

rule quick:
    output: "quick/{{n}}"
    shell: "date +%s.%N > {{output}}"

rule slow:
    input: expand("quick/{{n}}", n=range({jobs}))
    output: "slow/{{n}}"
    threads: 2
    shell: "date +%s.%N > {{output}}; sleep {seconds}"
"""


def run(folder, *arguments, jobs, seconds, mended=True):
    """When Snakemake looked, when the quick jobs started and when the slow ones (s)."""
    folder.mkdir()
    text = WORKFLOW.format(library=LIBRARY, mended=mended, jobs=jobs, seconds=seconds)
    (folder / "Snakefile").write_text(text)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    looks = [float(line) for line in (folder / "looks").read_text().split()]
    quick, slow = (sorted(float(file.read_text()) for file in folder.glob(f"{name}/*")) for name in ("quick", "slow"))
    return looks, quick, slow


def test_looks_do_not_pile_up(tmp_path):
    """While a slow job runs and another waits, after twenty have ended: one a second.

    The control would tell that Snakemake has mended itself.
    """
    meanwhile = {}
    for mended in (True, False):
        looks, _, (first, second) = run(tmp_path / str(mended), jobs=20, seconds=5, mended=mended)
        meanwhile[mended] = sum(first < look < second for look in looks) / (second - first)
    assert meanwhile[True] < 2 < 4 < meanwhile[False]


def test_what_a_limit_holds_back_starts_in_time(tmp_path):
    """Two in three seconds: no more, though each ends at once, and at most one timespan later than they could."""
    _, quick, _ = run(tmp_path / "limited", "--max-jobs-per-timespan=2/3s", jobs=6, seconds=0)
    gaps = [later - earlier for earlier, later in zip(quick, quick[2:], strict=False)]
    # Snakemake counts from when it starts a job, which itself takes a moment to write down its time.
    assert all(2 < gap < 6 + 4 for gap in gaps)
