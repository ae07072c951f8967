"""The warning that a cluster job's time is nearly up reaches the training (Snakemake 9.27).

With cgroups (proctrack/cgroup) Slurm signals a step's own process alone: the Snakemake that has the job. It would only
note that it is to end, and in the end call failed even a job that ended well, whose output it then deletes.
"""

import contextlib
from collections.abc import Sequence

import psutil

from memedynamics.mending import replace

SCRIPTS = "workflow/scripts/"
# Become, or start, the script that is in their arguments.
LAUNCHERS = {"memedynamics.launch", "accelerate.commands.launch"}


def pass_on() -> None:
    """Let this Snakemake, which has one job of a cluster, send SIGTERM on to it and wait for how it ends."""
    # Slow to import, and a plan does without.
    from snakemake.scheduling.job_scheduler import JobScheduler

    replace(JobScheduler, "exit_gracefully", _to_scripts)


def is_script(arguments: Sequence[str]) -> bool:
    """Whether a process with these arguments is a job's script itself, not a shell or a launcher around it."""
    return any(argument.startswith(SCRIPTS) for argument in arguments) and LAUNCHERS.isdisjoint(arguments)


def _to_scripts(scheduler: object, *signal: object) -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # ended meanwhile
            if is_script(process.cmdline()):
                process.terminate()
