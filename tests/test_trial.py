"""A finished trial's folder, laid out by hand, and what is measured in it."""

import json

import polars as pl
import pytest

from memedynamics import costs, loads, plan, trial
from memedynamics.config import Dataset
from memedynamics.study import load_study
from tiny_study import script

STUDY = load_study(
    {
        "study": "x",
        "base_model": {"source": "demo"},
        "datasets": {"p": {"reader": "pictograms"}},
        "in_domain": "p",
        "methods": {"sft": {"kind": "sft"}, "grpo": {"kind": "grpo"}, "mine": {"kind": "external", "path": "/x"}},
    }
)


def table(path, count, tokens=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"id": range(count)} if tokens is None else {"token_ids": [[1] * tokens] * count}
    pl.DataFrame(columns).write_parquet(path)


def timing(path, seconds, items):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seconds": seconds, "items": items}))


@pytest.fixture
def root(tmp_path):
    """2 × 64 memes, 640 base and 100 own responses of 10 tokens; SFT and GRPO of 8 steps; an external run."""
    timings = tmp_path / "benchmarks/timing"
    for split in ("train", "val"):
        table(tmp_path / f"data/p/{split}.parquet", 64)
        table(tmp_path / f"samples/base/p/{split}.parquet", 320, tokens=10)
        timing(timings / f"sample_base/p/{split}/1-of-1.json", 42, 32)
    table(tmp_path / "data/p/rejected.parquet", 5)
    timing(timings / "prepare_dataset/p.json", 3, 1.28)
    for method, seed in (("sft", 1), ("grpo", 1), ("mine", 0)):
        steps = None if method == "mine" else 8
        run = tmp_path / f"runs/{method}/seed{seed}/run.json"
        table(run.with_name("history.parquet"), 3)
        run.write_text(json.dumps({"total_steps": steps, "tokens": steps and 6400}))
        table(tmp_path / f"samples/{method}/seed{seed}.parquet", 100, tokens=10)
        timing(timings / f"sample_policy/{method}/{seed}.json", 30, 10)
        timing(timings / f"score/{method}/{seed}/1-of-1.json", 25, 20)
        table(tmp_path / f"traces/{method}/seed{seed}/1-of-1.parquet", 2000)
        table(tmp_path / f"responses/{method}/seed{seed}/1-of-1.parquet", 200)
    timing(timings / "train_sft/sft/1.json", 20, 12.8)
    timing(timings / "train_grpo/grpo/1.json", 60, 51.2)
    timing(timings / "preflight/sft.json", 10, 0)
    timing(timings / "preflight/grpo.json", 20, 0)
    timing(timings / "score/1-of-1.json", 25, 20)
    table(tmp_path / "responses/base/seed0/1-of-1.parquet", 200)
    table(tmp_path / "traces/base/seed0/1-of-1.parquet", 2000)
    return tmp_path


def test_measured_by_hand(root):
    """A second of items for every ten base responses; 8 steps of 16 examples in 12.8 s: 0.1 s an example."""
    found = trial.measure(root, STUDY, {"sft": 16, "grpo": 64})
    assert found["sample_base"][:1] == (10,) and found["sample_base"].seconds == pytest.approx(0.1)
    assert found["sample_base"].tokens == found["sample_policy"].tokens == 10
    assert found["sample_policy"].startup == 20 and found["sample_policy"].seconds == pytest.approx(30 / 300)
    assert found["prepare_dataset"].seconds == pytest.approx(0.01)
    assert (found["preflight"].startup, found["preflight"].seconds) == (15, 0)
    assert found["train sft"].seconds == pytest.approx(0.1) and found["train sft"].tokens == pytest.approx(50)
    assert found["train grpo"].seconds == pytest.approx(51.2 / 512) and found["train grpo"].bytes == 0
    assert found["score"].startup == 5 and found["score"].seconds == pytest.approx(80 / 800)
    assert found["score"].tokens == 10


def test_disk_by_hand(root):
    """Bytes of tables grow with what they hold, bytes of a training with the runs."""
    found = trial.measure(root, STUDY, {"sft": 16, "grpo": 64})
    on_disk = {name: sum(f.stat().st_size for f in (root / name).rglob("*") if f.is_file()) for name in FOLDERS}
    assert found["score"].bytes * 800 == pytest.approx(on_disk["traces"] + on_disk["responses"])
    assert found["train sft"].job_bytes == on_disk["runs/sft"]
    assert found["sample_base"].bytes * 640 == pytest.approx(on_disk["samples/base"])
    assert found["prepare_dataset"].bytes * 128 == pytest.approx(on_disk["data"])


FOLDERS = ("traces", "responses", "runs/sft", "samples/base", "data")


def test_every_rule_of_the_plan_is_measured(root):
    """The plan's rules and the trial's have the same names."""
    schedules = {"sft": plan.schedule(64, 16), "grpo": plan.schedule(64, 64, group=8)}
    found = loads.planned(STUDY, {("p", "train"): 64, ("p", "val"): 64, ("p", "test"): 64}, schedules)
    assert {load.rule for load in found} == set(trial.measure(root, STUDY, {"sft": 16, "grpo": 64}))


def test_an_empty_folder(tmp_path):
    """A trial that did nothing cost nothing; nothing is divided by zero."""
    found = trial.measure(tmp_path, STUDY, {"sft": 16, "grpo": 64})
    assert all(set(cost) == {0} for cost in found.values())


def test_the_trials_last_job(root, tmp_path, monkeypatch, capsys):
    """The script writes what was measured and prints it for the whole study: 600 memes, 3 seeds, 4,800 responses.

    SFT's default batch is 8: 8 steps of 8 examples in 12.8 s are 200 ms an example.
    """
    monkeypatch.chdir(tmp_path)
    splits = [("p", "train"), ("p", "val"), ("p", "test")]
    sizes = {"reader": "pictograms", "splits": {"train": 200, "val": 200, "test": 200}}
    study = STUDY.model_copy(update={"datasets": {"p": Dataset(**sizes)}})
    script("extrapolate")(study, splits, root, root / "costs.json")
    assert costs.read(root / "costs.json") == trial.measure(root, study, {"sft": 8, "grpo": 8})
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100 and "?" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["train", "sft", "7.2", "200.0", "500"] in lines
    # 3 jobs × 10 s + 4,800 responses × 0.1 s = 510 s.
    assert ["sample_base", "3", "4,800", "responses", f"{510 / 3600:.2f}"] in [line[:5] for line in lines]
