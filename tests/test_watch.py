"""What the live view makes of a study's files: progress, time to go, curves, failures; and that it writes nothing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import watched_study
from memedynamics import living, lock, noted, watch_curves, watch_eta, watch_failures, watch_jobs
from memedynamics.watch_stages import stages
from memedynamics.watch_state import state
from watched_study import HOSTILE, METHOD, STAGES, put

HERE = Path(__file__).parents[1]


@pytest.fixture
def now():
    return time.time()


@pytest.fixture
def study(tmp_path, now, monkeypatch):
    # The process that has the study is this one, which is younger than the study.
    monkeypatch.setattr(living, "SLACK", 3600.0)
    return watched_study.write(tmp_path, now)


def seen(study, now):
    """What the page would be told."""
    return json.loads(json.dumps(state(study, study.parents[1], STAGES, now), allow_nan=False))


# Stages.


def test_stages_are_the_files_of_rules():
    found = stages(HERE)
    assert list(dict.fromkeys(found.values()))[:5] == ["data", "model", "sampling", "preferences", "training"]
    assert found["train_grpo"] == "training" and found["figure_kl"] == "figures" and found["plan"] == "planning"
    assert not {"all", "figures", "training", "analyses", "samples"} & found.keys()  # those only collect


def test_progress_by_stage(study, now):
    found = {stage["name"]: stage for stage in seen(study, now)["stages"]}
    assert list(found) == ["data", "training", "scoring"]
    assert found["data"] == {"name": "data", "done": 2, "jobs": 2, "running": 0, "failed": 0, "seconds": 15}
    assert found["training"] == {"name": "training", "done": 1, "jobs": 3, "running": 1, "failed": 0, "seconds": 30}
    assert found["scoring"] == {"name": "scoring", "done": 0, "jobs": 4, "running": 0, "failed": 1, "seconds": None}


def test_where_snakemake_says_nothing_the_jobs_own_files_count(study, now):
    """`--quiet progress`: neither their number is known nor the time to go; an earlier run's jobs do not count."""
    put(study.parents[1] / ".snakemake/log/run.snakemake.log", "")
    put(study / "benchmarks/timing/score/old.json", '{"seconds": 3}', now - 4000)
    found = seen(study, now)
    assert [(stage["name"], stage["done"], stage["jobs"]) for stage in found["stages"]] == [
        ("data", 2, None),
        ("training", 1, None),
    ]
    assert found["eta"] is None and found["state"] == "running"


# Time to go, by hand.


def estimate(left, took, under_way=None, busy=60.0, wall=30.0):
    return watch_eta.estimate(left, STAGES, took, under_way or {}, busy, wall)


def test_jobs_left_times_their_mean_over_jobs_at_a_time():
    """3 jobs of (10 + 20)/2 s; 60 s of work in 30 s are two at a time: 45/2."""
    assert estimate({"score": 3}, {"score": [10, 20]}) == (22.5, 2.0, [], False)
    assert estimate({"score": 3}, {"score": [10, 20]}, busy=15.0).seconds == 90  # waiting for a cluster: half at a time


def test_jobs_at_work_have_less_to_go():
    """Of 3 jobs of 15 s one has 5 s behind it, and one more than the mean: 15 + 10 + 0, two at a time."""
    found = estimate({"score": 3}, {"score": [10, 20]}, {"score": [(5.0, None), (99.0, None)]})
    assert found.seconds == 12.5


def test_a_training_that_says_how_far_it_is_counts_by_that():
    found = estimate({"train_sft": 2}, {"train_sft": [100]}, {"train_sft": [(50.0, 6.0)]})
    assert found.seconds == (100 + 6) / 2


def test_a_rule_not_seen_yet_counts_like_its_stage_and_a_stage_not_seen_yet_as_nothing():
    left = {"train_grpo": 2, "score": 4, "prepare": 0}
    assert estimate(left, {"train_sft": [10, 30]}) == (20.0, 2.0, ["train_grpo", "score"], True)
    assert estimate({"train_grpo": 2}, {"train_sft": [10, 30]}) == (20.0, 2.0, ["train_grpo"], False)


