"""A real Slurm of one node on this machine, with two fake GPUs: for tests, as root, from Debian's packages.

Accounting is off, so job states are read with squeue. The node says it has more than it does, so that jobs can ask for
what real ones need; its GPUs are /dev/null and /dev/zero.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

SETTINGS = (Path("/etc/slurm/slurm.conf"), Path("/etc/slurm/gres.conf"))
DAEMONS = ("munged", "slurmctld", "slurmd")
FLAGS = [
    "--slurm-no-account",
    "--slurm-status-command=squeue",
    "--slurm-init-seconds-before-status-checks=2",
    "--seconds-between-status-checks=2",
]
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
JobCompType=jobcomp/filetxt
JobCompLoc={state}/completed.txt
ReturnToService=2
MinJobAge=3600
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/daemon
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} CPUs=16 RealMemory=400000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


def available() -> bool:
    """Whether the daemons are installed and this user may start them."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in DAEMONS)


def start(state: Path) -> list[subprocess.Popen]:
    """Configure and start the cluster; its state lies in `state`. Returns the daemons, to be ended by `stop`."""
    host = socket.gethostname().split(".")[0]
    for folder in ("controller", "daemon"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    settings = CONFIG.format(host=host, state=state)
    SETTINGS[0].parent.mkdir(exist_ok=True)
    SETTINGS[0].write_text(settings)
    SETTINGS[1].write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    _start_munge()
    daemons = [subprocess.Popen([shutil.which(name), "-D"], stderr=subprocess.DEVNULL) for name in DAEMONS[1:]]
    wait(lambda: "idle" in _output("sinfo", "--noheader", "--format=%T"))
    return daemons


def stop(daemons: list[subprocess.Popen]) -> None:
    """End the daemons and take their configuration away: with one and no daemon, each `snakemake` waits for 9 s."""
    for daemon in daemons:
        daemon.terminate()
    for daemon in daemons:
        daemon.wait(30)
    for settings in SETTINGS:
        settings.unlink()


def records() -> list[dict[str, str]]:
    """What Slurm knows of every job since the start: scontrol's own fields, and Rule, from Snakemake's comment."""
    found = []
    for job in _output("scontrol", "show", "job", "--details", "--oneliner").splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", job))
        if rule := re.match(r"rule_(.+?)(_wildcards|$)", fields.get("Comment", "")):
            found.append(fields | {"Rule": rule[1]})
    return found


def _start_munge() -> None:
    if _output("pgrep", "munged"):
        return
    for folder in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
        Path(folder).mkdir(exist_ok=True)
        shutil.chown(folder, "munge", "munge")
    if not Path("/etc/munge/munge.key").exists():
        subprocess.run(["mungekey", "--create"], check=True)
        shutil.chown("/etc/munge/munge.key", "munge", "munge")
    subprocess.run(["runuser", "-u", "munge", "--", shutil.which("munged")], check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def wait(ready, seconds: float = 60) -> None:
    """Wait until `ready()`; raises TimeoutError."""
    end = time.time() + seconds
    while not ready():
        if time.time() > end:
            raise TimeoutError(f"not ready after {seconds} s; Slurm's own logs lie in its state folder")
        time.sleep(0.5)
