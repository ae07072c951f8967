"""The study on a real Slurm: who gets a GPU, what goes out as arrays, and that trainings hear that their time is up.

The first half looks at the smoke study, which ran through `--profile slurm` (fixture `finished`). The second adds two
methods to a copy of it: one that two processes share, and one of two seeds whose time is too short.
"""

import json
import re
from itertools import combinations

import pyarrow.parquet as pq
import pytest
import yaml

import one_node_slurm
from smoke_study import SMOKE, snakemake, told

pytestmark = pytest.mark.workflow
LOCAL = {"all", "analyses", "figures", "samples", "training", "gather_samples", "gather_own_samples"}


@pytest.fixture(scope="module")
def known(finished):
    """What Slurm knows of the smoke study: its jobs, and who held which device when."""
    if not (finished / "slurm.json").exists():
        pytest.skip("needs Debian's slurm-wlm and munge, as root")
    found = json.loads((finished / "slurm.json").read_text())
    return found["jobs"], [one_node_slurm.Held(*held) for held in found["held"]]


@pytest.fixture(scope="module")
def asked(finished):
    """By rule, what a dry run says that each job asks for."""
    text = snakemake(finished, "--dry-run", "--forceall").stdout
    jobs = re.findall(r"^(?:local)?rule (\w+):.*?^    resources: (.*?)$", text, re.MULTILINE | re.DOTALL)
    return {rule: dict(re.findall(r"(\w+)=(\S+?)(?:,|$)", resources)) for rule, resources in jobs}


def test_every_job_ran_on_the_cluster_but_the_tiny_ones(known, asked):
    names = {job["Rule"] for job in known[0]}
    grouped = {rule for rule in asked if (rule if rule.startswith("figure_") else f"figure_{rule}") in asked}
    assert names == set(asked) - LOCAL - grouped | {"reductions", "summary"}
    assert {job["JobState"] for job in known[0]} == {"COMPLETED"}


def test_who_needs_a_gpu_holds_one_of_its_own(known, asked):
    """One device a GPU rule, in the GPU partition; none elsewhere; no two at once on one."""
    jobs, held = known
    for job in jobs:
        needs = "gpu" in asked.get(job["Rule"], {})
        assert (job["Partition"], job["JOB_GRES"]) == (("gpu", "gpu:1") if needs else ("cpu", "(null)")), job
    assert {span.job for span in held} == {job["JobId"] for job in jobs if job["Partition"] == "gpu"}
    at_once = [(one, two) for one, two in combinations(held, 2) if one.start < two.end and two.start < one.end]
    assert at_once and all(one.device != two.device for one, two in at_once)


def test_jobs_get_the_memory_and_time_that_their_rules_ask_for(known, asked):
    for job in known[0]:
        if wanted := asked.get(job["Rule"]):
            hours, minutes = divmod(int(wanted["runtime"]), 60)
            days, hours = divmod(hours, 24)
            assert job["TimeLimit"] == (f"{days}-" if days else "") + f"{hours:02}:{minutes:02}:00", job
            # A task of an array takes the commands of the others along: 1 MiB here.
            memory = re.match(r"(\d+)([MG])", job["MinMemoryNode"])
            given = int(memory[1]) * {"M": 1, "G": 1024}[memory[2]]
            assert given - int(wanted["mem_mb"]) in (0, 1), job


def test_shards_and_methods_are_arrays(known):
    """The two shards of each split; scores of the methods that were ready together."""
    arrays = [(job["Rule"], job["ArrayJobId"]) for job in known[0] if "ArrayJobId" in job]
    sizes = sorted(sum(other == one for other in arrays) for one in set(arrays) if one[0] == "sample_base")
    assert sum(sizes) == 8 and max(sizes) > 1
    assert {rule for rule, _ in arrays} >= {"sample_base", "sample_policy"}


def test_a_cluster_job_sees_the_study_file(finished, known):
    """The whole study file: its settings, the schema's defaults, nothing of the demo's."""
    wanted = yaml.safe_load((finished / SMOKE).read_text())["datasets"]["pictograms"]["splits"]
    told_here = told(finished, "prepare_dataset", '"dataset": "pictograms"')
    for split, rows in wanted.items():
        table = finished / "results/smoke/data/pictograms" / f"{split}.parquet"
        assert pq.read_metadata(table).num_rows == rows
        note = json.loads(pq.read_schema(table).metadata[b"memedynamics"])
        assert (note["study"], note["config"]) == ("smoke", told_here["digest"])