@pytest.mark.parametrize("given", [({}, 9.0, 9.0), ({"score": []}, 9.0, 9.0), ({"score": [3]}, 9.0, 0.0)])
def test_unknown_until_something_has_finished(given):
    took, busy, wall = given
    assert estimate({"score": 3}, took, busy=busy, wall=wall) == (None, None, [], False)


def test_unknown_while_nothing_is_known_of_what_is_left():
    assert estimate({"score": 3}, {"prepare": [10]}) == (None, None, [], False)
    assert estimate({"score": 0}, {"score": [10]}) == (0.0, 2.0, [], False)


def test_time_to_go_of_a_study(study, now):
    """10 + 20 + 30 s have finished and 40 s are under way in 100 s: one at a time. Left: SFT's other run, 30 s, and
    30 of GRPO's 40 steps of a second; of 4 jobs of scoring, 3, of which nothing is known.
    """
    found = seen(study, now)["eta"]
    assert found["seconds"] == pytest.approx(60, abs=0.01) and found["parallel"] == pytest.approx(1, abs=1e-3)
    assert found["unseen"] == ["train_grpo", "score"] and found["least"]


# Who is at work.


def test_what_a_study_is_doing(study, now):
    running, log = study / lock.RUNNING, study.parents[1] / ".snakemake/log/run.snakemake.log"
    assert seen(study, now)["state"] == "running"
    assert seen(study, now)["began"] == pytest.approx(now - 100)
    words = running.read_text()
    put(running, words.replace(f"process {os.getpid()} ", "process 4194305 "))  # above the largest id there is
    assert seen(study, now)["state"] == "stopped"
    put(running, words.replace(" on ", " on another-machine-than-"))
    assert seen(study, now)["state"] == "running"
    put(log, log.read_text() + "Complete log(s): x\n")
    assert seen(study, now)["state"] == "failed" and seen(study, now)["eta"] is None
    put(log, "Complete log(s): x\n")
    assert seen(study, now)["state"] == "finished"
    put(log, "\nTerminating processes on user request, this might take some time.\nComplete log(s): x\n")
    assert seen(study, now)["state"] == "stopped"
    running.unlink()
    assert seen(study, now)["state"] == "waiting"
    assert seen(study.parent / "another", now) | {"now": 0, "heard": 0, "metrics": 0} == {
        **{"study": "another", "state": "waiting", "now": 0, "began": None, "heard": 0, "eta": None, "metrics": 0},
        **{"stages": [], "jobs": [], "failures": [], "runs": []},
    }


def test_a_process_that_got_the_number_of_an_ended_one_is_another(study, now):
    before = psutil.Process().create_time() - living.SLACK - 60  # this process began
    put(study / lock.RUNNING, (study / lock.RUNNING).read_text(), before)
    assert seen(study, now)["state"] == "stopped"


def test_jobs_at_work(study, now):
    """The lock of a killed job, of a library and of an earlier run on another machine are none."""
    watched_study.at_work(study, "score/dpo/1.1-of-2", now - 7, "process 5 on node17")
    watched_study.at_work(study, "score/dpo/1.2-of-2", now - 4000, "process 5 on node17")
    watched_study.at_work(study, "score/sft/1", now - 7, f"process 4194305 on {os.uname().nodename}")
    put(study / ".work/train_sft/sft/1/abc/cache/datasets.lock", "")
    found = [(job["rule"], job["where"], round(job["seconds"]), job["host"]) for job in seen(study, now)["jobs"]]
    assert found == [("train_grpo", "grpo/1", 40, None), ("score", "dpo/1.1-of-2", 7, "node17")]


def test_a_job_is_at_work_from_its_first_moment(study, now):
    """Before it has imported what it needs and holds its lock; as a child of the Snakemake that has the study."""
    told = json.dumps({"rule": "score", "wildcards": {"method": "sft", "seed": "2"}})
    with subprocess.Popen([sys.executable, "-c", "input()", "workflow/scripts/score.py", told], stdin=-1) as process:
        other = subprocess.Popen([sys.executable, "-c", "input()", "{}"], stdin=-1)
        found = {(job["rule"], job["where"]) for job in seen(study, now)["jobs"]}
        for each in (process, other):
            each.communicate(b"\n")
    assert found == {("train_grpo", "grpo/1"), ("score", "sft/2")}
    assert [job["rule"] for job in seen(study, now)["jobs"]] == ["train_grpo"]


