"""The study on a real Slurm: who gets a GPU, and that trainings hear that their time is up.

The first half looks at the smoke study, which ran through `--profile slurm` (fixture `finished`). The second adds
trainings to a copy of it, each stopped in another way.
"""

import json
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

import one_node_slurm
from smoke_study import SMOKE, snakemake, told

pytestmark = [pytest.mark.workflow, pytest.mark.long]
LOCAL = {"all", "analyses", "figures", "samples", "training", "report", "gather_samples", "gather_own_samples"}
LOCAL |= {"report_shell", "report_index"}


@pytest.fixture(scope="module")
def known(finished):
    """What Slurm knows of the smoke study: its jobs, and who held which device when."""
    if not (finished / "slurm.json").exists():
        pytest.skip("needs --on-slurm: Debian's slurm-wlm and munge, as root (make long)")
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


def test_jobs_get_the_memory_and_time_that_their_rules_ask_for(known, asked):
    for job in known[0]:
        if wanted := asked.get(job["Rule"]):
            hours, minutes = divmod(int(wanted["runtime"]), 60)
            days, hours = divmod(hours, 24)
            assert job["TimeLimit"] == (f"{days}-" if days else "") + f"{hours:02}:{minutes:02}:00", job
            # A task of an array takes the commands of the others along.
            memory = re.match(r"([\d.]+)([MG])", job["MinMemoryNode"])
            given = float(memory[1]) * {"M": 1, "G": 1024}[memory[2]]
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


# Methods for a copy of the smoke study, each stopped in another way: its time is short and it is warned of that; two
# processes share it and are told to end; its time is up and nobody warned it; it is preempted.
STEPS = {"max_steps": 12, "save_steps": 2}
METHODS = {
    "short": {"kind": "sft", "args": STEPS},
    "shared": {"kind": "dpo", "args": {**STEPS, "learning_rate": 1e-4}, "launch": {"processes": 2}},
    "overdue": {"kind": "rft", "args": STEPS},
    "preempted": {"kind": "dr_grpo", "args": {**STEPS, "num_generations": 4}},
}
RULES = {"short": "train_sft", "shared": "train_dpo", "overdue": "train_rft", "preempted": "train_grpo"}


@pytest.fixture(scope="module")
def stopped(finished, known, tmp_path_factory):
    """A copy of the study with these trained, each after it was stopped; the jobs; and what had been saved."""
    project = tmp_path_factory.mktemp("stopped") / "project"
    shutil.copytree(finished, project, symlinks=True)
    study = yaml.safe_load((project / SMOKE).read_text())
    study["methods"] |= METHODS
    (project / SMOKE).write_text(yaml.safe_dump(study, sort_keys=False))
    give_little_time(project / "slurm/config.yaml", train_sft="--signal=TERM@30", train_rft="")
    wanted = [f"results/smoke/runs/{name}/seed1/run.json" for name in RULES]
    command = ["snakemake", *wanted, *one_node_slurm.FLAGS, "--configfile", SMOKE]
    saved = {}
    with one_node_slurm.running(tmp_path_factory.mktemp("slurm") / "state"):
        with (project / "output.txt").open("w") as output:
            running = subprocess.Popen(command, cwd=project, stdout=output, stderr=subprocess.STDOUT)
        with ThreadPoolExecutor() as pool:  # while one is held, another trains
            told = {}
            while len(saved) < len(RULES):
                assert running.poll() is None, (project / "output.txt").read_text()[-8000:]
                for name in RULES:
                    if name not in told and whole(project, name):
                        told[name] = pool.submit(STOPS[name], project)
                    elif name in told and name not in saved and ended(name):
                        told[name].result()
                        saved[name] = sorted(map(step, whole(project, name)))
                time.sleep(0.2)
        assert running.wait(900) == 0, (project / "output.txt").read_text()[-8000:]
        return project, one_node_slurm.records(), saved


def give_little_time(profile, **warnings):
    """To each of these rules as many minutes as it is the attempt, and what Slurm is asked for besides."""
    settings = yaml.safe_load(profile.read_text())
    for rule, warning in warnings.items():
        little = {"runtime": "attempt", "slurm_extra": warning}
        settings["set-resources"][rule] = settings["set-resources"][rule] | little
    profile.write_text(yaml.safe_dump(settings))


