"""A real Slurm on this machine, with two fake GPUs: for tests, as root, from Debian's packages.

Accounting is off, so job states are read with squeue. The node says it has more memory than it does, so that jobs can
ask for what real ones need, but no more cores: what runs at once would only be slower. Its GPUs are /dev/null and
/dev/zero. One user at a time: another test waits until the cluster is free.
"""

import fcntl
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SETTINGS = (Path("/etc/slurm/slurm.conf"), Path("/etc/slurm/gres.conf"))
DAEMONS = ("munged", "slurmctld", "slurmd")
SHORT_WAITS = [
    "--slurm-no-account",
    "--slurm-status-command=squeue",
    "--slurm-init-seconds-before-status-checks=1",
    "--seconds-between-status-checks=1",
    "--latency-wait=5",
]
# No more threads than cores, instead of the profile's, which are for machines with many.
FLAGS = ["--profile=slurm", *SHORT_WAITS, "--set-threads=prepare_dataset=1"]
CONFIG = """
ClusterName=tests
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
ReturnToService=2
MinJobAge=3600
Prolog={state}/held.sh
Epilog={state}/freed.sh
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/daemon
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} CPUs={cores} RealMemory=400000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""
# Until its input ends: the test is over, or dead.
KEEPER = """
setpriv --reuid=munge --regid=munge --init-groups munged --foreground --force & munged=$!
slurmctld -D & slurmctld=$!
slurmd -D & slurmd=$!
read -r line
scancel --user=root
for i in $(seq 20); do squeue --noheader | grep -q . && sleep 0.5 || break; done
kill $slurmd $slurmctld $munged
wait
rm -f "$0" "$1"
"""
# Slurm runs them at either end of every job.
NOTE = '#!/bin/sh\necho "$(date +%s.%N) {what} $SLURM_JOB_ID ${{SLURM_JOB_GPUS:-none}}" >> {state}/devices.log\n'


class Held(NamedTuple):
    """A device that a job held, and from when to when (seconds)."""

    job: str
    device: str
    start: float
    end: float


def available() -> bool:
    """Whether the daemons are installed and this user may start them."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in DAEMONS)


@contextmanager
def running(state: Path) -> Iterator[Path]:
    """Inside, the cluster runs; its state lies in `state`. Settings without daemons would keep each `snakemake` 9 s.

    The keeper, which holds the daemons, ends them and takes the settings away however this process ends.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    with open("/run/lock/one_node_slurm", "w") as lock, (state.with_suffix(".log")).open("w") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _configure(state)
        given = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log, "pass_fds": [lock.fileno()]}
        keeper = subprocess.Popen(["sh", "-c", KEEPER, *map(str, SETTINGS)], start_new_session=True, **given)
        try:
            wait(lambda: "idle" in _output("sinfo", "--noheader", "--format=%T"))
            yield state
        finally:
            keeper.stdin.close()
            keeper.wait(60)


def _configure(state: Path) -> None:
    _prepare_munge()
    for folder in ("controller", "daemon"):
        (state / folder).mkdir(parents=True)
    for what in ("held", "freed"):
        script = state / f"{what}.sh"
        script.write_text(NOTE.format(what=what, state=state))
        script.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    SETTINGS[0].parent.mkdir(exist_ok=True)
    SETTINGS[0].write_text(CONFIG.format(host=host, state=state, cores=os.cpu_count()))
    SETTINGS[1].write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")


def _prepare_munge() -> None:
    for folder in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
        Path(folder).mkdir(exist_ok=True)
        shutil.chown(folder, "munge", "munge")
    if not Path("/etc/munge/munge.key").exists():
        subprocess.run(["mungekey", "--create"], check=True)
        shutil.chown("/etc/munge/munge.key", "munge", "munge")


def records() -> list[dict[str, str]]:
    """What Slurm knows of every job since the start: scontrol's own fields, and Rule, from Snakemake's comment."""
    found = []
    for job in _output("scontrol", "show", "job", "--details", "--oneliner").splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", job))
        if rule := re.match(r"(rule|group)_(.+?)(_wildcards|$)", fields.get("Comment", "")):
            found.append(fields | {"Rule": rule[2]})
    return found


def devices(state: Path) -> list[Held]:
    """Which device each finished job held, as the cluster's prolog and epilog wrote down."""
    starts, found = {}, []
    for line in (state / "devices.log").read_text().splitlines():
        when, what, job, names = line.split()
        if what == "held":
            starts[job] = float(when)
        elif names != "none":
            found += [Held(job, name, starts[job], float(when)) for name in names.split(",")]
    return found


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def wait(ready, seconds: float = 60) -> None:
    """Wait until `ready()`; raises TimeoutError."""
    end = time.time() + seconds
    while not ready():
        if time.time() > end:
            raise TimeoutError(f"not ready after {seconds} s; Slurm's own logs lie in its state folder")
        time.sleep(0.5)
