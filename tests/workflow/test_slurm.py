"""Trainings on a real Slurm: jobs see the study file, GPU rules hold a device each, arrays, warnings."""

import json
import os
import re
import subprocess
from base64 import b64encode

import pyarrow.parquet as pq
import pytest
import yaml

import one_node_slurm
from smoke_study import HERE, copy_tree, planned, snakemake, told

pytestmark = pytest.mark.workflow
STUDY = "tests/workflow/slurm.yaml"
WORK = "results/slurm/.work/train_grpo/grpo"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not one_node_slurm.available():
        assert not os.environ.get("CI"), "CI must have slurm-wlm and munge, and run as root"
        pytest.skip("needs Debian's slurm-wlm and munge, as root")
    with one_node_slurm.running(tmp_path_factory.mktemp("slurm") / "state"):
        yield


@pytest.fixture(scope="module")
def trained(cluster, tmp_path_factory):
    """A folder whose study has trained on the cluster; what Slurm knows of it; the devices held at once; and what one
    training had saved and said when it was told that its time is up.
    """
    project = copy_tree(tmp_path_factory.mktemp("on_slurm") / "project")
    command = ["snakemake", "training", *one_node_slurm.FLAGS, "--configfile", STUDY]
    with (project / "output.txt").open("w") as output:
        running = subprocess.Popen(command, cwd=project, stdout=output, stderr=subprocess.STDOUT)

    def said():
        return (project / "output.txt").read_text()[-8000:]

    snapshots = []

    def under_way():
        assert running.poll() is None, said()
        # Slurm says which devices a job has while it runs.
        snapshots.append([devices(job) for job in one_node_slurm.records() if job["JobState"] == "RUNNING"])
        return len(list(project.glob(f"{WORK}/*/*/rollouts/*.parquet"))) >= 6

    one_node_slurm.wait(under_way, 900)
    job = next(job for job in one_node_slurm.records() if (job["Rule"], job["JobState"]) == ("train_grpo", "RUNNING"))
    subprocess.run(["scancel", "--signal=TERM", job["JobId"]], check=True)
    one_node_slurm.wait(lambda: state_of(job) == "FAILED", 180)
    saved = [path.parent.name for path in project.glob(f"{WORK}/*/*/checkpoints/*/complete")]
    words = "".join(log.read_text() for log in project.glob("results/slurm/logs/train/grpo/*.log"))
    assert running.wait(900) == 0, said()
    return project, one_node_slurm.records(), snapshots, (saved, words)


def state_of(job):
    return next(found["JobState"] for found in one_node_slurm.records() if found["JobId"] == job["JobId"])


def devices(job):
    """The devices that a running job holds, by number."""
    held = re.search(r"IDX:([0-9,-]+)", job.get("GRES", ""))
    return held[1].replace("-", ",").split(",") if held else []


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
        assert (job["Partition"], job["JOB_GRES"]) == (("gpu", "gpu:1") if needs else ("cpu", "(null)")), job
    held = [sorted(sum(snapshot, [])) for snapshot in trained[2]]
    assert ["0", "1"] in held
    assert all(len(set(each)) == len(each) for each in held)


def test_nothing_is_left_to_do(trained):
    """Nor is any output taken for incomplete."""
    assert planned(trained[0], "training", config=STUDY) == {}


def test_shards_are_arrays(trained):
    """The two shards of a split."""
    arrays = [(job["Rule"], job["ArrayJobId"]) for job in trained[1] if "ArrayJobId" in job]
    sizes = sorted(sum(other == one for other in arrays) for one in set(arrays) if one[0] == "sample_base")
    assert sum(sizes) >= 2 and max(sizes) > 1


# Of three jobs one ends at once, one after Snakemake has heard of that and has a record of it, and one fails the first
# time; each writes down when, and how often it ran.
TASKS = """
import sys
sys.path.insert(0, "{library}")
from memedynamics import array_tasks
array_tasks.keep_to_own_output()

rule all:
    input: expand("made/{{name}}", name=["soon", "late", "second"])

rule one:
    output: "made/{{name}}"
    shell:
        '''
        echo ran >> {{wildcards.name}}.times
        [ {{wildcards.name}} != second ] || sleep 9
        while [ {{wildcards.name}} = late ] && [ ! -e .snakemake/metadata/{record} ]; do sleep 1; done
        [ {{wildcards.name}} != second ] || [ $(wc -l < second.times) = 2 ]
        date +%s.%N > {{output}}
        '''
"""
AS_AN_ARRAY = ["--executor=slurm", "--jobs=unlimited", "--max-jobs-per-timespan=100000/1s", "--slurm-array-jobs=one"]
AS_AN_ARRAY += ["--default-resources", "slurm_partition=cpu", "mem_mb=100", "runtime=5"]


def test_tasks_of_an_array_leave_each_other_s_output_alone(cluster, tmp_path):
    """Whichever is first: none fails for another's missing output, none renews, deletes or doubts what another made."""
    (tmp_path / "Snakefile").write_text(
        TASKS.format(library=HERE / "workflow", record=b64encode(b"made/soon").decode())
    )
    snakemake(tmp_path, *one_node_slurm.SHORT_WAITS, *AS_AN_ARRAY, "--retries=1", "--keep-going", config=None)
    ran = {file.stem: len(file.read_text().split()) for file in tmp_path.glob("*.times")}
    assert ran == {"soon": 1, "late": 1, "second": 2}
    assert not list((tmp_path / ".snakemake/incomplete").iterdir())
    # Snakemake itself renews the time as it hears that a job has ended, for which the last one waited.
    assert (tmp_path / "made/soon").stat().st_mtime < float((tmp_path / "made/late").read_text())


def test_a_training_told_that_its_time_is_up_saves_itself_and_goes_on(trained):
    project, records, _, (saved, words) = trained
    states = sorted(job["JobState"] for job in records if job["Rule"] == "train_grpo")
    assert states == ["COMPLETED", "COMPLETED", "FAILED"]
    stopped = re.search(r"training was stopped at step (\d+) of 30", words)
    assert f"checkpoint-{stopped[1]}" in saved
    for seed in (1, 2):
        steps = pq.read_table(project / f"results/slurm/runs/grpo/seed{seed}/rollouts.parquet")["step"].to_pylist()
        assert sorted(set(steps)) == list(range(1, 31)) and len(steps) == 30 * 8
