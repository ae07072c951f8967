"""How often Snakemake looks which jobs can start (Snakemake 9.27).

It looks when a job ends, and each time plans to look again after the timespan of its limit on jobs (one second, if not
set). So each job that has ended leaves one more look a second behind, for good: after a hundred jobs they take a
quarter of a core, after thousands all of it (benchmarks/pace.py). And before it ends, it waits for the last one.
"""

import threading

from snakemake.scheduling.job_scheduler import JobScheduler

from memedynamics.mending import replace


def look_once() -> None:
    """Let this Snakemake plan one look at a time: what a limit holds back starts at most one timespan later."""
    replace(JobScheduler, "_schedule_reevalutation", _plan_one)


def _plan_one(scheduler: JobScheduler, delay: float) -> None:
    """Plan a look after `delay` seconds, unless one is planned; the process can end before it."""
    if getattr(scheduler, "_look_planned", False):
        return

    def look() -> None:
        scheduler._look_planned = False  # before the look, which plans the next
        scheduler._open_jobs.release()

    scheduler._look_planned = True
    timer = threading.Timer(delay, look)
    timer.daemon = True
    timer.start()
