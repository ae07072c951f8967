"""The smoke study on a real Slurm: who holds a GPU, arrays, warnings."""

import json
import os
import random
import re
import signal
import subprocess
from base64 import b64encode, urlsafe_b64encode
from itertools import combinations

import pyarrow.parquet as pq
import pytest
import yaml

import one_node_slurm
import stopped_trainings
from smoke_study import HERE, PLANTED, SMOKE, planned, snakemake, told

from ..faults.killing import ROOT, Watch
from .test_hygiene import leaks

pytestmark = pytest.mark.workflow
LOCAL = {"all", "analyses", "figures", "samples", "training", "report", "gather_samples", "gather_own_samples"}
LOCAL |= {"report_shell", "report_index"}


@pytest.fixture(scope="module")
def known(finished):
    """What Slurm knows of the smoke study: its jobs, and who held which device when."""
    if not (finished / "slurm.json").exists():
        assert not os.environ.get("CI"), "CI must run the smoke study on Slurm"
        pytest.skip("needs --on-slurm, with Debian's slurm-wlm and munge, as root")
    found = json.loads((finished / "slurm.json").read_text())
    return found["jobs"], [one_node_slurm.Held(*held) for held in found["held"]]


def planned_resources(folder, *arguments):
    """By rule, what a dry run says that each job asks for."""
    text = snakemake(folder, "--dry-run", "--forceall", *arguments).stdout
    jobs = re.findall(r"^(?:local)?rule (\w+):.*?^    resources: (.*?)$", text, re.MULTILINE | re.DOTALL)
    return {rule: dict(re.findall(r"(\w+)=(\S+?)(?:,|$)", resources)) for rule, resources in jobs}


@pytest.fixture(scope="module")
def asked(finished):
    return planned_resources(finished)


def test_every_job_ran_on_the_cluster_but_the_tiny_ones(known, asked):
    names = {job["Rule"] for job in known[0]}
    assert names == {rule for rule in asked if rule not in LOCAL and not rule.startswith("figure_")}
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


def test_partition_account_model_and_qos_are_said_once(copied):
    profile = copied / "slurm/config.yaml"
    text = profile.read_text()
    for said, own in (
        ('"gpu"', '"boost"'),
        ('"default"', '"lab"'),
        ('gpu_model: ""', 'gpu_model: "a100"\n    qos: "long"'),
    ):
        assert text.count(said) == 1
        text = text.replace(said, own)
    profile.write_text(text)
    for rule, resources in planned_resources(copied, "--profile=slurm").items():
        found = [resources.get(name) for name in ("slurm_partition", "slurm_account", "gpu_model", "qos")]
        if "gpu" in resources:
            assert found == ["boost", "lab", "a100", "long"], rule
        elif rule not in LOCAL:
            assert found == ["cpu", "lab", None, None], rule


def test_jobs_get_the_memory_and_time_that_their_rules_ask_for(known, asked):
    for job in known[0]:
        if wanted := asked.get(job["Rule"]):
            hours, minutes = divmod(int(wanted["runtime"]), 60)
            days, hours = divmod(hours, 24)
            assert job["TimeLimit"] == (f"{days}-" if days else "") + f"{hours:02}:{minutes:02}:00", job
            # A task of an array takes the commands of the others along.
            (given,) = stopped_trainings.memory([job])
            assert 0 <= given - int(wanted["mem_mb"]) <= 2, job


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


def test_nothing_is_left_to_do(finished, known):
    """Nor is any output taken for incomplete."""
    assert planned(finished) == {}


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
AS_AN_ARRAY = ["--executor=slurm", "--slurm-array-jobs=one"]
AS_AN_ARRAY += ["--default-resources", "slurm_partition=cpu", "mem_mb=100", "runtime=5"]


def test_tasks_of_an_array_leave_each_other_s_output_alone(known, tmp_path):
    """Whichever is first: none fails for another's missing output, none renews, deletes or doubts what another made."""
    project = tmp_path / "project"
    project.mkdir()
    record = b64encode(b"made/soon").decode()
    (project / "Snakefile").write_text(TASKS.format(library=HERE / "workflow", record=record))
    with one_node_slurm.running(tmp_path / "slurm/state"):
        snakemake(
            project,
            *one_node_slurm.SHORT_WAITS,
            *AS_AN_ARRAY,
            "--jobs=unlimited",
            "--retries=1",
            "--keep-going",
            config=None,
        )
    ran = {file.stem: len(file.read_text().split()) for file in project.glob("*.times")}
    assert ran == {"soon": 1, "late": 1, "second": 2}
    assert not list((project / ".snakemake/incomplete").iterdir())
    # Snakemake itself renews the time as it hears that a job has ended, for which the last one waited.
    assert (project / "made/soon").stat().st_mtime < float((project / "made/late").read_text())


