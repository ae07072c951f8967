"""One smoke study, run once, and copies of it to edit; how many kills it must outlive."""

import json
import os
import shutil

import pytest
from filelock import FileLock

import one_node_slurm
from smoke_study import PLANTED, copy_tree, guard_network, snakemake

# Workers side by side share the cores: threads that wait for each other's would take twice the time. Before any import
# of torch, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--on-slurm", action="store_true", help="run the smoke study through a real Slurm, if it is here")
    parser.addoption(
        "--kills", type=int, help="kill a whole smoke study so often (two a stage at least); default: a few jobs"
    )


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """The report's folder of the study `reported_study`, below the study's; nothing may be changed there."""
    import reported_study  # Plotly takes a second to import, which no other test should wait for

    return reported_study.write(tmp_path_factory.mktemp("reported") / "results/synthetic")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id, pytestconfig):
    """A folder in which the smoke study has run to its end, without a network and with secrets in its environment.

    With --on-slurm what Slurm knows of the jobs lies in slurm.json. Workers that run side by side share it: nothing may
    be changed there.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "smoke/project"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_name("lock")):
        if not folder.with_name("done").exists():
            run_smoke(folder, pytestconfig.getoption("on_slurm"))
            folder.with_name("done").touch()
    return folder


def run_smoke(folder, on_slurm):
    """The smoke study in `folder`, from its start to its end."""
    shutil.rmtree(folder, ignore_errors=True)
    copy_tree(folder)
    guard_network(folder)
    surroundings = PLANTED | {"PYTHONPATH": str(folder)}
    if not (on_slurm and one_node_slurm.available()):
        assert not on_slurm or not os.environ.get("CI"), "CI must have slurm-wlm and munge, and run as root"
        folder.joinpath("output.txt").write_text(snakemake(folder, "--cores", "2", **surroundings).stdout)
        return
    with one_node_slurm.running(folder.with_name("slurm")) as state:
        folder.joinpath("output.txt").write_text(snakemake(folder, *one_node_slurm.FLAGS, **surroundings).stdout)
        known = {"jobs": one_node_slurm.records(), "held": one_node_slurm.devices(state)}
    folder.joinpath("slurm.json").write_text(json.dumps(known))


@pytest.fixture
def copied(finished, tmp_path):
    """The finished study with Snakemake's records, to be edited."""
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    return tmp_path / "project"
