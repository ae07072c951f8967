"""How a training starts: as one process, or as several that share it, on one machine or on several.

    python -m memedynamics.launch SCRIPT JOB

1. One process: the script itself. Several: `accelerate launch`, which starts one a GPU with the study's settings.
2. This process becomes what it starts (exec), so that a signal to the job reaches the training.
3. Slurm signals job steps. Tasks of an array, and jobs on several machines, have none yet: `srun` starts one that runs
   this module on every machine.
4. Accelerate passes SIGTERM on to its processes, and then waits as long as they take to save themselves.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from memedynamics import lease
from memedynamics.errors import InputError

# Seconds; whoever sent the signal knows when his patience ends.
PATIENCE = 24 * 3600


class Shape(NamedTuple):
    """How a job is spread: processes and machines in all, and threads of a machine."""

    processes: int
    nodes: int
    threads: int


def main() -> None:
    """Become the process, or the launcher of the processes, of the job in the command line."""
    script, argument = sys.argv[1:]
    job = json.loads(argument)
    launch = job["cfg"].get("launch", {"processes": 1})
    shape = Shape(launch["processes"], job["nodes"], job["threads"])
    try:
        becomes = command(shape, launch, os.environ, [script, argument])
    except InputError as error:
        sys.exit(f"error: {error}")
    sys.stdout.flush()
    os.execvp(becomes[0], becomes)


def command(shape: Shape, launch: Mapping[str, object], environment: Mapping[str, str], job: list[str]) -> list[str]:
    """What this process becomes, where Slurm and launchers have said what is in `environment`; `job`: script, argument.

    Takes the devices of several processes. Raises InputError where this machine cannot start the job.
    """
    if lease.alone() and "SLURM_STEP_ID" not in environment:
        return [*step(shape), sys.executable, "-m", "memedynamics.launch", *job]
    if shape.nodes > 1 and not lease.alone():
        raise InputError("launch.nodes: several machines need Slurm (`--profile slurm`); set it to 1 here")
    if shape.processes == 1:
        return [sys.executable, *job]
    lease.keep(shape.processes)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(PATIENCE))
    place = across(shape, environment) if shape.nodes > 1 else ["--main_process_port", "0"]
    program = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", launch["config"]]
    return [*program, "--num_processes", str(shape.processes), "--num_machines", str(shape.nodes), *place, *job]


def step(shape: Shape) -> list[str]:
    """The beginning of a command that runs the rest of it once on every machine of this Slurm job."""
    return [
        "srun",
        f"--nodes={shape.nodes}",
        f"--ntasks={shape.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={shape.threads}",
        "--cpu-bind=none",
        "--kill-on-bad-exit=1",
    ]


def across(shape: Shape, environment: Mapping[str, str]) -> list[str]:
    """Accelerate's arguments for this machine of several, from what `srun` says: the first one leads."""
    port = 20000 + int(environment["SLURM_JOB_ID"]) % 20000
    leader = environment["SLURM_LAUNCH_NODE_IPADDR"]
    rank = environment["SLURM_NODEID"]
    return ["--machine_rank", rank, "--main_process_ip", leader, "--main_process_port", str(port), "--same_network"]


if __name__ == "__main__":
    main()
