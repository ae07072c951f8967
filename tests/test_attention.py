"""From a model to the figure of `attention`: shares, perturbed decisions, the random control, and the reduction."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from peft import get_peft_model

import tiny_models
import tiny_study
from memedynamics import (
    answers,
    attention,
    attention_frames,
    figures,
    gather,
    looking_plan,
    random_update,
    segments,
    tables,
    vlm,
)
from memedynamics.adapters import peft_config
from memedynamics.answers import Labels
from memedynamics.config import Adapter, Attention, BaseModelConfig
from memedynamics.errors import InputError
from memedynamics.figure_attention import figure_attention
from memedynamics.looking import REFERENCE, Looker, Meme
from memedynamics.looking_decisions import Decider
from memedynamics.prompts import load_prompt, user_text

ROOT = tiny_study.ROOT
PROMPT = load_prompt(ROOT / "config/prompts/think_answer_text.yaml")
FAMILY = "qwen2_5_vl"
SHARES = [f"share_{name}" for name in segments.SEGMENTS]
LENGTH = 8  # tokens of a greedy response at most
SETTINGS = Attention(memes=6, kept=2, noise=[16, 64], batch_size=4)


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"workflow/scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Twelve memes, two of which share a caption with other labels; base samples; a run of two milestones."""
    folder = tmp_path_factory.mktemp("attention")
    tiny_study.write_study(folder, num_memes=12)
    data = tables.read(folder / "data.parquet", "data")
    same = pl.when(pl.col("id").is_in(["m00", "m01"])).then(pl.lit("the same")).otherwise("text")
    tables.write(data.with_columns(text=same), folder / "data.parquet", "data")
    tokenizer = vlm.load_processor(tiny_models.folder(FAMILY)).tokenizer
    tokens = [tokenizer(tiny_study.response(answer)).input_ids for answer in ("Yes", "No")]
    rows = data.select("dataset", "split", "id").with_columns(
        fraction=0.0, sample=0, token_ids=pl.Series([tokens[i % 2] for i in range(12)]), text=pl.lit(""),
        tokens=pl.lit("drawn"), finish_reason=pl.lit("stop"), logp=-1.0, p_hateful=0.5, label_mass=1.0, forced=False,
        answer=pl.lit("yes"), format_ok=True, correct=True, reward=1.0,
    )  # fmt: skip
    tables.write(rows, folder / "base/memes/train.parquet", "samples")
    run = folder / "runs/sft/seed1"
    for label, scale in (("0", 0.0), ("0.5", 0.05), ("1", 0.2)):
        torch.manual_seed(0)
        model = vlm.load_model(tiny_models.folder(FAMILY))
        policy = get_peft_model(model, peft_config(model, Adapter(r=4)))
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=scale)
        policy.save_pretrained(run / "milestones" / label)
    steps = {"0": 0, "0.5": 2, "1": 4}
    (run / "run.json").write_text(json.dumps({"kind": "adapter", "reference": "base", "steps": steps}))
    return folder