# Curves.


def test_curves_of_finished_and_running_trainings(study, now):
    sft, grpo = seen(study, now)["runs"]
    assert (sft["name"], sft["seed"], sft["job"], sft["step"], sft["running"]) == ("SFT", 1, None, 20, False)
    assert sft["metrics"] == {"loss": [list(range(1, 21)), pytest.approx([2 - 0.05 * i for i in range(20)])]}
    assert (grpo["job"], grpo["step"], grpo["steps"], grpo["running"]) == ("train_grpo/grpo/1", 10, 40, True)
    assert grpo["metrics"]["kl"] == [list(range(1, 11)), pytest.approx([0.01 * i for i in range(1, 11)])]
    assert grpo["pace"] == pytest.approx(1) and set(grpo["metrics"]) == {"loss", "reward", "kl"}
    assert grpo["colour"] != sft["colour"]


def test_an_interrupted_training_and_the_newest_of_two_tries(study, now):
    (study / ".work/train_grpo/grpo/1.lock").unlink()
    row = '{"step": 1, "max_steps": 2, "at": 0, "loss": 7}\n'
    put(study / ".work/train_grpo/grpo/1/older/live.jsonl", row, 5.0)
    put(study / noted.TRASH / "0123/abc/live.jsonl", row)  # on its way out
    grpo = seen(study, now)["runs"][1]
    assert (grpo["running"], grpo["step"], grpo["steps"]) == (False, 10, 40)


def test_a_reward_model_is_a_training_too(study, now):
    watched_study.train(study, "train_reward_model/all", now, 3)
    assert [(run["name"], run["seed"], run["step"]) for run in seen(study, now)["runs"]][-1] == ("reward model", 0, 3)


def test_numbers_that_are_not_finite_and_files_cut_short(study, now):
    put(study / ".work/train_sft/sft/2/abc/live.jsonl", '{"step": 1, "max_steps": 2, "at": 0, "loss": NaN}\n')
    put(study / "runs/dpo/seed1/history.parquet", "PAR1")
    runs = {(run["method"], run["seed"]): run for run in seen(study, now)["runs"]}
    assert runs["sft", 2]["metrics"]["loss"] == [[1], [None]] and ("dpo", 1) not in runs


def test_long_curves_keep_their_ends():
    steps, values = watch_curves._thinned([(step, float(step)) for step in range(1, 10_001)])
    assert len(steps) <= watch_curves.POINTS + 1 and steps[0] == 1 and steps[-1] == 10_000 and values == steps


# Failures.


def test_a_failed_job_with_the_end_of_its_log(study, now):
    (failed,) = seen(study, now)["failures"]
    assert failed["rule"] == "score" and failed["wildcards"] == {"method": METHOD, "seed": "1"}
    assert (failed["times"], failed["retried"], failed["now"]) == (2, 1, "given up")
    assert failed["log"] == "results/demo/logs/score.log"
    assert failed["lines"] == [*(f"line {i}" for i in range(12, 40)), HOSTILE, "error: odd batch"]


def test_a_job_that_is_tried_again_or_has_ended_well_since(study, now):
    log = study.parents[1] / ".snakemake/log/run.snakemake.log"
    put(log, log.read_text() + "Trying to restart job 7.\n")
    assert seen(study, now)["failures"][0]["now"] == "waiting for another try"
    watched_study.at_work(study, f"score/{METHOD}/1", now - 1)
    assert seen(study, now)["failures"][0]["now"] == "running again"
    put(log, log.read_text() + "Finished jobid: 7 (Rule: score)\n")
    assert seen(study, now)["failures"] == []


