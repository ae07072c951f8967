"""The plan as a reader sees it: real study files through the script, and each table's numbers."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from rich.console import Console

import tiny_models
from memedynamics import checkpoints, parameters, plan_tables
from memedynamics.config import Sampling
from memedynamics.costs import Cost
from memedynamics.loads import Load
from memedynamics.study import load_study
from tiny_study import script

ROOT = Path(__file__).parents[1]


def splits(study):
    return [(study.in_domain, s) for s in ("train", "val", "test")] + [(name, "test") for name in study.out_of_domain]


def load(name):
    return load_study(yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))


def cells(text):
    """The cells of every line, by its first."""
    return {line.split("  ")[0]: [c.strip() for c in line.split("  ") if c.strip()] for line in text.splitlines()}


def shown(table):
    console = Console(width=plan_tables.WIDTH)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


@pytest.fixture
def planned(tmp_path, monkeypatch, capsys):
    """Runs the plan's script in an empty folder with an empty hub cache; what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def run(study):
        capsys.readouterr()
        script("plan")(study, splits(study))
        return capsys.readouterr().out

    return run


def test_the_real_study_with_nothing_there(planned):
    """Published counts; 8,500 / 16 = 531.25: 532 steps an epoch, 3 epochs 1,596; GRPO 8,500 / 8 prompts: 1,062."""
    text = planned(load("hateful_memes"))
    assert max(map(len, text.splitlines())) <= 100
    found = cells(text)
    assert found["sft"] == ["sft", "532", "1,596", "160", "16", "?", "?", "?", "0 100 200 399 798 1,596"]
    assert found["dpo"][1:5] == ["532", "532", "54", "16"]
    assert found["grpo"][1:5] == ["1,062", "1,062", "107", "64"]
    assert "train  8,500  published" in text and "354  published" in text
    assert found["prepare_dataset"][-2:] == ["-", "?"] and found["score"][-2:] == ["?", "?"]
    for words in (
        "Data: mami is not in data/mami; put its files there.",
        "until the base model is here: run `prefetch` in place of `plan`",
        "until a trial: run `--config trial=true` in place of `plan`",
        "as if every train prompt gave a preference pair",
    ):
        assert words in text


def test_the_demo_before_its_model_is_made(planned):
    text = planned(load("demo"))
    assert max(map(len, text.splitlines())) <= 100
    assert "train    600  drawn" in text and "Data:" not in text
    assert "until the demo's model is made: run `base_model` in place of `plan`" in text


def test_a_study_with_model_and_trial(planned, tmp_path):
    """2 s and 1 MB for each of sample_base's 4 jobs, 0.01 s and 100 bytes for each of 8 responses to every meme."""
    study = load("demo").model_copy(update={"sampling": Sampling(num_samples=8, shards=1)})
    Path("results/demo-trial").mkdir(parents=True)
    shutil.copytree(tiny_models.folder("qwen2_5_vl"), "results/demo/model")
    loads = ["prepare_dataset", "sample_base", "preflight", "sample_policy"]
    loads += [f"train {name}" for name in study.methods]
    loads += [f"extract_{name}" for name in ("attention", "sharpe", "gradients", "spectrum")]
    cost = Cost(2, 1e6, 0.01, 10, 100)._asdict()
    Path("results/demo-trial/costs.json").write_text(json.dumps(dict.fromkeys([*loads, "score"], cost)))
    text = planned(study)
    assert "unknown" not in text and "?" not in text
    found = cells(text)
    responses = 8 * sum(sum(dataset.splits.values()) for dataset in study.datasets.values())
    hours, stored = (4 * 2 + responses * 0.01) / 3600, plan_tables.size(4e6 + 100 * responses)
    assert found["sample_base"] == ["sample_base", "4", f"{responses:,}", "responses", f"{hours:.2f}", stored]
    assert found["prepare_dataset"][-2] == "-"
    trained = parameters.trainable_parameters(tiny_models.folder("qwen2_5_vl"), study.adapter)
    assert found["sft"][5] == f"{trained / 1e6:.2f} M"
    whole = checkpoints.count_parameters(tiny_models.folder("qwen2_5_vl"))
    assert found["sft"][6] == plan_tables.size(4 * whole + 16 * trained)
    assert found["sft"][7] == plan_tables.size(4 * trained)


def test_the_sum_of_the_work():
    """GPU-hours add up over rules that need a GPU; 0.5 + 1 hours, and bytes over all."""
    loads = [
        Load("sample_base", 1, 3600, "responses", True),
        Load("score", 2, 1800, "responses", True),
        Load("prepare_dataset", 1, 10, "memes", False),
    ]
    costs = {
        "sample_base": Cost(0, 0, 1, 0, 1e6),
        "score": Cost(0, 5e8, 1, 0, 0),
        "prepare_dataset": Cost(9, 0, 9, 0, 1),
    }
    found = cells(shown(plan_tables.rules(loads, costs)))
    assert found["sample_base"][-2:] == ["1.00", "3.60 GB"]
    assert found["all"] == ["all", "1.50", "4.60 GB"]


def test_speed():
    found = cells(shown(plan_tables.speed({"score": Cost(12.34, 0, 0.05, 20, 9), "preflight": Cost(8, 0, 0, 0, 0)})))
    assert found["score"] == ["score", "12.3", "50.0", "400"]
    assert found["preflight"] == ["preflight", "8.0", "0.0", "-"]


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (3.2e6, "3.2 MB"), (7.5e9, "7.50 GB"), (1.12e12, "1,120.00 GB")],
)
def test_sizes(count, words):
    assert plan_tables.size(count) == words


def test_pairs_that_are_built_are_said_so():
    lines = plan_tables.notes(load("demo"), {}, 431, Path("/model"), {"score": Cost(0, 0, 0, 0, 0)})
    assert lines[2:] == ["Steps: 431 preference pairs are built."]
