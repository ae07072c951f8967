"""Contributions of features: exact where the function is linear, a derivative where it is not, groups that add up."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import tiny_models
import tiny_study
from memedynamics import decision_gradients, feature_groups, policies, sharpe, tables, vlm
from memedynamics.attributions import Extractor
from memedynamics.config import Adapter, BaseModelConfig, Sharpe
from memedynamics.decision_gradients import FirstTokens, Question, answer, embedded, occluded
from memedynamics.errors import InputError
from memedynamics.probed_memes import Meme, chosen
from memedynamics.prompts import load_prompt
from memedynamics.segments import parts

PROMPT = load_prompt(tiny_study.ROOT / "config/prompts/think_answer_text.yaml")
CAPTIONS = ["a cat greets everyone, a cat", "greets", "the picture: yes or No?"]


class Linear(nn.Module):
    """A language model without non-linearity: state t = W Σ_{s ≤ t} e_s."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(6, 6, bias=False)

    def forward(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        return self.mix(inputs_embeds.cumsum(1))


class Toy(nn.Module):
    """What `decision_gradients` needs of a model, around `Linear`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.decoder, self.lm_head = nn.Embedding(9, 6), Linear(), nn.Linear(6, 9)
        self.requires_grad_(False)

    def get_decoder(self) -> nn.Module:
        return self.decoder

    def model(self, input_ids: torch.Tensor, **_: object) -> object:
        hidden = self.decoder(inputs_embeds=self.table(input_ids))
        return type("Output", (), {"last_hidden_state": hidden})


TOY_QUESTION = Question(
    {"input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])}, torch.tensor([3, 2]), torch.tensor([True, False])
)
TOKENS = FirstTokens([1], [2])


def test_a_linear_function_is_complete():
    """One spelling a label: log-odds are a difference of logits, linear in e. Σφ = f(e) − f(0), each token exact."""
    toy = Toy()
    found = answer(toy, TOY_QUESTION, TOKENS)
    with embedded(toy, torch.zeros_like):
        nothing, _ = decision_gradients.decide(toy, TOY_QUESTION, TOKENS)
    torch.testing.assert_close(found.phi.sum(1), found.log_odds - nothing)
    # The second text decides at its third token: the fourth has no part in it.
    assert found.phi[1, 3] == 0 and (found.phi[0] != 0).all()
    # By hand: φ_t = ± (w_yes − w_no)ᵀ W e_t.
    weight = (toy.lm_head.weight[1] - toy.lm_head.weight[2]) @ toy.decoder.mix.weight
    torch.testing.assert_close(found.phi[0], toy.table(TOY_QUESTION.inputs["input_ids"][0]) @ weight)
    torch.testing.assert_close(found.phi[1, :3], -(toy.table(TOY_QUESTION.inputs["input_ids"][1, :3]) @ weight))


def test_occlusion_of_a_linear_function_is_phi_against_the_mean():
    """f(e) − f(e with a group at μ) = Σ_group ⟨g, e − μ⟩; with μ = 0 it is φ itself."""
    toy = Toy()
    masks = [torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0]]).bool(), torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0]]).bool()]
    phi = answer(toy, TOY_QUESTION, TOKENS).phi
    effects = occluded(toy, TOY_QUESTION, TOKENS, masks, torch.zeros(6))
    torch.testing.assert_close(effects, torch.stack([(phi * mask).sum(1) for mask in masks]))
    mean = torch.randn(6)
    shift = (toy.lm_head.weight[1] - toy.lm_head.weight[2]) @ toy.decoder.mix.weight @ mean
    expected = (phi * masks[0]).sum(1) - torch.stack([shift, -2 * shift])
    torch.testing.assert_close(occluded(toy, TOY_QUESTION, TOKENS, masks[:1], mean)[0], expected)


def memes(folder: Path) -> list[Meme]:
    """Three memes: a response of its own header, one cut in its rationale, one that is one long rationale."""
    tokenizer = vlm.load_processor(tiny_models.folder("qwen2_5_vl")).tokenizer
    texts = ["<think> a cat </think><answer> Yes </answer>", "<think> a picture shows", "greets everyone"]
    found = []
    for n, (caption, text) in enumerate(zip(CAPTIONS, texts, strict=True)):
        tiny_models.picture(n, 56 + 28 * (n % 2)).save(folder / f"{n}.png")
        row = {"dataset": "d", "split": "val", "id": str(n), "label": n % 2}
        ids = tokenizer(text, add_special_tokens=False).input_ids
        found.append(Meme(row, parts(PROMPT, "hateful", caption), folder / f"{n}.png", ids))
    return found


@pytest.fixture(scope="module")
def family_rows(tmp_path_factory):
    """Rows of the three memes for a family."""

    def extract(family: str) -> tuple[Extractor, list[Meme], pl.DataFrame]:
        folder = tmp_path_factory.mktemp(family)
        model = vlm.load_model(tiny_models.folder(family))
        extractor = Extractor(lambda _: model, vlm.load_processor(tiny_models.folder(family)), PROMPT)
        some = memes(folder)
        rows, states = extractor.extract(some, [0.0], checked=True, signal=True)
        assert states == {0.0: {}}, "a bare model has no factors"
        return extractor, some, rows

    return extract


def summed(rows: pl.DataFrame, groups: pl.Expr) -> list[float]:
    return rows.filter(groups).group_by("id").agg(pl.col("phi").sum()).sort("id")["phi"].to_list()


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_groups_add_up_and_batches_do_not_matter(family, family_rows):
    extractor, some, rows = family_rows(family)
    assert np.isfinite(rows["phi"].to_numpy()).all() and (rows["phi"] != 0).any()
    whole = summed(rows, pl.col("group") == "all")
    assert summed(rows, pl.col("group").is_in(feature_groups.WHOLE)) == pytest.approx(whole, rel=1e-4, abs=1e-6)
    image = summed(rows, pl.col("group") == "image")
    assert summed(rows, pl.col("group").str.starts_with("cell_")) == pytest.approx(image, rel=1e-4, abs=1e-6)
    assert rows.drop_nulls("occlusion")["group"].unique().sort().to_list() == sorted(feature_groups.WHOLE)
    # Alone, without padding.
    alone = pl.concat([extractor.extract([meme], [0.0], True, False)[0] for meme in some])
    keys = ["id", "group"]
    both = rows.join(alone, on=keys, suffix="_alone", validate="1:1")
    assert len(both) == len(rows) == len(alone)
    for name in ("phi", "occlusion", "log_odds"):
        pair = both.drop_nulls(name)
        scale = max(1e-3, pair[name].abs().max())
        assert (pair[name] - pair[f"{name}_alone"]).abs().max() < 2e-3 * scale, name


def test_phi_is_a_derivative(family_rows):
    """Scaling a group's embeddings by 1 + a moves the log-odds by a·φ: central difference at a = .02."""
    extractor, some, rows = family_rows("qwen2_5_vl")
    model, layout = extractor.model(None), extractor._layout(some)

    def log_odds(group: str, scale: float) -> torch.Tensor:
        factor = torch.ones(layout.question.inputs["input_ids"].shape)
        for row, groups in enumerate(layout.groups):
            factor[row, groups.get(group, [])] = scale
        with torch.no_grad(), embedded(model, lambda e: e * factor[..., None]):
            return decision_gradients.decide(model, layout.question, extractor._first_tokens)[0]

    for group in ("image", "caption", "rationale", "format", "all"):
        slope = (log_odds(group, 1.02) - log_odds(group, 0.98)) / 0.04
        found = dict(rows.filter(group=group).select("id", "phi").rows())
        for row, value in enumerate(slope.tolist()):
            assert found.get(str(row), 0.0) == pytest.approx(value, rel=0.05, abs=2e-5), group


def test_log_odds_are_the_decisions(family_rows):
    """Toward the gold label: memes 0 and 2 are benign, 1 hateful. Against first-token probabilities of a plain pass."""
    extractor, some, rows = family_rows("llava")
    layout, model = extractor._layout(some), extractor.model(None)
    hidden = vlm.hidden_states(model, **layout.question.inputs).last_hidden_state
    logp = vlm.project(model, hidden[torch.arange(3), layout.question.at]).double().log_softmax(-1)
    yes, no = (logp[:, tokens].exp().sum(1).log() for tokens in extractor._first_tokens)
    expected = ((yes - no) * torch.tensor([-1, 1, -1])).tolist()
    assert rows.filter(group="all").sort("id")["log_odds"].to_list() == pytest.approx(expected, abs=1e-4)


def test_words_of_a_caption(family_rows):
    _, _, rows = family_rows("qwen2_5_vl")
    words = rows.filter(pl.col("group").str.starts_with("word:")).select("id", "group")
    found = {meme: sorted(words.filter(id=meme)["group"].str.strip_prefix("word:")) for meme in "012"}
    assert found == {
        "0": ["a", "cat", "everyone", "greets"], "1": ["greets"], "2": ["no", "or", "picture", "the", "yes"]
    }  # fmt: skip
    assert set(sharpe.GROUPS) == set(feature_groups.WHOLE)


def test_labels_that_begin_alike_are_refused():
    labels = type("Labels", (), {"spellings": [(1, 2), (1, 3)], "is_yes": torch.tensor([True, False])})
    with pytest.raises(InputError, match="labels"):
        decision_gradients.first_tokens(labels)
    labels.spellings, labels.is_yes = [(1, 2), (4,), (1, 3), (5, 6)], torch.tensor([True, True, False, False])
    assert decision_gradients.first_tokens(labels) == ([4], [5])


def test_a_probed_meme_without_data_is_refused():
    probes = pl.DataFrame({"probe_kind": "base_sample", "dataset": "d", "split": "val", "id": "x", "sample": 0})
    probes = probes.with_columns(token_ids=pl.lit([[1]]).list.first())
    data = pl.DataFrame(schema={n: pl.String for n in ("dataset", "split", "id", "image", "text")} | {"label": pl.Int8})
    with pytest.raises(InputError, match="d/val/x"):
        chosen(probes, data, 4, PROMPT, {"d": "hateful"})


# The script, on a trained run and on the base.
@pytest.fixture(scope="module")
def study(tmp_path_factory) -> dict[str, object]:
    folder = tiny_study.write_study(tmp_path_factory.mktemp("study"))
    run = tiny_study.train("sft", folder, folder / "runs/sft/seed1")
    data = tables.read(folder / "data.parquet", "data").drop("study")
    both = [data.with_columns(split=pl.lit(s), id=pl.col("id") + s, dataset=pl.lit(d)) for d, s in SPLITS]
    files = [folder / f"{n}.parquet" for n in range(len(both))]
    for frame, file in zip(both, files, strict=True):
        tables.write(frame, file, "data")
    tokenizer = vlm.load_processor(tiny_models.folder("qwen2_5_vl")).tokenizer
    tokens = tokenizer(tiny_study.response("Yes") + "<|im_end|>", add_special_tokens=False).input_ids
    probes = pl.concat(both).select("dataset", "split", "id").with_columns(
        probe_kind=pl.lit("base_sample"), sample=pl.lit(0), correct=pl.lit(True), format_ok=pl.lit(True),
        reward=pl.lit(1.0), token_ids=pl.Series([tokens] * 72),
    )  # fmt: skip
    tables.write(probes, folder / "probes.parquet", "probes")
    return {"folder": folder, "run": run, "data": files}


SPLITS = [("memes", "train"), ("memes", "val"), ("other", "test")]


def extract(study: dict[str, object], name: str, **given: object) -> tuple[pl.DataFrame, pl.DataFrame]:
    folder = study["folder"]
    outputs = {key: folder / f"{key}/{name}/seed1.parquet" for key in ("extract", "signal")}
    tiny_study.script("extract_sharpe")(
        model=tiny_models.folder("qwen2_5_vl"), probes=folder / "probes.parquet", data=study["data"], **outputs,
        base=BaseModelConfig(source="tiny", dtype="float32"), prompt=PROMPT,
        questions={"memes": "hateful", "other": "hateful"}, settings=Sharpe(memes=8, batch_size=3),
        adapter=Adapter(r=4), in_domain="memes", threads=1, work=folder / f"work/{name}", **given,
    )  # fmt: skip
    return tables.read(outputs["extract"], "extract_sharpe"), tables.read(outputs["signal"], "extract_signal")


@pytest.fixture(scope="module")
def extracted(study):
    run = {"milestones": study["run"]["milestones"], "run": study["run"]["run"]}
    return {
        "base": extract(study, "base", fractions=[0.0]),
        "sft": extract(study, "sft", fractions=[0.0, 0.5, 1.0], **run),
    }


def test_script_covers_milestones_and_splits(extracted, study):
    for name, fractions in (("base", [0.0]), ("sft", [0.5, 1.0])):
        rows, signal = extracted[name]
        whole = rows.filter(group="all")
        assert whole["fraction"].unique().sort().to_list() == fractions
        assert whole.group_by("fraction", "dataset", "split").len()["len"].unique().to_list() == [8]
        assert {"memes/train", "memes/val"} == {"/".join(key) for key in signal.select("dataset", "split").rows()}
        assert signal["n"].unique().to_list() == [8] and len(signal) == 14 * 2 * len(fractions)
        # Eight captions, so eight groups of memes.
        assert set(signal["snr_without"].list.len()) == set(signal["gsnr_without"].list.len()) == {8}
        # No sketch out of domain; occlusion at the last fraction, of the first two of three batches.
        assert whole.drop_nulls("gradient")["dataset"].unique().to_list() == ["memes"]
        checked = rows.drop_nulls("occlusion")
        assert checked["fraction"].unique().to_list() == fractions[-1:]
        assert checked.group_by("dataset", "split").agg(pl.col("id").n_unique())["id"].to_list() == [6] * 3
    base, trained = (extracted[name][0].filter(group="all") for name in ("base", "sft"))
    assert set(base.select("split", "id").rows()) == set(trained.select("split", "id").rows())
    assert (base["log_odds"].mean() - trained["log_odds"].mean()) != 0


def test_occlusion_is_the_policy_s_in_every_batch(study, tmp_path):
    """Also in a job's first one, before anything was asked of the base."""
    folder = tiny_models.folder("qwen2_5_vl")
    base = BaseModelConfig(source="tiny", dtype="float32")
    choose = policies.load(folder, base, "adapter", study["run"]["milestones"], [1.0])
    extractor = Extractor(choose, vlm.load_processor(folder), PROMPT)
    some = memes(tmp_path)
    first, again = (extractor.extract(some, [1.0], checked=True, signal=False)[0] for _ in range(2))
    assert first["occlusion"].null_count() < len(first) and first.equals(again)


def test_sketches_agree_with_the_exact_strengths(extracted):
    """|mean sketch|² against Σḡ² over layers: SIZE 512 keeps squared norms to about 6 %."""
    rows, signal = extracted["sft"]
    for fraction in (0.5, 1.0):
        kept = rows.filter(fraction=fraction, group="all", split="train").drop_nulls("gradient")
        vectors = np.stack(kept["gradient"].to_list()).astype(float)
        exact = signal.filter(fraction=fraction, split="train")
        assert np.square(vectors.mean(0)).sum() == pytest.approx(exact["mean_sq"].sum(), rel=0.35)
        assert vectors.var(0, ddof=1).sum() == pytest.approx(exact["var"].sum(), rel=0.35)


def test_a_killed_job_goes_on(study, extracted, monkeypatch):
    """With its parts on disk the job loads no batch again and writes the same tables."""
    monkeypatch.setattr(Extractor, "split", None)
    rows, signal = extract(study, "base", fractions=[0.0])
    assert rows.equals(extracted["base"][0]) and signal.equals(extracted["base"][1])


def test_full_weights_have_contributions_but_no_factors(study, tmp_path):
    for label in ("0", "0.5", "1"):
        (tmp_path / label).symlink_to(tiny_models.folder("qwen2_5_vl"))
    record = tmp_path / "run.json"
    record.write_text(json.dumps({"kind": "full", "steps": {"0": 0, "0.5": 1, "1": 2}}))
    rows, signal = extract(study, "full", fractions=[0.5, 1.0], milestones=tmp_path, run=record)
    assert len(signal) == 0 and rows["gradient"].null_count() == len(rows)
    assert rows.filter(group="all").group_by("fraction").len()["len"].to_list() == [24, 24]
    assert rows.drop_nulls("occlusion")["fraction"].unique().to_list() == [1.0]
