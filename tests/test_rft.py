"""Rejection-sampling fine-tuning: trained on every correct, well-formed base sample of the paired prompts, no other."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import tiny_models
import tiny_study
from memedynamics import inventory, tables, vlm
from memedynamics.config import Adapter
from memedynamics.examples import correct_samples, training_rows
from memedynamics.study import load_study
from memedynamics.training import defaults, trainer, trainer_config
from tiny_study import PROMPT

KEPT = [i for i in range(24) if i % 4 != 3]
GOOD = sum(1 + i % 7 for i in KEPT)  # samples, of the memes that gave a pair


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_study.write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def rows(study: Path) -> pl.DataFrame:
    names = ("preferences", "data", "samples")
    pairs, memes, samples = (tables.read(study / f"{name}.parquet", name) for name in names)
    return correct_samples(training_rows(pairs, memes, PROMPT, "hateful", "paired"), samples)


def test_rows_are_the_good_samples_of_the_paired_prompts(rows: pl.DataFrame) -> None:
    """Meme i has 1 + i % 7 good samples, those first drawn; its last one is right but badly formed."""
    expected = [
        (f"m{i:02d}", tiny_study.response(["No", "Yes"][i % 2], f"cat {k}")) for i in KEPT for k in range(1 + i % 7)
    ]
    assert rows.select("id", "chosen").rows() == expected
    assert len(rows) == GOOD == 69


def test_batches_hold_exactly_the_good_samples(rows: pl.DataFrame, tmp_path: Path) -> None:
    """What SFTTrainer trains on, read off its batches: each sample's tokens and one end token, each once."""
    model, processor = (load(tiny_models.folder("qwen2_5_vl")) for load in (vlm.load_model, vlm.load_processor))
    made = trainer(trainer_config("rft", {}, tmp_path), model, processor, rows, Adapter(r=4))
    batches = made.data_collator([made.train_dataset[n] for n in range(len(rows))])
    trained = [ids[kept != -100] for ids, kept in zip(batches["input_ids"], batches["labels"], strict=True)]
    texts = [made.processing_class.tokenizer.decode(ids[:-1]) for ids in trained]
    assert texts == rows["chosen"].to_list()
    ends = vlm.end_token_ids(model, processor)
    assert all(int(ids[-1]) in ends and not any(int(i) in ends for i in ids[:-1]) for ids in trained)


def test_a_run(study: Path, tmp_path: Path) -> None:
    """69 samples by 8: 9 steps an epoch; 18 prompts, told apart from samples; means are over the samples."""
    made = tiny_study.train("rft", study, tmp_path)
    record = json.loads(made["run"].read_text())
    assert (record["total_steps"], record["num_prompts"], record["epochs"]) == (18, 18, 2)
    assert record["label_balance"] == pytest.approx(sum(1 + i % 7 for i in KEPT if i % 2) / GOOD)
    assert record["mean_num_correct"] == pytest.approx(sum((1 + i % 7) ** 2 for i in KEPT) / GOOD)
    start, end = (load_file(made["milestones"] / label / "adapter_model.safetensors") for label in ("0", "1"))
    assert all("visual" not in name and not torch.equal(start[name], end[name]) for name in start)


def test_the_plan_counts_samples(study: Path, tmp_path: Path) -> None:
    """Two paired prompts of 2 and 3 good samples, one unpaired: 5. Unknown: 8 samples of each of 10 prompts."""
    raw = {
        "study": "x",
        "base_model": {"source": "demo"},
        "in_domain": "p",
        "datasets": {"p": {"reader": "pictograms"}},
    }
    raw |= {"methods": {"rft": {"kind": "rft"}}, "training": {"num_train_epochs": 1, "per_device_train_batch_size": 5}}
    planned = load_study(raw)
    assert inventory.correct_samples(planned, tmp_path) is None
    (tmp_path / "samples/base/p").mkdir(parents=True)
    ids, good = ["a", "a", "b", "b", "b", "c", "a", "b"], [True] * 6 + [False] * 2
    samples = pl.DataFrame({"id": ids, "correct": good, "format_ok": True})
    samples.write_parquet(tmp_path / "samples/base/p/train.parquet")
    pl.DataFrame({"id": ["a", "b"]}).write_parquet(tmp_path / "preferences.parquet")
    assert inventory.correct_samples(planned, tmp_path) == 5
    assert inventory.schedules(planned, defaults(), 20, 10, 5)["rft"].total_steps == 1
    assert inventory.schedules(planned, defaults(), 20, 10)["rft"].total_steps == 80 / 5