def extract(study: Path, method: str, settings: Attention = SETTINGS, name: str = "extracts") -> Path:
    """Run the extraction script; returns its output."""
    run = study / "runs/sft/seed1"
    trained = {"milestones": run / "milestones", "run": run / "run.json"}
    path = study / name / method / ("seed0.parquet" if method == "base" else "seed1.parquet")
    script("extract_attention")(
        model=tiny_models.folder(FAMILY), data=[study / "data.parquet"],
        base_samples=[study / "base/memes/train.parquet"], extract=path,
        base=BaseModelConfig(source="tiny", dtype="float32"), prompt=PROMPT, questions={"memes": "hateful"},
        fractions=[0.0] if method == "base" else [0.0, 0.5, 1.0], settings=settings,
        max_new_tokens=LENGTH, threads=1,
        work=study / f"work_{name}_{method}", **(trained if method != "base" else {}),
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def extracts(study: Path) -> list[Path]:
    return [extract(study, "base"), extract(study, "sft")]


@pytest.fixture(scope="module")
def run(extracts: list[Path]) -> pl.DataFrame:
    return tables.read(extracts[1], "extract_attention")


def test_segments_add_up_to_one_and_cells_to_the_picture(run):
    looks = run.filter(pl.col("head") == "mean")
    assert np.abs(looks.select(pl.sum_horizontal(SHARES)).to_numpy() - 1).max() < 1e-5
    clean = looks.filter(pl.col("perturbation") == "clean")
    assert np.abs((clean["cells"].list.sum() - clean["share_image"]).to_numpy()).max() < 1e-6
    assert clean["cells"].list.len().unique().to_list() == [16]


def test_mean_and_max_are_those_of_the_single_heads_of_kept_memes(run):
    keys = ["policy", "fraction", "id", "layer"]
    single = run.filter(pl.col("head").str.contains(r"^\d+$"))
    assert single["id"].n_unique() == SETTINGS.kept and single["head"].n_unique() == 4
    assert single["perturbation"].unique().to_list() == ["clean"]
    reduced = single.group_by(keys).agg(mean=pl.col("share_image").mean(), max=pl.col("share_image").max())
    for head in ("mean", "max"):
        written = run.filter((pl.col("head") == head) & (pl.col("perturbation") == "clean"))
        both = written.join(reduced, on=keys)
        assert len(both) == 3 * SETTINGS.kept * 2
        np.testing.assert_allclose(both["share_image"], both[head], atol=1e-6)


def test_every_policy_sees_every_perturbation_and_clean_moves_nothing(run):
    looked = run.filter(pl.col("head") == "mean")
    policies = looked.select("policy", "fraction").unique().sort("policy", "fraction").rows()
    assert policies == [("random", 1.0), ("trained", 0.5), ("trained", 1.0)]
    counts = dict(looked.group_by("perturbation").len().rows())
    whole = 6 * 2 * 3  # memes, layers, policies
    swapped = counts.pop("natural_swap", 0) + counts.pop("other_image", 0)
    assert swapped == whole
    assert counts == dict.fromkeys(["clean", "noise_16", "noise_64", "blur", "jpeg", "blank"], whole)
    clean = looked.filter(pl.col("perturbation") == "clean")
    assert clean["tv"].max() == 0 and clean["js"].max() == 0
    blank = looked.filter(pl.col("perturbation") == "blank")
    assert blank["tv"].min() > 0 and blank["js"].max() < np.log(2) and blank["tv"].max() < 1


def test_batches_padding_and_chunks_do_not_change_numbers(study, run):
    other = tables.read(
        extract(study, "sft", SETTINGS.model_copy(update={"batch_size": 3}), "again"), "extract_attention"
    )
    keys = ["policy", "fraction", "id", "perturbation", "layer", "head", "after"]
    both = run.join(other, on=keys, nulls_equal=True)
    assert len(both) == len(run) == len(other)
    for name in (*SHARES, "tv", "log_odds"):
        np.testing.assert_allclose(both[name].fill_null(0), both[f"{name}_right"].fill_null(0), atol=1e-5)


def test_natural_swaps_turn_the_right_answer(study):
    every = extract(study, "base", Attention(memes=12, kept=1, noise=[8], batch_size=12), "every")
    made = tables.read(every, "extract_attention").drop_nulls("after")
    label = dict(tables.read(study / "data.parquet", "data").select("id", "label").rows())
    for name, right in made.filter(pl.col("perturbation") == "natural_swap").select("id", "label").rows():
        assert right == 1 - label[name]
    swapped = made.filter(pl.col("perturbation") == "natural_swap")["id"].unique().sort().to_list()
    assert swapped == ["m00", "m01"]  # the other captions are each one meme's
    assert set(made["perturbation"]) == {"clean", "noise_8", "blur", "jpeg", "blank", "natural_swap", "other_image"}
    assert all(
        right == label[name]
        for name, right in made.filter(pl.col("perturbation") == "blank").select("id", "label").rows()
    )


class Plain:
    """The model run on whole sequences, token by token and with nothing shared."""

    def __init__(self, study: Path) -> None:
        self.model, self.processor = (load(tiny_models.folder(FAMILY)) for load in (vlm.load_model, vlm.load_processor))
        self.words = self.processor.tokenizer
        self.data = {row["id"]: row for row in tables.read(study / "data.parquet", "data").to_dicts()}

    def inputs(self, name: str, blank: bool = False) -> dict:
        picture = tiny_models.Image.open(self.data[name]["image"]).convert("RGB")
        picture = tiny_models.Image.new("RGB", picture.size, (127, 127, 127)) if blank else picture
        return vlm.encode(self.processor, [user_text(PROMPT, "hateful", self.data[name]["text"])], [picture])

    def logits(self, inputs: dict, fed: list[int]) -> torch.Tensor:
        """Of every token of the prompt with `fed` behind (T, V), float64."""
        whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], torch.tensor([fed]).long()], 1)}
        for mask in {"attention_mask", "mm_token_type_ids"} & set(whole):
            whole[mask] = torch.cat([whole[mask], torch.full((1, len(fed)), int(mask == "attention_mask"))], 1)
        return self.model(**whole).logits[0].double()

    def log_odds(self, inputs: dict, before: list[int]) -> float:
        labels = Labels(self.words, PROMPT)

        def logp(spelling: tuple[int, ...]) -> torch.Tensor:
            logits = self.logits(inputs, [*before, *spelling])[-len(spelling) - 1 : -1].log_softmax(-1)
            return logits[range(len(spelling)), list(spelling)].sum()

        found = torch.stack([logp(spelling) for spelling in labels.spellings])
        return (found[labels.is_yes].logsumexp(0) - found[~labels.is_yes].logsumexp(0)).item()

    def greedy(self, inputs: dict) -> list[int]:
        fed, picture = [], vlm.picture_token_id(self.model)
        while len(fed) < LENGTH and not set(fed) & vlm.end_token_ids(self.model, self.processor):
            logits = self.logits(inputs, fed)[-1]
            logits[picture] = -torch.inf
            fed.append(int(logits.argmax()))
        return fed


