"""A training run that is killed, at any moment, ends where an uninterrupted one ends."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from memedynamics import live, resuming, runs, tables
from memedynamics.errors import InputError
from tiny_study import ROOT, outputs, train, write_study

KINDS = ("sft", "dpo", "grpo", "em")
# GRPO: completions are used for two steps, so it resumes at every second step alone; killed in its second epoch.
ARGS = {
    "sft": {"num_train_epochs": 4, "save_steps": 2},
    "dpo": {"num_train_epochs": 4, "save_steps": 2},
    "grpo": {"save_steps": 3, "steps_per_generation": 2},
    "em": {"save_steps": 3, "objective": "sequence"},
}
KILLED_AFTER = {"sft": 4, "dpo": 6, "grpo": 12, "em": 12}
TIMED = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def whole(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("whole")
    return {kind: train(kind, study, folder / kind, **ARGS[kind]) for kind in KINDS}


def start(kind: str, study: Path, run: Path) -> subprocess.Popen:
    """The training script of `kind` in a process of its own."""
    code = "import json, pathlib, sys, tiny_study; kind, study, run, args = json.loads(sys.argv[1]); "
    code += "tiny_study.train(kind, pathlib.Path(study), pathlib.Path(run), **args)"
    given = json.dumps([kind, str(study), str(run), ARGS[kind]])
    paths = os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code, given], env=environment)


def kill_after(step: int, process: subprocess.Popen, run: Path) -> None:
    """SIGKILL the process once checkpoint `step` is whole, at a moment of the following steps that is drawn."""
    mark = run / f"work/checkpoints/checkpoint-{step}" / resuming.COMPLETE
    while not mark.exists():
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.002)
    time.sleep(random.Random(step).uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "run.json").exists()


def same(found: dict[str, Path], expected: dict[str, Path]) -> None:
    """Equal weights to the bit, equal rollouts, equal history but for wall times."""
    for weights in sorted(expected["milestones"].rglob("*.safetensors")):
        again = found["milestones"] / weights.relative_to(expected["milestones"])
        assert again.read_bytes() == weights.read_bytes(), again
    assert (
        tables.read(found["rollouts"], "rollouts")
        .drop("study")
        .equals(tables.read(expected["rollouts"], "rollouts").drop("study"))
    )
    untimed = [
        tables.read(run["history"], "history").drop("study").filter(~pl.col("metric").is_in(TIMED))
        for run in (found, expected)
    ]
    assert_frame_equal(*untimed, check_exact=True)
    assert watched(found) == watched(expected)


def watched(run: dict[str, Path]) -> list[tuple[float, ...]]:
    """Step, of how many, and loss of every row that was written while it trained."""
    rows = live.rows(run["run"].parent / "work" / live.FILE)
    return [(row["step"], row["max_steps"], row["loss"]) for row in rows]


def test_a_killed_run_ends_like_an_uninterrupted_one(
    study: Path, whole: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    jobs = {kind: start(kind, study, tmp_path / kind) for kind in KINDS}
    with ThreadPoolExecutor() as pool:
        list(pool.map(kill_after, KILLED_AFTER.values(), jobs.values(), [tmp_path / kind for kind in KINDS]))
    for kind in KINDS:
        # A checkpoint that a kill cut short: newer than all others, and not to be trusted.
        short = tmp_path / kind / "work/checkpoints/checkpoint-1000"
        short.mkdir()
        (short / "trainer_state.json").write_text("{")
        same(train(kind, study, tmp_path / kind, **ARGS[kind]), whole[kind])


@pytest.mark.parametrize(("kind", "args"), [("dpo", {"save_steps": 2}), ("grpo", {"steps_per_generation": 2})])
def test_a_run_that_had_ended_is_only_put_together(kind: str, args: dict, study: Path, tmp_path: Path) -> None:
    """In the middle of an epoch, where there would be more to learn from; nobody had noted its end."""
    ended = train(kind, study, tmp_path / "run", max_steps=4, **args)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    again = train(kind, study, tmp_path / "again", max_steps=4, **args)
    same(again, ended)
    assert tables.read(again["history"], "history")["step"].max() == 4


class Terminate(TrainerCallback):
    """Sends this process SIGTERM at one step, as a scheduler does before it takes the machine away."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if state.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_sigterm_saves_and_stops(
    kind: str, study: Path, whole: dict[str, dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SFT stops after the step it is in; GRPO once the completions of that step are used up."""
    hooks = runs.hooks
    monkeypatch.setattr(runs, "hooks", lambda *given: [*hooks(*given), Terminate()])
    with pytest.raises(InputError, match=r"training was stopped at step (5 of 12|6 of 16); run it again"):
        train(kind, study, tmp_path, **{**ARGS[kind], "save_steps": 100})
    monkeypatch.setattr(runs, "hooks", hooks)
    assert not any(path.exists() for path in outputs(tmp_path).values())
    same(train(kind, study, tmp_path, **{**ARGS[kind], "save_steps": 100}), whole[kind])
