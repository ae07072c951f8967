"""Which Snakemake of a Slurm array has another task's job; what that saves is tested on a real Slurm (test_slurm)."""

import asyncio
import sys

import pytest

from memedynamics import array_tasks
from memedynamics.errors import InputError

FIRST = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "1"}
THIRD = FIRST | {"SLURM_ARRAY_TASK_ID": "3"}
SECOND_CHUNK = {"SLURM_ARRAY_TASK_ID": "33", "SLURM_ARRAY_TASK_MIN": "33"}
ARRAY = ["snakemake", "--executor", "slurm-jobstep", "--slurm-jobstep-array-execs=eyJ9"]
SCRIPT = [*ARRAY[:-1], "--slurm-jobstep-array-execs", "eyJ9"]  # as in a command that is too long for one line
OWN = ["snakemake", "--executor", "slurm-jobstep"]


@pytest.mark.parametrize(
    ("arguments", "surroundings", "expected"),
    [
        (ARRAY, THIRD, True),
        (SCRIPT, THIRD, True),
        (ARRAY, FIRST, False),  # the first task's own job
        (ARRAY, SECOND_CHUNK, False),
        (OWN, THIRD, False),  # the one that was started
        (OWN, {}, False),  # a job that is no array
        (["snakemake", "--slurm-array-jobs", "score"], {}, False),  # where the study was started
    ],
)
def test_only_tasks_after_the_first_have_another_s_job(arguments, surroundings, expected):
    assert array_tasks.only_starts_another(arguments, surroundings) is expected


def test_another_s_job_is_neither_begun_nor_ended_here(monkeypatch):
    """Both of Snakemake's methods would fail on None, which has no workflow."""
    for name in ("register", "postprocess"):
        monkeypatch.setattr(array_tasks.Job, name, getattr(array_tasks.Job, name))  # put back when the test ends
    monkeypatch.setattr("sys.argv", ARRAY)
    for name, value in THIRD.items():
        monkeypatch.setenv(name, value)
    array_tasks.keep_to_own_output()
    array_tasks.Job.register(None, external_jobid="7")
    asyncio.run(array_tasks.Job.postprocess(None, error=True))


def test_elsewhere_snakemake_stays_as_it_is(monkeypatch):
    before = array_tasks.Job.postprocess, array_tasks.Job.register
    monkeypatch.setattr("sys.argv", OWN)
    array_tasks.keep_to_own_output()
    assert (array_tasks.Job.postprocess, array_tasks.Job.register) == before


def test_a_limit_on_jobs_is_refused_where_arrays_would_wait_for_ever():
    with pytest.raises(InputError, match=r"jobs: 20 with slurm-array-jobs: .* delete `slurm-array-jobs`"):
        array_tasks.refuse_limit(20, "score")
    for jobs, rules in ((20, None), (sys.maxsize, "score"), (None, "score")):
        array_tasks.refuse_limit(jobs, rules)
