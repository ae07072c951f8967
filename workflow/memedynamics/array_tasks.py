"""Slurm arrays whose tasks all start, and keep to their own output (snakemake-executor-plugin-slurm 2.8).

The plugin hands the commands of all tasks over in one argument, and makes an array of what it is given at once, with
what its first job asks for. So it is given a few jobs at a time that ask for the same; and it is not to wait until all
ready jobs of a rule have come, for those that Snakemake holds back (`--jobs`, `--resources`) never would.

Every task starts a Snakemake that has the job of the array's first task; in all others it only starts one more, which
has the task's own. It would look after the first one's output all the same. As it begins: mark it incomplete, for good
where the first one has ended by then. As it ends: wait for it, renew its time, so that finished work downstream looks
old, and delete it where its own task failed.
"""

import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from snakemake.jobs import Job

from memedynamics.errors import InputError
from memedynamics.mending import replace

OPTION = "--slurm-jobstep-array-execs"
# Characters of all tasks' commands together: Linux takes no argument of more than 131,072, and there are others in it.
LONGEST = 90_000


def refuse_storage(copies: str, rules: str | None) -> None:
    """Refuse arrays of `rules` where a storage holds the study, whose `copies` lie in that folder ("" without one).

    Snakemake would store the output of the array's first job again and again, made or not.
    """
    if rules and copies:
        raise InputError(
            "slurm-array-jobs: with results in a storage each job must go to Slurm by itself; "
            "delete `slurm-array-jobs` from the profile, or add `--slurm-array-jobs ''`"
        )


def submit_in_pieces() -> None:
    """Let the plugin make arrays of jobs that ask for the same and whose commands fit, and wait for none."""
    import snakemake_executor_plugin_slurm as plugin

    replace(plugin, "pending_jobs_for_rule", lambda dag, rule: 0)
    as_one = plugin.Executor._submit_array_jobs

    def submit(executor: plugin.Executor, jobs: Sequence[Job]) -> None:
        for piece in pieces(jobs, executor.format_job_exec):
            if len(piece) > 1:
                as_one(executor, piece)
            else:
                executor._submit_job(*piece)

    replace(plugin.Executor, "_submit_array_jobs", submit)


def pieces(jobs: Sequence[Job], command_of: Callable[[Job], str]) -> Iterator[list[Job]]:
    """The jobs in pieces that can be arrays; `command_of` gives a job's command."""
    for _, alike in groupby(sorted(jobs, key=_asked), key=_asked):
        piece, length = [], 0
        for job in alike:
            more = _length(command_of(job))
            if piece and length + more > LONGEST:
                yield piece
                piece, length = [], 0
            piece.append(job)
            length += more
        yield piece


def _asked(job: Job) -> list[tuple[str, str]]:
    return [("threads", str(job.threads)), *sorted((name, str(value)) for name, value in job.resources.items())]


def _length(command: str) -> int:
    """Characters of a command as the plugin passes it on: compressed, in hexadecimal, in base 64; or as it is."""
    return max(len(command), 2 * len(zlib.compress(command.encode(), level=9)) * 4 // 3 + 16)


def only_starts_another(arguments: Sequence[str], surroundings: Mapping[str, str]) -> bool:
    """Whether the Snakemake called with `arguments` is that of a task other than the first, and has the first's job."""
    of_array = any(argument.partition("=")[0] == OPTION for argument in arguments)
    return of_array and surroundings.get("SLURM_ARRAY_TASK_ID") != surroundings.get("SLURM_ARRAY_TASK_MIN")


def keep_to_own_output() -> None:
    """Let this Snakemake leave its job's output alone where that is another task's."""
    if only_starts_another(sys.argv, os.environ):
        replace(Job, "register", lambda job, external_jobid=None: None)
        replace(Job, "postprocess", _nothing)


async def _nothing(job: Job, **given: object) -> None:
    """Instead of looking after the output."""
