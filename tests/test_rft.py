"""Rejection-sampling fine-tuning: trained on every correct, well-formed base sample of its prompts, no other."""

import json
import math
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import tiny_models
import tiny_study
from memedynamics import inventory, tables, vlm
from memedynamics.config import Adapter
from memedynamics.errors import InputError
from memedynamics.examples import correct_samples, training_rows
from memedynamics.study import load_study, warnings_of
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
    found = inventory.correct_samples(planned, tmp_path)
    assert found == {"paired": 5, "all": 6}
    every = load_study(raw | {"methods": {"rft": {"kind": "rft", "train_prompts": "all"}}})
    steps = [inventory.schedules(one, defaults(), 20, 10, found)["rft"].total_steps for one in (planned, every)]
    assert steps == [1, 2]  # 5 and 6 samples, 5 a step
    unbuilt = [inventory.schedules(one, defaults(), 20, 10)["rft"].total_steps for one in (planned, every)]
    assert unbuilt == [80 / 5, 160 / 5]


def test_all_prompts(study: Path, tmp_path: Path) -> None:
    """Of all 24 memes every good sample: Σ (1 + i % 7) = 3 · 28 + 1 + 2 + 3 = 90; 90/8 → 12 steps an epoch.

    The method's own train_prompts come before the study's.
    """
    for name, own, shared, prompts in (("a", None, "all", 24), ("b", "all", "paired", 24), ("c", "paired", "all", 18)):
        work = tmp_path / name
        work.mkdir()
        told = tiny_study.settings("rft", max_steps=1) | {"train_prompts": shared}
        told["method"] = told["method"].model_copy(update={"train_prompts": own})
        where = tiny_study.inputs(study) | tiny_study.outputs(work) | {"samples": study / "samples.parquet"}
        tiny_study.script("train_rft")(**where, **told, work=work / "work", threads=1)
        record = json.loads(where["run"].read_text())
        samples = sum(1 + i % 7 for i in range(24) if prompts == 24 or i in KEPT)
        assert record["num_prompts"] == prompts and record["epochs"] == pytest.approx(1 / math.ceil(samples / 8))
        assert (record["mean_num_correct"] is None) == (prompts == 24)


def test_an_unmatched_study_says_so() -> None:
    """As for grpo: with both keys, whether the study or the method asks for all prompts; dpo and sft cannot."""
    raw = {
        "study": "x",
        "base_model": {"source": "demo"},
        "in_domain": "p",
        "datasets": {"p": {"reader": "pictograms"}},
    }
    own = {"methods": {"dpo": {"kind": "dpo"}, "rft": {"kind": "rft", "train_prompts": "all"}}}
    shared = {"methods": {"dpo": {"kind": "dpo"}, "rft": {"kind": "rft"}}, "train_prompts": "all"}
    assert warnings_of(load_study(raw | own)) == [
        "methods are not matched: methods.rft.train_prompts = 'all' but train_prompts = 'paired'"
    ]
    assert warnings_of(load_study(raw | shared)) == [
        "methods are not matched: train_prompts = 'all' reaches methods.rft; on pairs only: dpo"
    ]
    with pytest.raises(
        InputError, match="dpo.train_prompts: is for methods without pairs alone .*, dpo trains on pairs"
    ):
        load_study(raw | {"methods": {"dpo": {"kind": "dpo", "train_prompts": "all"}}})


def test_no_good_sample_at_all(study: Path) -> None:
    pairs, memes, samples = (
        tables.read(study / f"{name}.parquet", name) for name in ("preferences", "data", "samples")
    )
    rows = training_rows(pairs, memes, PROMPT, "hateful", "all")
    with pytest.raises(InputError, match="samples: no correct, well-formed response to any of 24 training prompts"):
        correct_samples(rows, samples.with_columns(format_ok=False))
