"""The texts beside the base's samples: what each kind is, that seeds alone choose them, and the greedy path itself."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
import torch

import tiny_models
from memedynamics import probe_texts, probes, tables, vlm
from memedynamics.config import BaseModelConfig, Probes, Sampling
from memedynamics.errors import InputError
from memedynamics.grading import graded
from memedynamics.images import open_image
from memedynamics.prompts import load_prompt, user_text

ROOT = Path(__file__).parents[1]
PROMPT = load_prompt(ROOT / "config/prompts/think_answer.yaml")
REWARDS = {"format": 0.1, "accuracy": 0.9}
END = 2  # <|im_end|>
BASE = BaseModelConfig(source="tiny", dtype="float32")
SIZES = Probes(train=2, val=5, out_of_domain=1)


@pytest.fixture(scope="module")
def tokenizer():
    return vlm.load_processor(tiny_models.folder("qwen2_5_vl")).tokenizer


def response(answer: str, what: str) -> str:
    return f"<think> the picture shows a {what} </think><answer> {answer} </answer>"


def written(folder: Path, split: str, count: int) -> pl.DataFrame:
    """`count` memes in schema `data`, labels alternating, with pictures."""
    rows = []
    for n in range(count):
        path = folder / f"{split}{n}.png"
        tiny_models.picture(n).save(path)
        row = {"study": "s", "dataset": "memes", "split": split, "id": f"{split}{n}", "image": str(path)}
        rows.append(row | {"image_sha256": "", "width": 56, "height": 56, "text": f"caption {n}", "label": n % 2})
    return pl.DataFrame(rows).with_columns(groups=pl.lit([], pl.List(pl.String)))


def drawn(memes: pl.DataFrame, tokenizer, end: list[int] | None = None) -> pl.DataFrame:
    """Four graded base samples a meme: wrong; right; right in other words; badly formed and cut."""
    rows = []
    for n, row in enumerate(memes.select("dataset", "split", "id", "label").iter_rows(named=True)):
        right, wrong = ("Yes", "No") if row.pop("label") else ("No", "Yes")
        texts = [response(wrong, "cat"), response(right, f"cat {n}"), response(right, "caption"), "the picture"]
        for sample, text in enumerate(texts):
            stop = sample < 3
            tokens = tokenizer(text, add_special_tokens=False).input_ids + ([END] if end is None else end) * stop
            rows.append(
                {
                    **row,
                    "sample": sample,
                    "text": text,
                    "token_ids": tokens,
                    "finish_reason": "stop" if stop else "length",
                }
            )
    frame = pl.DataFrame(rows, schema_overrides={"sample": pl.Int16, "token_ids": pl.List(pl.Int32)})
    return graded(frame, memes, REWARDS, PROMPT)


@pytest.fixture(scope="module")
def memes(tmp_path_factory) -> pl.DataFrame:
    return written(tmp_path_factory.mktemp("pictures"), "val", 6)


def greedy_of(memes: pl.DataFrame) -> pl.DataFrame:
    return memes.select("dataset", "split", "id", sample=pl.lit(0), token_ids=pl.lit([7, END]), text=pl.lit("x"))


def built(samples: pl.DataFrame, memes: pl.DataFrame, tokenizer, seed: int = 0, **changes) -> pl.DataFrame:
    given = {"greedy": greedy_of(memes), "prompt": PROMPT, "weights": REWARDS, "rule": "paired"} | changes
    return probe_texts.build(samples=samples, memes=memes, tokenizer=tokenizer, seed=seed, **given)


@pytest.fixture(scope="module")
def texts(memes, tokenizer) -> dict[str, pl.DataFrame]:
    frame = built(drawn(memes, tokenizer), memes, tokenizer)
    tables.conform(frame, "probes")
    return {kind: rows.sort("id") for (kind,), rows in frame.group_by("probe_kind")}


@pytest.fixture(scope="module")
def samples(memes, tokenizer) -> pl.DataFrame:
    return drawn(memes, tokenizer)


def test_one_text_a_kind_and_meme(texts, memes):
    assert set(texts) == set(probe_texts.KINDS)
    for rows in texts.values():
        assert rows["id"].to_list() == memes["id"].to_list()


def test_correct_other_is_the_other_right_sample(texts, samples):
    """Chosen is sample 1, so the only other correct, well-formed one is 2."""
    expected = samples.filter(pl.col("sample") == 2).sort("id")
    assert texts["correct_other"]["sample"].to_list() == [2] * 6
    assert texts["correct_other"]["token_ids"].to_list() == expected["token_ids"].to_list()
    assert texts["correct_other"]["correct"].all() and texts["correct_other"]["format_ok"].all()


def test_other_image_is_another_chosen_of_the_same_label(texts, samples, memes):
    chosen = samples.filter(pl.col("sample") == 1).sort("id")["token_ids"].to_list()
    labels = memes.sort("id")["label"].to_list()
    for n, tokens in enumerate(texts["other_image"]["token_ids"].to_list()):
        source = chosen.index(tokens)
        assert source != n and labels[source] == labels[n]
    assert texts["other_image"]["correct"].all()


def test_gold_answer_is_the_bare_answer_with_its_end(texts, memes, tokenizer):
    for row, label in zip(texts["gold_answer"].iter_rows(named=True), memes.sort("id")["label"], strict=True):
        assert tokenizer.decode(row["token_ids"][:-1]) == f"<answer> {'Yes' if label else 'No'} </answer>"
        assert row["token_ids"][-1] == END
        # Right, but without its rationale not in the format: .9·1 + .1·0.
        assert (row["correct"], row["format_ok"], row["reward"]) == (True, False, 0.9)


def test_permuted_keeps_the_tokens_and_the_end(texts, samples):
    chosen = samples.filter(pl.col("sample") == 1).sort("id")["token_ids"].to_list()
    for one, other in zip(texts["permuted"]["token_ids"].to_list(), chosen, strict=True):
        assert sorted(one) == sorted(other) and one != other and one[-1] == END
    assert not texts["permuted"]["format_ok"].any()


def test_a_cut_response_has_no_end_to_keep(memes, tokenizer, samples):
    cut = samples.with_columns(finish_reason=pl.lit("length"), token_ids=pl.col("token_ids").list.head(6))
    moved = built(cut, memes, tokenizer).filter(probe_kind="permuted").sort("id")["token_ids"].list.last().to_list()
    kept = cut.filter(pl.col("sample") == 1).sort("id")["token_ids"].list.last().to_list()
    assert moved != kept
    # Nothing ended, so the bare answer has no end token either.
    gold = built(cut, memes, tokenizer).filter(probe_kind="gold_answer")["token_ids"]
    assert all(tokenizer.decode(tokens).endswith("</answer>") for tokens in gold.to_list())


def test_texts_depend_on_the_seed_alone(memes, tokenizer, samples):
    first = built(samples, memes, tokenizer)
    shuffled = built(samples.sample(fraction=1, shuffle=True, seed=4), memes.reverse(), tokenizer)
    keys = ["probe_kind", "id"]
    assert first.sort(keys).equals(shuffled.sort(keys))
    other = built(samples, memes, tokenizer, seed=1)
    for kind in ("other_image", "permuted"):
        one, two = (frame.filter(probe_kind=kind).sort("id")["token_ids"].to_list() for frame in (first, other))
        assert one != two, kind


def test_no_other_words_no_such_text(memes, tokenizer, samples):
    """All correct samples say the same, so there is none in other words, of this meme or another of its label."""
    same = samples.with_columns(text=pl.when("correct").then(pl.lit("same")).otherwise("text"))
    assert set(built(same, memes, tokenizer)["probe_kind"]) == {"gold_answer", "greedy", "permuted"}


def test_only_prompts_with_a_pair(memes, tokenizer, samples):
    right = samples.with_columns(correct=pl.col("correct") & (pl.col("id") != "val3"))
    assert "val3" not in built(right, memes, tokenizer)["id"].to_list()
    none = built(samples.with_columns(correct=False), memes, tokenizer)
    assert none.is_empty() and tables.conform(none, "probes").num_rows == 0


def test_a_missing_greedy_path_is_named(memes, tokenizer, samples):
    with pytest.raises(InputError, match=r"greedy: no path for 1 memes \(memes/val/val5"):
        built(samples, memes, tokenizer, greedy=greedy_of(memes.head(5)))


# The scripts, on a tiny model.


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"workflow/scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def study(tmp_path_factory, tokenizer) -> Path:
    """Model, data and base samples of two splits; the model is steep enough to have a clear favourite everywhere."""
    folder = tmp_path_factory.mktemp("study")
    model = vlm.load_model(tiny_models.folder("qwen2_5_vl"))
    for weight in model.parameters():
        weight.mul_(4 if weight.ndim > 1 else 1)
    model.save_pretrained(folder / "model")
    vlm.load_processor(tiny_models.folder("qwen2_5_vl")).save_pretrained(folder / "model")
    for split, count in (("train", 4), ("val", 8)):
        memes = written(folder, split, count)
        tables.write(memes, folder / f"{split}.parquet", "data")
        rest = {"fraction": 0.0, "tokens": pl.lit("drawn"), "logp": -1.0, "p_hateful": 0.5}
        rest |= {"label_mass": 1.0, "forced": False}
        tables.write(drawn(memes, tokenizer).with_columns(**rest), folder / f"samples-{split}.parquet", "samples")
    return folder


def decoded(study: Path, out: Path, **changes: object) -> pl.DataFrame:
    given = {"base": BASE, "prompt": PROMPT, "question": "hateful", "sizes": SIZES, "in_domain": "memes", "threads": 1}
    few = Sampling(num_samples=8, max_new_tokens=5, batch_size=2)
    given |= {"sampling": few, "work": out / "work", **changes}
    script("greedy_base").main(study / "val.parquet", study / "model", out / "greedy.parquet", **given)
    return tables.read(out / "greedy.parquet", "drawn")


@pytest.fixture(scope="module")
def greedy(study, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("greedy")
    decoded(study, folder)
    return folder / "greedy.parquet"


@torch.inference_mode()
def naive(study: Path, row: dict) -> tuple[list[int], float]:
    """The greedy path by whole sequences, one token at a time, and its log-probability."""
    model, processor = vlm.load_model(study / "model"), vlm.load_processor(study / "model")
    ends, tokens, total = vlm.end_token_ids(model, processor), [], 0.0
    inputs = vlm.encode(processor, [user_text(PROMPT, "hateful", row["text"])], [open_image(Path(row["image"]))])
    for _ in range(5):
        logits = model(**inputs).logits[0, -1].double()
        best = int(logits.index_fill(0, torch.tensor(vlm.picture_token_id(model)), -torch.inf).argmax())
        tokens.append(best)
        total += logits.log_softmax(-1)[best].item()
        if best in ends:
            break
        for name, new in (("input_ids", best), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            inputs[name] = torch.cat([inputs[name], torch.tensor([[new]])], dim=1)
    return tokens, total


def test_the_greedy_path_is_the_most_likely_token_at_every_position(study, greedy):
    paths = tables.read(greedy, "drawn")
    chosen = probes.subset(tables.read(study / "val.parquet", "data"), SIZES, "memes")
    assert sorted(paths["id"]) == sorted(chosen["id"]) and len(paths) == 5
    assert paths["sample"].unique().to_list() == [0] and paths["fraction"].unique().to_list() == [0.0]
    data = {row["id"]: row for row in tables.read(study / "val.parquet", "data").iter_rows(named=True)}
    for row in paths.iter_rows(named=True):
        tokens, logp = naive(study, data[row["id"]])
        assert row["token_ids"] == tokens
        assert row["logp"] == pytest.approx(logp, abs=1e-4)


def test_the_sampling_seed_does_not_reach_the_greedy_path(study, greedy, tmp_path):
    again = decoded(study, tmp_path, sampling=Sampling(max_new_tokens=5, batch_size=2, seed=9, temperature=0.5))
    assert again.equals(tables.read(greedy, "drawn"))


def test_probes_hold_base_samples_and_texts_of_val(study, greedy, tmp_path):
    splits = ("train", "val")
    script("build_probes").main(
        [study / f"samples-{split}.parquet" for split in splits], [study / f"{split}.parquet" for split in splits],
        greedy, study / "model", tmp_path / "probes.parquet", SIZES, "memes", PROMPT, REWARDS, "paired",
    )  # fmt: skip
    found = tables.read(tmp_path / "probes.parquet", "probes")
    counts = found.group_by("split", "probe_kind").agg(pl.col("id").n_unique(), pl.len()).sort("split", "probe_kind")
    # 2 train and 5 val memes with 4 samples each; every val meme gives a pair.
    expected = [("train", "base_sample", 2, 8), ("val", "base_sample", 5, 20)]
    assert counts.rows() == expected + [("val", kind, 5, 5) for kind in sorted(probe_texts.KINDS)]
    paths = found.filter(probe_kind="greedy").select("id", "token_ids").sort("id")
    assert paths.equals(tables.read(greedy, "drawn").select("id", "token_ids").sort("id"))
    assert not found.select("probe_kind", "dataset", "split", "id", "sample").is_duplicated().any()
    assert np.isfinite(found["reward"].to_numpy()).all()


@pytest.mark.parametrize(("how", "said"), [("missing", "no such table"), ("cut", "not a whole Parquet")])
def test_unusable_greedy_paths_are_named(study, greedy, tmp_path, how, said):
    bad = tmp_path / "bad.parquet"
    if how == "cut":
        bad.write_bytes(greedy.read_bytes()[:-30])
    with pytest.raises(InputError, match=f"{bad}: {said}"):
        script("build_probes").main(
            [study / "samples-val.parquet"], [study / "val.parquet"], bad, study / "model",
            tmp_path / "probes.parquet", SIZES, "memes", PROMPT, REWARDS, "paired",
        )  # fmt: skip
    assert not (tmp_path / "probes.parquet").exists()
