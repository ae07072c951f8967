"""One smoke study, run once, and copies of it to edit."""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from . import one_node_slurm

HERE = Path(__file__).resolve().parents[2]
TREE = ("Snakefile", "rules", "workflow", "config", "envs", "slurm", "workstation", "tests", "docs")
SMOKE = "tests/workflow/smoke.yaml"


def snakemake(folder, *arguments, check=True, config=SMOKE, **environment):
    """Runs Snakemake in `folder`; its combined output."""
    study = ["--configfile", config] if config else []
    done = subprocess.run(
        ["snakemake", *arguments, *study],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert not check or done.returncode == 0, done.stdout[-8000:]
    return done


def planned(folder, *arguments, **options):
    """Which rules a dry run lists, and how many jobs of each."""
    text = snakemake(folder, "--dry-run", *arguments, **options).stdout
    stats = re.search(r"^job +count\n-+ +-+\n(.*?)^total", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^(\w+) +(\d+)$", stats.group(1), re.MULTILINE) if stats else []
    # Aggregates have no job of their own.
    aggregates = {"all", "samples", "training", "analyses", "figures"}
    return Counter({rule: int(count) for rule, count in rows if rule not in aggregates})


def told(folder, rule, holding="", **options):
    """The JSON argument of the first job of `rule` in a dry run whose command holds the text `holding`."""
    text = snakemake(folder, "--dry-run", "--printshellcmds", "--forceall", **options).stdout
    commands = [line for line in text.splitlines() if f"scripts/{rule}.py" in line and holding in line]
    return json.loads(re.search(r"'({.*})'", commands[0]).group(1))


def copy_tree(folder):
    """The project's files, as a fresh clone would have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TREE:
        source = HERE / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder in which the smoke study has run to its end: on Slurm where it is installed, as in CI.

    What Slurm knows of the jobs then lies in slurm.json.
    """
    folder = copy_tree(tmp_path_factory.mktemp("smoke") / "project")
    if not one_node_slurm.available():
        assert not os.environ.get("CI"), "CI must have slurm-wlm and munge, and run as root"
        snakemake(folder, "--cores", "2")
        return folder
    with one_node_slurm.running(tmp_path_factory.mktemp("slurm") / "state") as state:
        folder.joinpath("output.txt").write_text(snakemake(folder, *one_node_slurm.FLAGS).stdout)
        known = {"jobs": one_node_slurm.records(), "held": one_node_slurm.devices(state)}
    folder.joinpath("slurm.json").write_text(json.dumps(known))
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """The finished study with Snakemake's records, to be edited."""
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    return tmp_path / "project"