def whole(project, name):
    """The method's checkpoints that are whole, while it trains."""
    marks = project.glob(f"results/smoke/.work/{RULES[name]}/{name}/*/*/checkpoints/checkpoint-*/complete")
    return [mark.parent for mark in marks]


def step(checkpoint):
    return int(checkpoint.name.rpartition("-")[2])


def attempts(name):
    return [job for job in one_node_slurm.records() if job["Rule"] == RULES[name]]


def ended(name):
    """Whether Slurm has the method's first try as failed, over its time, or preempted."""
    return any(job["JobState"] in ("FAILED", "TIMEOUT") or job["Restarts"] == "1" for job in attempts(name))


def running_job(name):
    (job,) = (job for job in attempts(name) if job["JobState"] == "RUNNING")
    return job["JobId"]


def warn(project):
    subprocess.run(["scancel", "--signal=TERM", running_job("shared")], check=True)


def preempt(project):
    """As Slurm does for a job of higher priority: the job is ended and put back into the queue."""
    job = running_job("preempted")
    subprocess.run(["scontrol", "requeue", job], check=True)
    # It would wait two minutes.
    one_node_slurm.wait(lambda: ended("preempted"))
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)


def suspended(project, name):
    """The method's trainings that still run, kept from going on, however fast the machine."""
    found = [process for process in psutil.process_iter() if trains(process, project, RULES[name])]
    for training in found:
        with suppress(psutil.NoSuchProcess):
            training.suspend()
    return found


def hold_until_over(project):
    """Nobody warns it: until its time is over it stands still."""
    assert suspended(project, "overdue")


def hold_until_warned(project):
    """On a slow machine it may have been warned by now."""
    for training in suspended(project, "short"):
        one_node_slurm.wait(lambda training=training: terminated(training), 120)
        with suppress(psutil.NoSuchProcess):
            training.resume()


STOPS = {"short": hold_until_warned, "shared": warn, "overdue": hold_until_over, "preempted": preempt}


def trains(process, project, rule):
    try:
        return process.cmdline()[1:2] == [f"workflow/scripts/{rule}.py"] and process.cwd() == str(project)
    except psutil.Error:
        return False


def terminated(process):
    """Whether SIGTERM waits for the suspended process, or it has ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return True
    pending = re.search(r"^ShdPnd:\s*(\w+)", status, re.MULTILINE)[1]
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)


def test_trainings_save_themselves_before_their_time_is_up(stopped):
    """Slurm's own warning reaches one; the retried one gets more time."""
    _, jobs, _ = stopped
    found = [job for job in jobs if job["Rule"] == "train_sft"]
    limits, states = zip(*sorted((job["TimeLimit"], job["JobState"]) for job in found), strict=True)
    assert list(limits) == [f"00:{minutes:02}:00" for minutes in range(1, len(found) + 1)]
    assert states in [
        ("FAILED", "COMPLETED"),
        ("FAILED", "FAILED", "COMPLETED"),
    ]  # two minutes are few for a slow machine


def test_a_training_that_nobody_warned_is_retried_with_more_time(stopped):
    states = [job["JobState"] for job in stopped[1] if job["Rule"] == "train_rft"]
    assert sorted(states) == ["COMPLETED", "TIMEOUT"]


def test_a_preempted_training_is_the_same_job_again(stopped):
    (job,) = (job for job in stopped[1] if job["Rule"] == "train_grpo")
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")


def test_two_processes_hold_two_devices_and_hear_the_signal(stopped):
    found = [job for job in stopped[1] if job["Rule"] == "train_dpo"]
    assert sorted(job["JobState"] for job in found) == ["COMPLETED", "FAILED"]
    assert {(job["JOB_GRES"], job["NumNodes"]) for job in found} == {("gpu:2", "1")}


def test_a_training_goes_on_from_where_it_was_stopped(stopped):
    project, _, saved = stopped
    for name in RULES:
        assert 2 <= saved[name][-1] < 12
        run = project / f"results/smoke/runs/{name}/seed1"
        steps = [row["step"] for row in pq.read_table(run / "history.parquet").to_pylist() if row["metric"] == "loss"]
        assert json.loads((run / "run.json").read_text())["total_steps"] == 12 and sorted(steps) == list(range(1, 13))
