"""A job is done once the study's Snakemake has noted that, and its private folder goes then (Snakemake 9.27).

A Snakemake that dies between a job's end and its note, which on a cluster are minutes apart, has the job made anew, and
that one only puts together what lies in the folder. A cluster job's own Snakemake would take the mark of incomplete
outputs away before: nobody would make the job anew, and what it was made with would stand nowhere, so that no change of
it would be seen.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from memedynamics import disk
from memedynamics.mending import replace

if TYPE_CHECKING:  # slow to import, and a plan does without
    from snakemake.jobs import Job

ENDED = "ended"  # in the private folder of a job that has ended
TRASH = ".work/.gone"  # in the study's folder


def leave_it_to_main() -> None:
    """Let this Snakemake, which another has started for a job, note nothing."""
    from snakemake.persistence import PersistenceBase

    replace(PersistenceBase, "finished", _nothing)


async def _nothing(persistence: object, job: "Job") -> None:
    """Instead of a note."""


def clear_up(home: Path, copies: str) -> None:
    """Let this Snakemake take away the private folders of jobs it notes, in the study at `home`.

    `copies` is where a storage has the folders, or "".
    """
    from snakemake.jobs import Job

    note = Job.postprocess

    async def postprocess(job: Job, *arguments: object, error: bool = False, **others: object) -> None:
        await note(job, *arguments, error=error, **others)
        if not error and (folder := _private(job, copies)) and any(folder.glob(f"*/{ENDED}")):
            await asyncio.to_thread(disk.discard, folder, home / TRASH)

    replace(Job, "postprocess", postprocess)


def forget(done: Iterable["Job"], home: Path, copies: str) -> None:
    """Take away what a killed Snakemake left of jobs that it had noted; `done`: those that need not run."""
    shutil.rmtree(home / TRASH, ignore_errors=True)
    # Not rglob: jobs that outlived a Snakemake take files away meanwhile.
    left = {Path(folder).parent for folder, _, names in os.walk(home / ".work") if ENDED in names}
    for job in done if left else ():
        if (folder := _private(job, copies)) in left:
            disk.discard(folder, home / TRASH)


def _private(job: "Job", copies: str) -> Path | None:
    argument = job.params.get("job")
    # Not by its truth: an `Argument` is a dict, and empty.
    return Path(copies, json.loads(str(argument))["work"]) if argument is not None else None
