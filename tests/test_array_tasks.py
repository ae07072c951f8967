"""Which Snakemake of a Slurm array has another task's job; what that saves is tested on a real Slurm (test_slurm)."""

import asyncio
import json
import random
import zlib
from base64 import b64encode
from typing import NamedTuple

import pytest

from memedynamics import array_tasks
from memedynamics.errors import InputError

FIRST = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "1"}
THIRD = FIRST | {"SLURM_ARRAY_TASK_ID": "3"}
SECOND_CHUNK = {"SLURM_ARRAY_TASK_ID": "33", "SLURM_ARRAY_TASK_MIN": "33"}
ARRAY = ["snakemake", "--executor", "slurm-jobstep", "--slurm-jobstep-array-execs=eyJ9"]
SPLIT = [*ARRAY[:-1], "--slurm-jobstep-array-execs", "eyJ9"]
OWN = ["snakemake", "--executor", "slurm-jobstep"]


@pytest.mark.parametrize(
    ("arguments", "surroundings", "expected"),
    [
        (ARRAY, THIRD, True),
        (SPLIT, THIRD, True),
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


def test_arrays_are_refused_where_a_storage_holds_the_study():
    with pytest.raises(InputError, match=r"slurm-array-jobs: .* add `--slurm-array-jobs ''`"):
        array_tasks.refuse_storage(".snakemake/storage/s3/", "score")
    for copies, rules in (("", "score"), (".snakemake/storage/s3/", None)):
        array_tasks.refuse_storage(copies, rules)


class Asked(NamedTuple):
    """Of a job what an array goes by."""

    name: str
    resources: dict[str, object]
    threads: int = 1


def test_an_array_has_jobs_that_ask_for_the_same():
    """A second attempt, which asks for more, is no task of the first ones' array; nor is one with more threads."""
    first, second, wide = {"mem_mb": 8, "gpu": 1}, {"mem_mb": 16, "gpu": 1}, {"gpu": 1, "mem_mb": 8}
    jobs = [Asked("a", first), Asked("b", second), Asked("c", wide, threads=2), Asked("d", dict(wide))]
    found = array_tasks.pieces(jobs, lambda job: "command")
    assert {"".join(job.name for job in piece) for piece in found} == {"ad", "b", "c"}


def test_the_commands_of_an_array_fit_into_one_argument():
    """As the plugin passes them on, of random text, which cannot be compressed: base 64 of hexadecimal."""
    texts = {str(n): random.Random(n).randbytes(5000).hex() for n in range(40)}
    jobs = [Asked(name, {}) for name in texts]
    found = list(array_tasks.pieces(jobs, lambda job: texts[job.name]))
    assert sorted(job.name for piece in found for job in piece) == sorted(texts)
    for piece in found:
        execs = {job.name: zlib.compress(texts[job.name].encode(), level=9).hex() for job in piece}
        assert len(b64encode(json.dumps(execs).encode())) <= array_tasks.LONGEST
    assert max(map(len, found)) > 1 and len(found) < 20


def test_a_command_that_is_too_long_by_itself_goes_alone():
    found = list(array_tasks.pieces([Asked("long", {}), Asked("short", {})], lambda job: "x" * 200_000))
    assert [len(piece) for piece in found] == [1, 1]
