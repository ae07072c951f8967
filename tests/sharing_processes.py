"""One of the processes that share trainings in test_processes.py: started by `accelerate launch`, told by its argument.

Each run is trained to its end. One with `stopped` is first sent SIGTERM, one process alone, and then trained again.
"""

import json
import os
import sys
from pathlib import Path

import tiny_study
from memedynamics import lease, runs
from memedynamics.errors import InputError
from memedynamics.job import is_first_process
from test_resume import Terminate


def main(job: dict) -> None:
    rank, study = os.environ["RANK"], Path(job["study"])
    with lease.gpus(2) as held:
        told = {"visible": os.environ["CUDA_VISIBLE_DEVICES"], "held": held, "world": os.environ["WORLD_SIZE"]}
        Path(job["folder"], f"rank{rank}.json").write_text(json.dumps(told))
    for name, (kind, args, stopped) in job["runs"].items():
        if stopped:
            stop(kind, study, Path(job["folder"], name), args)
        tiny_study.train(kind, study, Path(job["folder"], name), **args)


def stop(kind: str, study: Path, run: Path, args: dict) -> None:
    """Train until the second process is told to end."""
    hooks, told = runs.hooks, [] if is_first_process() else [Terminate()]
    runs.hooks = lambda *given: [*hooks(*given), *told]
    try:
        tiny_study.train(kind, study, run, **args)
    except InputError as error:
        (run / f"stopped{os.environ['RANK']}").write_text(str(error))
    runs.hooks = hooks


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
