"""One of the processes that share trainings in test_processes.py: started by `accelerate launch`, told by its argument.

Each run is trained to its end; one that is `stopped` is begun once before, and one process alone is sent SIGTERM.

Accelerate shards models on accelerators only: on a CPU it takes the settings and copies the model all the same, without
a word. What happens on GPUs happens here once Accelerate's state names another kind of device than the one it uses.
"""

import json
import os
import sys
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import DistributedType

import tiny_study
from memedynamics import lease, processes, runs, training
from memedynamics.config import Adapter
from memedynamics.errors import InputError
from memedynamics.job import is_first_process
from test_resume import Terminate

told_config = training.trainer_config


def config_as_on_gpus(*given: object, **named: object) -> training.Config:
    """TRL's config, after which trainers that are told to shard do."""
    config = told_config(*given, **named)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return config


def main(job: dict) -> None:
    rank, study = os.environ["RANK"], Path(job["study"])
    with lease.gpus(2) as held:
        told = {"visible": os.environ["CUDA_VISIBLE_DEVICES"], "held": held, "world": os.environ["WORLD_SIZE"]}
        Path(job["folder"], f"rank{rank}.json").write_text(json.dumps(told))
    if processes.sharding():
        refused(study, Path(job["folder"], "refused"))
        training.trainer_config = config_as_on_gpus
    for name, (kind, args, adapter, stopped) in job["runs"].items():
        given = {"kind": kind, "study": study, "run": Path(job["folder"], name), "adapter": Adapter(**adapter), **args}
        if stopped:
            stop(given)
        tiny_study.train(**given)


def refused(study: Path, run: Path) -> None:
    try:
        tiny_study.train("sft", study, run)
    except InputError as error:
        (run / f"words{os.environ['RANK']}").write_text(str(error))


def stop(given: dict) -> None:
    """Train until the second process is told to end."""
    hooks, told = runs.hooks, [] if is_first_process() else [Terminate()]
    runs.hooks = lambda *known: [*hooks(*known), *told]
    try:
        tiny_study.train(**given)
    except InputError as error:
        (given["run"] / f"words{os.environ['RANK']}").write_text(str(error))
    runs.hooks = hooks


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
