"""One smoke study, run once, and copies of it to edit; how many kills it must outlive."""

import shutil

import pytest

from smoke_study import PLANTED, copy_tree, guard_network, snakemake


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, help="kill a whole smoke study so often (26 at least); default: a few jobs")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder in which the smoke study has run to its end, without a network and with secrets in its environment."""
    folder = copy_tree(tmp_path_factory.mktemp("smoke") / "project")
    guard_network(folder)
    surroundings = PLANTED | {"PYTHONPATH": str(folder)}
    folder.joinpath("output.txt").write_text(snakemake(folder, "--cores", "2", **surroundings).stdout)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """The finished study with Snakemake's records, to be edited."""
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    return tmp_path / "project"