@torch.inference_mode()
def test_decisions_equal_those_of_whole_sequences(study, extracts):
    """The plain way: prompt, rationale up to the answer and nothing shared; log-odds from the last token's logits."""
    plain = Plain(study)
    made = tables.read(extracts[0], "extract_attention").filter(perturbation="clean").drop_nulls("after")
    made = made.filter(pl.col("after") != "redrawn")
    for name, after, log_odds in made.select("id", "after", "log_odds").head(4).rows():
        text = "<answer>" if after == "header" else "<think> the picture shows a cat </think><answer>"
        assert log_odds == pytest.approx(plain.log_odds(plain.inputs(name), plain.words(text).input_ids), abs=1e-4)


@torch.inference_mode()
def test_redrawn_answers_are_those_of_greedy_whole_sequences(study, extracts):
    """Each token the likeliest after all before it; these random responses never answer, so the header is forced."""
    plain = Plain(study)
    ends = vlm.end_token_ids(plain.model, plain.processor)
    made = tables.read(extracts[0], "extract_attention").filter(after="redrawn")
    paths = set()
    for name, seen, log_odds in made.filter(pl.col("perturbation").is_in(["clean", "blank"])).select(
        "id", "perturbation", "log_odds"
    ).head(8).rows():  # fmt: skip
        inputs = plain.inputs(name, seen == "blank")
        greedy = plain.greedy(inputs)
        read = answers.context(greedy, plain.words, PROMPT, ends)
        paths.add((seen, tuple(greedy)))
        assert read.forced and log_odds == pytest.approx(plain.log_odds(inputs, read.tokens), abs=1e-4)
    assert len(paths) > 1 and {seen for seen, _ in paths} == {"clean", "blank"}