def test_a_retried_job_of_which_snakemake_names_no_number(study, now):
    """With `--quiet rules` it is its own file that says that it has ended well, if it is of this run."""
    log = study.parents[1] / ".snakemake/log/run.snakemake.log"
    job = json.dumps({"rule": "score", "wildcards": {"method": "sft", "seed": "1"}})
    put(log, f"Command 'python workflow/scripts/score.py '{job}' > results/demo/logs/score.log 2>&1' died with x\n")
    put(study / "benchmarks/timing/score/sft/1.json", '{"seconds": 3}', now - 4000)
    assert [failed["times"] for failed in seen(study, now)["failures"]] == [1]
    put(study / "benchmarks/timing/score/sft/1.json", '{"seconds": 3}', now)
    assert seen(study, now)["failures"] == []


def test_the_end_of_a_log_is_what_a_terminal_would_show(tmp_path):
    log = tmp_path / "x.log"
    assert watch_failures.tail(log) == []
    log.write_bytes(b"\n")
    assert watch_failures.tail(log) == []
    log.write_bytes(b"\x1b[31mred\x1b[0m\xff\x00\r\n 10%|#  |\r 20%|## |\r 30%|###|\n" + b"x" * 5000 + b"\n\n")
    red, bar, long = watch_failures.tail(log)
    assert (red, bar, len(long)) == ("red\ufffd", " 30%|###|", watch_failures.WIDTH)
    log.write_bytes(b"y" * (1 << 20))
    assert watch_failures.tail(log) == ["y" * watch_failures.WIDTH]


def test_only_logs_of_the_project_and_the_study_are_read(study, now, tmp_path_factory):
    """Where a job died without a word, its cluster's log is shown; a path that leads elsewhere is not followed."""
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.log"
    put(secret, "secret\n")
    log, slurm = study.parents[1] / ".snakemake/log/run.snakemake.log", study.parents[1] / ".snakemake/slurm_logs/7.log"
    put(slurm, "slurmstepd: error: Detected 1 oom_kill event\n")
    put(study / "logs/score.log", "")
    words = log.read_text()
    put(log, words.replace("score.log (", f"score.log, {slurm} ("))
    assert seen(study, now)["failures"][0]["lines"] == ["slurmstepd: error: Detected 1 oom_kill event"]
    put(log, words.replace("results/demo/logs/score.log", str(secret)))
    assert seen(study, now)["failures"][0]["lines"] == []


# Nothing is written, and nothing needs to be whole.


def everything(folder):
    """Every file and folder below `folder`: content and times."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.is_file() and path.read_bytes())
        for path in [folder, *folder.rglob("*")]
    }


def test_watching_changes_nothing_and_ends_in_peace(study):
    """The program itself, twice side by side, up to Ctrl-C: no byte and no time of the project is another."""
    import signal
    from urllib.request import urlopen

    put(study / lock.RUNNING, (study / lock.RUNNING).read_text())
    project, before = study.parents[1], everything(study.parents[1])
    command = [sys.executable, "-B", str(HERE / "workflow/scripts/watch.py"), "results/demo"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    surroundings = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    watching = [subprocess.Popen(command, cwd=project, env=surroundings, **pipes) for _ in range(2)]
    for process in watching:
        line = process.stdout.readline()
        assert line.startswith("watching results/demo: http://127.0.0.1:")
        address = line.split()[2]
        with urlopen(f"{address}state.json") as answer:
            assert json.load(answer)["state"] == "running"
    port = address.rpartition(":")[2].strip("/")
    refused = subprocess.run([*command, "--port", port], cwd=project, capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stderr.startswith(f"error: port {port}: ")
    for process, number in zip(watching, (signal.SIGINT, signal.SIGTERM), strict=True):
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("no longer watching; the study goes on as it was\n", "")
        assert process.returncode == 0
    assert everything(project) == before


def test_files_that_vanish_while_one_looks(study, now, monkeypatch):
    """A job ends between the listing of its files and their reading."""
    gone = [study / ".work/a/b.lock", study / "benchmarks/timing/a/b.json", study / ".work/train_x/m/1/h/live.jsonl"]
    for module in (watch_jobs, watch_curves):
        listed = watch_jobs.files
        monkeypatch.setattr(
            module,
            "files",
            lambda root, end, listed=listed: [*listed(root, end), *(f for f in gone if f.match(f"*{end}"))],
        )
    assert [stage["name"] for stage in seen(study, now)["stages"]] == ["data", "training", "scoring"]
