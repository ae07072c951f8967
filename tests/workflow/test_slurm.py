"""The study on a real Slurm: jobs see the study file, GPU rules hold one each, shards are arrays, warnings are heard."""

import json
import os
import re
import subprocess
from datetime import datetime
from itertools import combinations

import pyarrow.parquet as pq
import pytest
import yaml

from . import one_node_slurm
from .conftest import copy_tree, told

pytestmark = pytest.mark.workflow
STUDY = "tests/workflow/slurm.yaml"
WORK = "results/slurm/.work/train_grpo/grpo"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not one_node_slurm.available():
        assert not os.environ.get("CI"), "CI must have slurm-wlm and munge, and run as root"
        pytest.skip("needs Debian's slurm-wlm and munge, as root")
    daemons = one_node_slurm.start(tmp_path_factory.mktemp("slurm"))
    yield
    one_node_slurm.stop(daemons)


@pytest.fixture(scope="module")
def trained(cluster, tmp_path_factory):
    """A folder whose study has trained on the cluster; what Slurm knows of it; and what one training had saved when it
    was told that its time is up.
    """
    project = copy_tree(tmp_path_factory.mktemp("on_slurm") / "project")
    command = ["snakemake", "--profile", "slurm", *one_node_slurm.FLAGS, "--configfile", STUDY, "training"]
    with (project / "output.txt").open("w") as output:
        running = subprocess.Popen(command, cwd=project, stdout=output, stderr=subprocess.STDOUT)

    def said():
        return (project / "output.txt").read_text()[-8000:]

    def under_way():
        assert running.poll() is None, said()
        return len(list(project.glob(f"{WORK}/*/*/rollouts/*.parquet"))) >= 6

    one_node_slurm.wait(under_way, 900)
    job = next(job for job in trainings() if job["JobState"] == "RUNNING")
    subprocess.run(["scancel", "--signal=TERM", job["JobId"]], check=True)
    one_node_slurm.wait(lambda: job["JobId"] in {found["JobId"] for found in trainings("FAILED")}, 120)
    saved = list(project.glob(f"{WORK}/*/*/checkpoints/*/complete"))
    assert running.wait(600) == 0, said()
    return project, one_node_slurm.records(), saved


def trainings(state=None):
    found = [job for job in one_node_slurm.records() if job["Rule"] == "train_grpo"]
    return [job for job in found if state in (None, job["JobState"])]


def gpus(job):
    """The devices that a job held, by number."""
    held = re.search(r"IDX:([0-9,-]+)", job.get("GRES", ""))
    return set(held[1].replace("-", ",").split(",")) if held else set()


def test_a_cluster_job_sees_the_study_file(trained):
    """The whole study file: its settings, the schema's defaults, nothing of the demo's."""
    project = trained[0]
    wanted = yaml.safe_load((project / STUDY).read_text())["datasets"]["pictograms"]["splits"]
    told_here = told(project, "prepare_dataset", '"dataset": "pictograms"', config=STUDY)
    for split, rows in wanted.items():
        table = project / "results/slurm/data/pictograms" / f"{split}.parquet"
        assert pq.read_metadata(table).num_rows == rows
        note = json.loads(pq.read_schema(table).metadata[b"memedynamics"])
        assert (note["study"], note["config"]) == ("slurm", told_here["digest"])


def test_who_needs_a_gpu_holds_one_of_its_own(trained):
    """From Slurm's records: one device a GPU rule, in the GPU partition; none elsewhere; no two at once on one."""
    for job in trained[1]:
        needs = job["Rule"] in ("sample_base", "preflight", "train_grpo")
        assert (job["Partition"], len(gpus(job))) == (("gpu", 1) if needs else ("cpu", 0)), job
    held = [job for job in trained[1] if gpus(job)]
    assert len(held) >= 10
    for one, other in combinations(held, 2):
        apart = [
            datetime.fromisoformat(a["EndTime"]) <= datetime.fromisoformat(b["StartTime"])
            for a, b in ((one, other), (other, one))
        ]
        assert any(apart) or not gpus(one) & gpus(other)


def test_shards_and_seeds_are_arrays(trained):
    for rule, size in {"sample_base": 6, "train_grpo": 2}.items():
        arrays = [job["ArrayJobId"] for job in trained[1] if job["Rule"] == rule and "ArrayJobId" in job]
        assert max(map(arrays.count, arrays)) == size


def test_a_training_told_that_its_time_is_up_saves_itself_and_goes_on(trained):
    project, records, saved = trained
    states = sorted(job["JobState"] for job in records if job["Rule"] == "train_grpo")
    assert states == ["COMPLETED", "COMPLETED", "FAILED"]
    stopped = re.search(r"training was stopped at step (\d+) of 30", (project / "output.txt").read_text())
    assert f"checkpoint-{stopped[1]}" in {path.parent.name for path in saved}
    for seed in (1, 2):
        steps = pq.read_table(project / f"results/slurm/runs/grpo/seed{seed}/rollouts.parquet")["step"].to_pylist()
        assert sorted(set(steps)) == list(range(1, 31)) and len(steps) == 30 * 8
