"""A Snakemake that has a cluster's job and alone hears Slurm's warning: so it is with cgroups, unlike in test_slurm."""

import os
import signal
import subprocess
import sys

import pytest

from memedynamics import job_signals
from one_node_slurm import wait
from smoke_study import HERE

SNAKEFILE = f"""
import sys
sys.path.insert(0, "{HERE}/workflow")
from memedynamics import job_signals
job_signals.pass_on()

rule train:
    output: "saved"
    shell: "{sys.executable} workflow/scripts/train.py {{output}} > log 2>&1"
"""
# Saves itself when it is told to, and takes longer about it than Snakemake takes to end.
TRAIN = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    pathlib.Path(sys.argv[1]).write_text("whole")
    sys.exit({status})
signal.signal(signal.SIGTERM, save)
pathlib.Path("began").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("status", [0, 1])
def test_the_warning_reaches_the_training_whose_own_end_counts(tmp_path, status):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "workflow/scripts").mkdir(parents=True)
    (tmp_path / "workflow/scripts/train.py").write_text(TRAIN.format(status=status))
    command = [sys.executable, "-m", "snakemake", "--cores=1", "--keep-incomplete", "saved"]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait((tmp_path / "began").exists)
    os.kill(running.pid, signal.SIGTERM)
    said = running.communicate(timeout=60)[0]
    assert (tmp_path / "saved").read_text() == "whole"
    assert running.returncode == status, said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("python workflow/scripts/train_sft.py {}", True),
        ("python -m memedynamics.launch workflow/scripts/train_sft.py {}", False),
        ("python -m accelerate.commands.launch --num_processes 2 workflow/scripts/train_sft.py {}", False),
        ("python -m memedynamics.llamafactory_entry settings.yaml", False),
    ],
)
def test_only_scripts_are_told(arguments, expected):
    assert job_signals.is_script(arguments.split()) is expected


def test_a_shell_around_a_script_is_not_told():
    assert not job_signals.is_script(["/bin/bash", "-c", "python workflow/scripts/train_sft.py {} > log"])