# More than two jobs' commands are too long for one argument of a command; five may run at once; one asks for more.
LONG = """
import sys
sys.path.insert(0, "{library}")
from memedynamics import array_tasks, environment
array_tasks.submit_in_pieces()
array_tasks.keep_to_own_output()
logger.addFilter(environment.unsaid)

rule all:
    input: expand("made/{{n}}", n=range(7))

rule one:
    output: "made/{{n}}"
    resources: mem_mb=lambda wildcards: 200 if wildcards.n == "6" else 100
    shell: "echo ran >> {{wildcards.n}}.times; touch {{output}}"
"""


def test_long_commands_limits_and_what_each_asks_for_in_arrays(known, tmp_path):
    """Every job runs once, with what it asks for; and no environment is written down, however much is."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "Snakefile").write_text(LONG.format(library=HERE / "workflow"))
    padding = b64encode(random.Random(1).randbytes(15_000)).decode()
    arguments = [*one_node_slurm.SHORT_WAITS, *AS_AN_ARRAY, "--jobs=5", "--verbose", "--config", f"padding={padding}"]
    with one_node_slurm.running(tmp_path / "slurm/state"):
        snakemake(project, *arguments, config=None, **PLANTED)
        jobs = one_node_slurm.records()
    assert {file.name: file.read_text() for file in project.glob("*.times")} == {
        f"{n}.times": "ran\n" for n in range(7)
    }
    assert {job["JobState"] for job in jobs} == {"COMPLETED"} and any("ArrayJobId" in job for job in jobs)
    memory = stopped_trainings.memory(jobs)
    assert len(jobs) == 7 and all(100 <= given < 110 for given in memory[:6]) and 200 <= memory[6] < 210
    assert not leaks(project, PLANTED)


def test_a_job_that_ended_while_snakemake_was_dying_is_only_put_together(known, copied):
    """Its batches are as they were, and it is noted with what it was made with."""
    target = f"{ROOT}/drawn/base/pictograms/val.1-of-2.parquet"
    record = copied / ".snakemake/metadata" / urlsafe_b64encode(target.encode()).decode()
    for file in (copied / target, record):
        file.unlink()
    with one_node_slurm.running(copied.parent / "slurm/state"), (copied / "output.txt").open("w") as output:
        command = ["snakemake", target, *one_node_slurm.FLAGS, "--configfile", SMOKE]
        main = subprocess.Popen(command, cwd=copied, stdout=output, stderr=output)
        try:
            one_node_slurm.wait(one_node_slurm.records, 120)
            main.send_signal(signal.SIGSTOP)
            one_node_slurm.wait(lambda: {job["JobState"] for job in one_node_slurm.records()} == {"COMPLETED"}, 120)
        finally:
            main.kill()
            main.wait()
    watch = Watch(copied)
    watch.look()
    assert (copied / target).exists() and watch.versions
    watch.start()
    snakemake(copied, target, "--cores", "1", "--rerun-incomplete")
    watch.over.set()
    watch.join()
    assert not watch.repeated() and not planned(copied, target)
    assert json.loads(record.read_text())["params"]


@pytest.fixture(scope="module")
def stopped(finished, known, tmp_path_factory):
    return stopped_trainings.train(finished, tmp_path_factory.mktemp("stopped"), ["short", "shared"])


def test_trainings_save_themselves_before_their_time_is_up(stopped):
    """Slurm's own warning reaches one; the retried one gets more time, here by the profile, and more memory."""
    found = [job for job in stopped.jobs if job["Rule"] == "train_sft"]
    limits, states = zip(*sorted((job["TimeLimit"], job["JobState"]) for job in found), strict=True)
    assert list(limits) == [f"00:{minutes:02}:00" for minutes in range(1, len(found) + 1)]
    assert states[-1] == "COMPLETED" and set(states[:-1]) == {"FAILED"}
    assert len(states) <= 3  # two minutes are few for a slow machine
    memory = stopped_trainings.memory(found)
    assert memory == [attempt * memory[0] for attempt in range(1, len(found) + 1)]


def test_two_processes_hold_two_devices_and_hear_the_signal(stopped):
    found = [job for job in stopped.jobs if job["Rule"] == "train_dpo"]
    assert sorted(job["JobState"] for job in found) == ["COMPLETED", "FAILED"]
    assert {(job["JOB_GRES"], job["NumNodes"]) for job in found} == {("gpu:2", "1")}


def test_who_hears_the_signal_saves_the_step_that_it_is_at(stopped):
    for name, said in stopped.said.items():
        assert f"training was stopped at step {stopped.saved[name][-1]} of 12" in said


def test_a_training_goes_on_from_where_it_was_stopped(stopped):
    stopped_trainings.went_on(stopped)
