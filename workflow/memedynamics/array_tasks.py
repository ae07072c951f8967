"""Tasks of a Slurm array keep to their own output (snakemake-executor-plugin-slurm 2.8 under Snakemake 9.27).

Every task starts a Snakemake that has the job of the array's first task; in all others it only starts one more, which
has the task's own. It would look after the first one's output all the same. As it begins: mark it incomplete, for good
where the first one has ended by then. As it ends: wait for it, renew its time, so that finished work downstream looks
old, and delete it where its own task failed.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from snakemake.jobs import Job

from memedynamics.errors import InputError

OPTION = "--slurm-jobstep-array-execs"


def refuse_limit(jobs: int | None, rules: str | None) -> None:
    """Refuse at most `jobs` jobs at once where the jobs of `rules` go out as arrays.

    The plugin submits an array once all of its jobs have come, and waits for ever for those that are held back.
    """
    if rules and jobs is not None and jobs < sys.maxsize:
        raise InputError(
            f"jobs: {jobs} with slurm-array-jobs: arrays would wait for ever for jobs over that number; "
            "set `jobs: unlimited`, or delete `slurm-array-jobs`"
        )


def only_starts_another(arguments: Sequence[str], surroundings: Mapping[str, str]) -> bool:
    """Whether the Snakemake called with `arguments` is that of a task other than the first, and has the first's job."""
    of_array = any(argument.partition("=")[0] == OPTION for argument in arguments)
    return of_array and surroundings.get("SLURM_ARRAY_TASK_ID") != surroundings.get("SLURM_ARRAY_TASK_MIN")


def keep_to_own_output() -> None:
    """Let this Snakemake leave its job's output alone where that is another task's."""
    if only_starts_another(sys.argv, os.environ):
        Job.register = lambda job, external_jobid=None: None
        Job.postprocess = _nothing


async def _nothing(job: Job, **given: object) -> None:
    """Instead of looking after the output."""