def test_answers_are_redrawn_at_the_end_alone_and_for_few_pictures(run, extracts):
    redrawn = run.filter(after="redrawn")
    assert redrawn.select("policy", "fraction").unique().rows() == [("trained", 1.0)]
    counts = dict(redrawn.group_by("perturbation").len().rows())
    assert counts.pop("natural_swap", 0) + counts.pop("other_image", 0) == 6
    assert counts == {"clean": 6, "noise_64": 6, "blank": 6}
    base = tables.read(extracts[0], "extract_attention").filter(after="redrawn")
    assert base["fraction"].unique().to_list() == [0] and len(base) == 24


BRIGHT, DARK = (tiny_models.Image.new("RGB", (56, 56), colour) for colour in ("white", "black"))


@pytest.fixture(scope="module")
def sighted() -> Looker:
    """A model that was taught to answer Yes to a white picture and No to a black one, each with its own words."""
    model, processor = (load(tiny_models.folder(FAMILY)) for load in (vlm.load_model, vlm.load_processor))
    texts = ["<think> light </think><answer> Yes </answer>", "<think> dark </think><answer> No </answer>"]
    end = vlm.end_token_ids(model, processor)
    tokens = [[*processor.tokenizer(text).input_ids, min(end)] for text in texts]
    contents = [user_text(PROMPT, "hateful", "caption")] * 2
    ids, mask = answers.padded(tokens)
    inputs = vlm.encode(processor, contents, [BRIGHT, DARK])
    length = inputs["input_ids"].shape[1]
    whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], ids], 1)}
    whole["attention_mask"] = torch.cat([inputs["attention_mask"], mask], 1)
    if "mm_token_type_ids" in whole:
        whole["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(ids)], 1)
    labels = torch.cat([torch.full((2, length), -100), ids.masked_fill(mask == 0, -100)], 1)
    model.requires_grad_(True)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimiser.zero_grad()
        model(**whole, labels=labels).loss.backward()
        optimiser.step()
    decider = Decider(processor.tokenizer, PROMPT, Labels(processor.tokenizer, PROMPT), end, 24)
    return Looker(lambda label: model.eval(), processor, decider, [64])


def _redrawn(looker: Looker, memes: list[tuple], tmp_path: Path) -> pl.DataFrame:
    """Decisions by meme, redrawn by the reference; `memes`: label, picture, and the swap with its kind."""
    parts = segments.parts(PROMPT, "hateful", "caption")
    looked_at = [
        Meme(("d", "val", str(i)), label, parts, image, (kind, other), [5], False)
        for i, (label, image, kind, other) in enumerate(memes)
    ]
    found = looker.look(looked_at, [REFERENCE._replace(redraws=True)])
    tables.write(found, tmp_path / "extract.parquet", "extract_attention")
    made = attention_frames.decisions(pl.scan_parquet(tmp_path / "extract.parquet"))
    return made.filter(after="redrawn")


def test_answers_of_a_sighted_model_flip_with_the_picture_and_stay_right(sighted, tmp_path):
    """Natural swaps turn the right answer: who sees flips every time and is never wrong."""
    made = _redrawn(sighted, [(1, BRIGHT, "natural_swap", DARK), (0, DARK, "natural_swap", BRIGHT)], tmp_path)
    clean, swapped = (made.filter(perturbation=name) for name in ("clean", "natural_swap"))
    assert clean["right"].to_list() == swapped["right"].to_list() == [1, 1]
    assert clean["flipped"].to_list() == [0, 0] and swapped["flipped"].to_list() == [1, 1]
    assert made.filter(pl.col("perturbation").is_in(["clean", "natural_swap"]))["label_mass"].min() > 0.5


def test_the_same_picture_again_flips_nothing(sighted, tmp_path):
    made = _redrawn(sighted, [(1, BRIGHT, "other_image", BRIGHT), (0, DARK, "other_image", DARK)], tmp_path)
    same = made.filter(perturbation="other_image")
    assert len(same) == 2 and same["flipped"].sum() == 0 and same["change_absolute"].max() == 0


def test_uniform_attention_has_density_one_over_length_everywhere():
    """Queries of 0 give every key the same score: each of a prompt's T tokens gets 1/T, and none is a sink."""
    folder = tiny_models.folder(FAMILY)
    model, processor = vlm.load_model(folder), vlm.load_processor(folder)
    for name, parameter in model.get_decoder().named_parameters():
        if "q_proj" in name:
            parameter.data.zero_()
    decider = Decider(processor.tokenizer, PROMPT, Labels(processor.tokenizer, PROMPT), [0], LENGTH)
    looker = Looker(lambda label: model, processor, decider, [64])
    memes = [
        Meme(("d", "val", str(i)), 0, segments.parts(PROMPT, "hateful", text), tiny_models.picture(i), None, [5], False)
        for i, text in enumerate(["short", "a caption that is much longer"])
    ]
    found = looker.look(memes, [REFERENCE]).filter(pl.col("head") == "mean")
    length = found.select(pl.sum_horizontal([f"tokens_{name}" for name in segments.SEGMENTS])).to_series()
    assert length.n_unique() == 2
    for name in segments.SEGMENTS:
        density = found[f"share_{name}"] / found[f"tokens_{name}"]
        np.testing.assert_allclose(density * length, 1, atol=1e-5)
        np.testing.assert_allclose(found[f"sinkless_{name}"], found[f"share_{name}"], atol=1e-6)
    assert found["tv"].max() < 1e-6 and found["sink_share"].max() == 0
    assert found["perturbation"].unique().sort().to_list() == ["blank", "blur", "clean", "jpeg", "noise_64"]


def test_the_random_update_has_the_norm_of_the_trained_one_in_every_module(study):
    model = vlm.load_model(tiny_models.folder(FAMILY))
    folder = study / "runs/sft/seed1/milestones/1"
    policy = random_update.PeftModel.from_pretrained(model, folder, adapter_name="trained")
    assert random_update.add(policy, folder)
    cosines = []
    for module in policy.modules():
        if isinstance(module, random_update.LoraLayer):
            trained, random = (module.get_delta_weight(name) for name in ("trained", random_update.NAME))
            assert random.norm().item() == pytest.approx(trained.norm().item(), rel=1e-5)
            cosines.append((trained * random).sum() / trained.norm() / random.norm())
    assert len(cosines) == 14 and torch.stack(cosines).abs().mean() < 0.1
    assert not random_update.add(vlm.load_model(tiny_models.folder(FAMILY)), folder)


def _rows(fraction: float, policy: str, image: float, odds: dict[str, list[float]]) -> pl.DataFrame:
    """Two memes (labels 1, 0); two layers, picture shares `image` and `image` + 0.2; 2 picture and 8 other tokens."""
    shares = {name: 0.0 for name in (*SHARES, *(f"sinkless_{s}" for s in segments.SEGMENTS))}
    counts = {f"tokens_{name}": 0 for name in segments.SEGMENTS}
    rows = []
    for n, name in enumerate(("a", "b")):
        key = {"fraction": fraction, "policy": policy, "dataset": "d", "split": "val", "id": name}
        for perturbation, found in odds.items():
            for layer in (0, 1):
                share = image + 0.2 * layer
                looks = {"share_image": share, "share_question": 1 - share, "tokens_image": 2, "tokens_question": 8}
                move = {"tv": 0.0 if perturbation == "clean" else 0.1 * (1 + layer), "js": 0.0, "sink_share": 0.5}
                cells = [share / 16] * 16 if perturbation == "clean" else None
                both = {**key, "perturbation": perturbation, "layer": layer, **shares, **counts, **looks, **move}
                rows += [{**both, "head": head, "cells": cells} for head in ("mean", "max")]
            made = {**key, "perturbation": perturbation, "label": 1 - n, "label_mass": 0.5}
            rows.append({**made, "after": "header", "log_odds": found[n]})
            rows.append({**made, "after": "redrawn", "log_odds": -found[n]})
    return pl.DataFrame(rows, infer_schema_length=None)


PROMPTS = pl.DataFrame(
    {"dataset": ["d", "d"], "split": ["val", "val"], "id": ["a", "b"], "label": [1, 0], "text": ["x", "y"]}
)


@pytest.fixture
def table(tmp_path) -> pl.DataFrame:
    """Base: both right when clean, b wrong under noise. sft: picture share 0.1 more, right throughout; no control."""
    base = {"clean": [1.0, -2.0], "noise_64": [0.5, 1.0]}
    sft = {"clean": [3.0, -3.0], "noise_64": [2.0, -2.0]}
    paths = [tmp_path / "base/seed0.parquet", tmp_path / "sft/seed1.parquet"]
    for path, rows in zip(paths, (_rows(0.0, "trained", 0.2, base), _rows(1.0, "trained", 0.3, sft)), strict=True):
        tables.write(rows, path, "extract_attention")
    (tmp_path / "sft/run").mkdir()
    run = tmp_path / "runs/sft/seed1/run.json"
    run.parent.mkdir(parents=True)
    run.write_text(json.dumps({"steps": {"0": 0, "1": 7}, "reference": "base"}))
    found = attention.measure(*attention_frames.by_meme(paths), PROMPTS, gather.milestones([run]), 50)
    tables.write(found, tmp_path / "attention.parquet", "attention")
    return tables.read(tmp_path / "attention.parquet", "attention")


def value(table: pl.DataFrame, statistic: str, **keys: object) -> float:
    """The one value of `statistic` at `keys`; what they leave out is empty."""
    empty = {"layer": None, "cell": None, "after": None, "versus": None, "head": None, "policy": "trained"}
    rows = table.filter(pl.col("statistic") == statistic)
    for name, wanted in {**empty, "perturbation": "clean", **keys}.items():
        rows = rows.filter(pl.col(name).is_null() if wanted is None else pl.col(name) == wanted)
    assert len(rows) == 1, rows
    return rows["value"][0]


def test_shares_and_densities_by_hand(table):
    """sft: picture .3 and .5 in its two layers, mean .4; density (.3/2 + .5/2)/2 = .2 and (.7/8 + .5/8)/2 = .075."""
    assert value(table, "image_share", method="sft", head="mean") == pytest.approx(0.4)
    assert value(table, "image_share", method="sft", head="mean", layer=1) == pytest.approx(0.5)
    assert value(table, "image_density", method="sft", head="mean") == pytest.approx(0.2)
    assert value(table, "question_density", method="sft", head="mean") == pytest.approx(0.075)
    assert value(table, "cell_share", method="sft", head="mean", cell=3) == pytest.approx(0.025)
    assert value(table, "image_share_difference", method="sft", head="mean", versus="base") == pytest.approx(0.1)
    # No caption in these prompts: a share of nothing, and no density.
    assert value(table, "caption_share", method="sft", head="mean") == 0
    assert table.filter(pl.col("statistic") == "caption_density").is_empty()


def test_movement_and_decisions_by_hand(table):
    """Under noise TV is .1 and .2 in the two layers. The base's log-odds go from (1, −2) to (.5, 1): b flips to a wrong
    yes; change (−.5 + 3)/2 = 1.25, absolute (.5 + 3)/2 = 1.75.
    """
    noisy, after = {"perturbation": "noise_64"}, {"after": "header"}
    assert value(table, "total_variation", method="base", head="mean", **noisy) == pytest.approx(0.15)
    assert value(table, "total_variation", method="base", head="mean") == 0
    assert value(table, "decision_accuracy", method="base", **after) == 1
    assert value(table, "decision_accuracy", method="base", **after, **noisy) == 0.5
    assert value(table, "accuracy_change", method="base", **after, **noisy) == -0.5
    assert value(table, "flip_rate", method="base", **after, **noisy) == 0.5
    assert value(table, "log_odds_change", method="base", **after, **noisy) == pytest.approx(1.25)
    assert value(table, "log_odds_change_absolute", method="base", **after, **noisy) == pytest.approx(1.75)
    paired = value(table, "decision_accuracy_difference", method="sft", versus="base", **after, **noisy)
    assert paired == pytest.approx(0.5)
    assert table.filter(pl.col("statistic") == "decision_accuracy")["n"].unique().to_list() == [2]


def test_redrawn_answers_by_hand(table):
    """Redrawn log-odds are minus those above. The base's go from (−1, 2), both wrong, to (−.5, −1): b turns right."""
    noisy, after = {"perturbation": "noise_64"}, {"after": "redrawn"}
    assert value(table, "decision_accuracy", method="base", **after) == 0
    assert value(table, "decision_accuracy", method="base", **after, **noisy) == 0.5
    assert value(table, "accuracy_change", method="base", **after, **noisy) == 0.5
    assert value(table, "flip_rate", method="base", **after, **noisy) == 0.5
    assert value(table, "log_odds_change", method="base", **after, **noisy) == pytest.approx(-1.25)
    paired = value(table, "decision_accuracy_difference", method="sft", versus="base", **after, **noisy)
    assert paired == pytest.approx(-0.5)


def test_a_run_without_a_control_says_why(table):
    lacking = table.drop_nulls("missing")
    assert lacking.select("method", "policy", "value").rows() == [("sft", "random", None)]
    assert "norm" in lacking["missing"][0]
    assert table.filter(pl.col("missing").is_null())["value"].null_count() == 0


def test_segments_of_the_tables_are_those_of_the_prompts():
    assert attention_frames.SEGMENTS == segments.SEGMENTS


def test_from_extracts_to_the_figure(study, extracts, tmp_path):
    runs = [study / "runs/sft/seed1/run.json"]
    script("attention")(extracts, runs, [study / "data.parquet"], tmp_path / "attention.parquet", resamples=20)
    table = tables.read(tmp_path / "attention.parquet", "attention")
    assert set(table["policy"]) == {"trained", "random"}
    against = table.filter((pl.col("statistic") == "image_share_difference") & (pl.col("head") == "mean"))
    assert {("sft", "base"), ("sft", "random")} == set(against.select("method", "versus").rows())
    assert table["missing"].null_count() == len(table)
    figure = figure_attention(table, ["a note"])
    assert len(figure.data) > 50
    figures.save(figure, tmp_path / "attention.html", "attention")
    first = (tmp_path / "attention.html").read_bytes()
    script("figure_attention")(tmp_path / "attention.parquet", tmp_path / "attention.html", ["a note"])
    assert (tmp_path / "attention.html").read_bytes() == first


def test_a_meme_without_a_base_sample_is_refused(study, tmp_path):
    samples = tables.read(study / "base/memes/train.parquet", "samples")
    tables.write(samples.filter(pl.col("id") > "m02"), tmp_path / "base/memes/train.parquet", "samples")
    data, kept = (
        tables.read(study / "data.parquet", "data"),
        tables.read(tmp_path / "base/memes/train.parquet", "samples"),
    )
    with pytest.raises(InputError, match="no sample 0 for 3 memes"):
        looking_plan.chosen(data, kept, Attention(memes=12))


def test_a_nan_in_an_extract_is_named(tmp_path):
    rows = _rows(0.0, "trained", 0.2, {"clean": [1.0, -1.0]}).with_columns(share_image=float("nan"))
    tables.write(rows, tmp_path / "base/seed0.parquet", "extract_attention")
    with pytest.raises(InputError, match="seed0.parquet, column share_image"):
        attention_frames.by_meme([tmp_path / "base/seed0.parquet"])


def test_the_reduction_and_the_figure_import_no_torch():
    code = "import sys, memedynamics.attention, memedynamics.figure_attention; sys.exit('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(ROOT / "workflow"), "PATH": ""}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
