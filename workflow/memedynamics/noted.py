"""A job's private folder goes once Snakemake has noted that the job is done (Snakemake 9.27), and not before.

A Snakemake that dies between the two has the job made anew, which then only puts together what lies there: on a cluster
the end of a job is noted as much as minutes later.
"""

import asyncio
import json
from pathlib import Path

from memedynamics import disk
from memedynamics.mending import replace


def clear_up(copies: str) -> None:
    """Let this Snakemake take away private folders of jobs it notes, which lie in `copies` where a storage has them."""
    # Slow to import, and a plan does without.
    from snakemake.jobs import Job

    note = Job.postprocess

    async def postprocess(job: Job, *arguments: object, error: bool = False, **others: object) -> None:
        await note(job, *arguments, error=error, **others)
        # As a dict `params` is empty.
        if not error and (argument := job.params.get("job")) is not None:
            await asyncio.to_thread(disk.discard, Path(copies, json.loads(str(argument))["work"]))

    replace(Job, "postprocess", postprocess)
