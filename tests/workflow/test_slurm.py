"""The study on a real Slurm: jobs see the study file, GPU rules hold a GPU."""

import json
import os

import pyarrow.parquet as pq
import pytest
import yaml

from . import one_node_slurm
from .conftest import SMOKE, copy_tree, snakemake, told

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if not one_node_slurm.available():
        assert not os.environ.get("CI"), "CI must have slurm-wlm and munge, and run as root"
        pytest.skip("needs Debian's slurm-wlm and munge, as root")
    state = tmp_path_factory.mktemp("slurm")
    daemons = one_node_slurm.start(state)
    yield state
    one_node_slurm.stop(daemons)


def test_a_cluster_job_sees_the_study_file(slurm, tmp_path):
    """The whole smoke file but for the data alone: its settings, the schema's defaults, nothing of the demo's."""
    project = copy_tree(tmp_path / "project")
    told_here = told(project, "prepare_dataset", '"dataset": "pictograms"')
    snakemake(project, "data", "--profile", "slurm", *one_node_slurm.FLAGS)
    assert (slurm / "completed.txt").read_text().count("JobState=COMPLETED") == 2
    wanted = yaml.safe_load((project / SMOKE).read_text())["datasets"]["pictograms"]["splits"]
    for split, rows in wanted.items():
        table = project / "results/smoke/data/pictograms" / f"{split}.parquet"
        assert pq.read_metadata(table).num_rows == rows
        note = json.loads(pq.read_schema(table).metadata[b"memedynamics"])
        assert (note["study"], note["config"]) == ("smoke", told_here["digest"])
