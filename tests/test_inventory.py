"""What is known of a study before it runs: memes by split, pairs, and schedules that trainings then keep to."""

import json

import polars as pl
import pytest

import drawn_datasets
import tiny_models
import tiny_study
from memedynamics import inventory, parameters
from memedynamics.config import Adapter
from memedynamics.inventory import Memes
from memedynamics.study import load_study
from memedynamics.training import defaults


def study(methods=None, datasets=None, **keys):
    named = datasets or {"memes": {"reader": "pictograms", "splits": {"train": 24, "val": 1, "test": 1}}}
    methods = methods or {"sft": {"kind": "sft"}}
    raw = {"study": "x", "base_model": {"source": "demo"}, "in_domain": next(iter(named)), "datasets": named}
    return load_study({**raw, "out_of_domain": list(named)[1:], "methods": methods, **keys})


def table(path, count):
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"id": range(count)}).write_parquet(path)


def test_memes_prepared_on_disk_published_and_not_found(tmp_path):
    """The drawn folder has 6 train rows and 3 dev_seen rows; 1,000 in test_seen and 354 in HarMeme are published."""
    drawn_datasets.hateful_memes(tmp_path / "hm")
    (tmp_path / "hm/test_seen.jsonl").unlink()
    datasets = {
        "hm": {"reader": "hateful_memes", "root": str(tmp_path / "hm")},
        "harm": {"reader": "harmeme", "root": str(tmp_path / "absent")},
        "own": {"reader": "table", "root": str(tmp_path / "absent"), "splits": {"test": "mine.csv"}},
        "drawn": {"reader": "pictograms", "splits": {"test": 7}},
    }
    splits = [("hm", "train"), ("hm", "val"), ("hm", "test"), ("harm", "test"), ("own", "test"), ("drawn", "test")]
    table(tmp_path / "root/data/hm/val.parquet", 2)
    found = inventory.memes(study(datasets=datasets), tmp_path / "root", splits)
    assert list(found) == splits
    expected = [
        (6, "on disk"),
        (2, "prepared"),
        (1000, "published"),
        (354, "published"),
        (0, "not found"),
        (7, "drawn"),
    ]
    assert list(found.values()) == [Memes(*one) for one in expected]


def test_pairs_and_rows(tmp_path):
    assert inventory.pairs(tmp_path) is None
    table(tmp_path / "preferences.parquet", 5)
    table(tmp_path / "more.parquet", 4)
    assert inventory.pairs(tmp_path) == 5
    assert inventory.rows(tmp_path / "preferences.parquet", tmp_path / "more.parquet") == 9
    assert inventory.rows() == 0


def test_schedules_take_a_methods_own_arguments_first():
    """600 prompts, 500 pairs: SFT 500 / 16 = 31.25, so 32 steps; DPO 500 / 10 = 50; GRPO, on all, 600 / 8 = 75."""
    methods = {
        "sft": {"kind": "sft"},
        "dpo": {"kind": "dpo", "args": {"per_device_train_batch_size": 10, "warmup_steps": 0.1}},
        "grpo": {"kind": "grpo", "args": {"num_generations": 2}, "train_prompts": "all"},
        "mine": {"kind": "external", "path": "/x"},
    }
    training = {"per_device_train_batch_size": 16, "num_train_epochs": 1}
    found = inventory.schedules(study(methods, training=training, milestones=[0, 0.5, 1]), defaults(), 600, 500)
    assert {name: plan.total_steps for name, plan in found.items()} == {"sft": 32, "dpo": 50, "grpo": 75}
    assert found["dpo"].warmup_steps == 5 and found["dpo"].saves == {"0": 0, "0.5": 25, "1": 50}
    unbuilt = inventory.schedules(study(methods, training=training), defaults(), 600, None)
    assert {name: plan.total_steps for name, plan in unbuilt.items()} == {"sft": 38, "dpo": 60, "grpo": 75}


def test_max_steps_cuts_a_training_short():
    found = inventory.schedules(study(training={"max_steps": 8, "warmup_steps": 3}), defaults(), 600, 600)
    assert (found["sft"].total_steps, found["sft"].warmup_steps, found["sft"].saves["1"]) == (8, 3, 8)


@pytest.fixture(scope="module")
def memes(tmp_path_factory):
    """24 memes, 18 of which gave a pair."""
    return tiny_study.write_study(tmp_path_factory.mktemp("study"))


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("sft", {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}),
        ("dpo", {"num_train_epochs": 0.7}),
        ("grpo", {"gradient_accumulation_steps": 2}),
        ("grpo", {"steps_per_generation": 2, "num_iterations": 2, "gradient_accumulation_steps": 1}),
        ("grpo", {"generation_batch_size": 32, "gradient_accumulation_steps": 2, "num_train_epochs": 1}),
    ],
)
def test_trainings_take_as_many_steps_as_planned(memes, tmp_path, kind, args):
    """run.json of a real training, and the plan of the same arguments: steps, milestones, trainable parameters."""
    made = tiny_study.train(kind, memes, tmp_path, **args)
    run = json.loads(made["run"].read_text())
    raw = {kind: {"kind": kind, "args": {**tiny_study.OWN[kind], **args}}}
    fractions = tiny_study.settings(kind)["fractions"]
    planned = inventory.schedules(study(raw, training=tiny_study.SHARED, milestones=fractions), defaults(), 24, 18)
    assert (planned[kind].total_steps, planned[kind].saves) == (run["total_steps"], run["steps"])
    counted = parameters.trainable_parameters(tiny_models.folder("qwen2_5_vl"), Adapter(r=4))
    assert counted == run["trainable_parameters"]
