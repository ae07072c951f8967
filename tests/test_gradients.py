"""The analysis `gradients`: hooks against autograd, sketches and cosines against sums by hand, scripts end to end."""

import importlib.util
import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel, get_peft_model

from memedynamics import (
    forcing,
    gather,
    gradient_cosines,
    gradient_sketches,
    gradients,
    objective_gradients,
    policy_gradients,
    tables,
    vlm,
)
from memedynamics.adapters import peft_config
from memedynamics.answers import Labels
from memedynamics.config import Adapter, BaseModelConfig, Gradients
from memedynamics.decision_gradients import first_tokens
from memedynamics.errors import InputError
from memedynamics.figure_gradients import figure_gradients
from memedynamics.gradient_sketches import Sketch
from memedynamics.objective_gradients import Differentiator, Responded
from memedynamics.objectives import DECISION, ENTROPY, OBJECTIVES, SEQUENCE
from memedynamics.prompts import load_prompt, user_text
from tiny_models import FAMILIES, folder, picture

ROOT = Path(__file__).parents[1]
PROMPT = load_prompt(ROOT / "config/prompts/think_answer.yaml")
TEXTS = {
    "m0": ["<think> a cat </think><answer> No </answer>", "<answer> Yes", "<answer> Yes", "the picture"],
    "m1": ["<think> hateful </think><answer> Yes </answer>", "<answer> No </answer>", "", "No"],
}
END = "<|im_end|>"
NO_RUNS = gather.milestones([])


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"workflow/scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def policy(seed: int, r: int = 2, family: str = "qwen2_5_vl") -> PeftModel:
    """The tiny model under an adapter that is far from its start."""
    model = vlm.load_model(folder(family))
    adapted = get_peft_model(model, peft_config(model, Adapter(r=r)))
    noise = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=noise) * 0.2
    return adapted.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def processor():
    return vlm.load_processor(folder("qwen2_5_vl"))


def tokens(processor, text: str) -> list[int]:
    return processor.tokenizer(text + END, add_special_tokens=False).input_ids


def responded(processor) -> list[Responded]:
    """Two memes, four responses each, one of them twice; random coefficients."""
    random = np.random.default_rng(0)
    return [
        Responded(
            user_text(PROMPT, "hateful", f"caption {n}"),
            picture(n, 56 + 28 * n),
            [tokens(processor, text) for text in texts],
            {name: random.normal(size=4) for name in OBJECTIVES},
        )
        for n, texts in enumerate(TEXTS.values())
    ]


def brute(model: PeftModel, processor, meme: Responded) -> dict[str, torch.Tensor]:
    """Each objective's gradient (adapter's parameters) from one response after the other, whole, by autograd."""
    yes, no = first_tokens(Labels(processor.tokenizer, PROMPT))
    ends = vlm.end_token_ids(model, processor)
    total = dict.fromkeys(OBJECTIVES, 0.0)
    for k, ids in enumerate(meme.token_ids):
        text = forcing.read(0, ids, processor.tokenizer, PROMPT, ends)
        inputs = vlm.encode(processor, [meme.content], [meme.image])
        start = inputs["input_ids"].shape[1]
        fed = torch.tensor([[*ids, *text.fed[len(ids) :]]]) if len(text.fed) > len(ids) else torch.tensor([ids])
        fed = torch.tensor([list(text.fed)]) if text.forced else fed
        inputs["input_ids"] = torch.cat([inputs["input_ids"], fed], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(fed)], 1)
        logits = model(**inputs.to(model.dtype)).logits[0, start - 1 :].float()
        logp = logits[: len(ids)].log_softmax(-1)
        decision = logits[text.decision]
        scalar = {
            SEQUENCE: logp[range(len(ids)), ids].sum(),
            DECISION: decision[yes].logsumexp(0) - decision[no].logsumexp(0),
            ENTROPY: -(logp.exp() * logp).sum(),
        }
        for names, value in scalar.items():
            for name in names:
                total[name] = total[name] + meme.coefficients[name][k] * value
    return total


def test_gradients_are_autograd_s(processor) -> None:
    """Every objective of every meme, both factors of every module: in a padded batch by hooks, and one by one."""
    memes, model = responded(processor), policy(0)
    found = Differentiator(model, processor, PROMPT).gradients(memes)
    factors = {n.replace(".default.weight", ""): p for n, p in vlm.bare(model).named_parameters() if "lora_" in n}
    for parameter in factors.values():
        parameter.requires_grad_(True)
    assert {part.replace("/", ".lora_") for part in found} == set(factors)
    for m, meme in enumerate(memes):
        for name, total in brute(model, processor, meme).items():
            slopes = torch.autograd.grad(total, factors.values(), retain_graph=True)
            for part, slope in zip(factors, slopes, strict=True):
                ours = found[part.replace(".lora_", "/")][m, OBJECTIVES.index(name)]
                torch.testing.assert_close(ours, slope.ravel(), rtol=2e-3, atol=2e-4 * max(1, slope.abs().max().item()))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    """log π of one response, by hooks in a batch and by autograd alone, for every family of models."""
    model, processor = policy(0, family=family), vlm.load_processor(folder(family))
    zero = dict.fromkeys(OBJECTIVES, np.zeros(1))
    contents = [user_text(PROMPT, "hateful", f"caption {n}" * (n + 1)) for n in range(2)]
    ids = [processor.tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS["m0"][:2]]
    asked = [Responded(c, picture(n), [ids[n]], zero | {"rft": np.ones(1)}) for n, c in enumerate(contents)]
    found = Differentiator(model, processor, PROMPT).gradients(asked)
    factors = {name: p.requires_grad_(True) for name, p in vlm.bare(model).named_parameters() if "lora_" in name}
    for n, content in enumerate(contents):
        inputs = forcing.sequences(processor, [content], [picture(n)], [ids[n]])
        logp = vlm.project(model, vlm.hidden_states(model, **inputs, use_cache=False).last_hidden_state).log_softmax(-1)
        total = logp[0, -1 - len(ids[n]) : -1][range(len(ids[n])), ids[n]].sum()
        for name, slope in zip(factors, torch.autograd.grad(total, factors.values()), strict=True):
            ours = found[name.replace(".default.weight", "").replace(".lora_", "/")][n, OBJECTIVES.index("rft")]
            torch.testing.assert_close(ours, slope.ravel(), rtol=2e-3, atol=2e-4 * max(1, slope.abs().max().item()))


def test_half_precision(processor) -> None:
    """Model in bfloat16, factors in float32 as PEFT keeps them: no further from float32 than plain autograd is."""
    memes, model = responded(processor)[:1], policy(0)
    exact = {name: parameter.data.clone() for name, parameter in model.named_parameters() if "lora_" in name}
    whole = Differentiator(model, processor, PROMPT).gradients(memes)
    model.bfloat16()
    for name, parameter in model.named_parameters():
        parameter.data = exact.get(name, parameter.data)
    half = Differentiator(model, processor, PROMPT).gradients(memes)
    named = dict(vlm.bare(model).named_parameters())
    factors = {part: named[f"{part.replace('/', '.lora_')}.default.weight"].requires_grad_() for part in whole}
    for name, total in brute(model, processor, memes[0]).items():
        place, slopes = OBJECTIVES.index(name), torch.autograd.grad(total, factors.values(), retain_graph=True)
        one, ours = (torch.cat([found[part][0, place] for part in factors]) for found in (whole, half))
        plain = torch.cat([slope.ravel() for slope in slopes])
        near = [torch.cosine_similarity(one, other, dim=0) for other in (ours, plain)]
        assert near[0] > near[1] - 0.03


def test_halved_batches_change_nothing(processor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory with more than three responses at once: the same gradients from smaller batches."""
    memes, model = responded(processor), policy(0)
    whole = Differentiator(model, processor, PROMPT).gradients(memes)
    take = Differentiator._take

    def cramped(self: Differentiator, memes: list, rows: list) -> dict:
        if len(rows) > 3:
            raise torch.OutOfMemoryError
        return take(self, memes, rows)

    monkeypatch.setattr(Differentiator, "_take", cramped)
    halved = Differentiator(model, processor, PROMPT).gradients(memes)
    for part, sketches in whole.items():
        torch.testing.assert_close(halved[part], sketches, rtol=1e-3, atol=1e-4)


def test_a_fresh_adapter_has_gradients_in_b_alone(processor) -> None:
    """B = 0 at the start, so A has none; the same adapter each time it is made."""
    one, other = (policy_gradients.fresh(vlm.load_model(folder("qwen2_5_vl")), Adapter(r=2))("0") for _ in range(2))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    found = Differentiator(one, processor, PROMPT).gradients(responded(processor)[:1])
    assert all(sketches.any() == part.endswith("/B") for part, sketches in found.items())
    weights = {n: p.numel() for n, p in one.named_parameters() if "lora_B" in n}
    assert policy_gradients.count_parameters(one, found) == sum(weights.values())


def test_sketches_keep_inner_products() -> None:
    """Two vectors of 20,000 with cosine .6 in 400 sketches of 256: unbiased, spread ≤ √(2/256) = .088; small: exact."""
    random = torch.Generator().manual_seed(0)
    one, noise = torch.randn(2, 20_000, generator=random)
    one, noise = one / one.norm(), noise - (noise @ one / (one @ one)) * one
    pair = torch.stack([one, 0.6 * one + 0.8 * noise / noise.norm()])
    kept = [Sketch(f"part{n}", 20_000, torch.device("cpu"), exact=1000, width=256)(pair) for n in range(400)]
    found = np.array([float(s[0] @ s[1]) for s in kept])
    assert found.mean() == pytest.approx(0.6, abs=4 * 0.088 / 20)
    assert 0.03 < found.std() < 0.088
    again = Sketch("part0", 20_000, torch.device("cpu"), exact=1000, width=256)(pair)
    assert torch.equal(again, kept[0])
    assert torch.equal(Sketch("x", 300, torch.device("cpu"))(pair[:, :300]), pair[:, :300])


def made_up(
    vectors: np.ndarray, p: list[float], fraction: float = 0.0, module: str = "layer"
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(extract rows, memes) of gradients (M, O, d), half of d in each factor."""
    memes = pl.DataFrame({"dataset": "d", "split": "val", "id": [f"m{i:03d}" for i in range(len(p))], "p": p})
    memes = memes.with_columns(text=pl.concat_str(pl.lit("caption "), "id"), label=pl.lit(1, pl.Int8))
    half = vectors.shape[-1] // 2
    parts = {f"{module}/A": vectors[..., :half], f"{module}/B": vectors[..., half:]}
    kept = {name: torch.tensor(v, dtype=torch.float32) for name, v in parts.items()}
    groups = gradient_sketches.groups_of(memes["text"])
    products = gradient_sketches.inner_products(kept, groups)
    return gradient_sketches.frame(products, memes, groups, fraction, vectors.shape[-1]), memes


def analysed(vectors: np.ndarray, p: list[float]) -> pl.DataFrame:
    rows, memes = made_up(vectors, p)
    return gradients.rows(gather.labelled(rows, "base", None), memes, 200)


def picked(frame: pl.DataFrame, one: str, other: str, statistic: str, bin: str = "all", module: str = "all") -> dict:
    pair = pl.col("objective").is_in([one, other]) & pl.col("other").is_in([one, other])
    same = (pl.col("objective") == pl.col("other")) == (one == other)
    wanted = (pl.col("statistic") == statistic) & (pl.col("bin") == bin) & (pl.col("module") == module)
    return frame.filter(pair & same & wanted).to_dicts()[0]


def vectors_of(**rows: list[list[float]]) -> np.ndarray:
    """(M, O, d): the named objectives' vectors, one a meme, the others zero."""
    shape = np.array(next(iter(rows.values()))).shape
    found = np.zeros((shape[0], len(OBJECTIVES), shape[1]))
    for name, values in rows.items():
        found[:, OBJECTIVES.index(name)] = values
    return found


def test_cosines_by_hand() -> None:
    """GRPO (1,0), (1,2), (1,1), EM (1,0), (0,−1), (1,0), p = ¾, ¼, ¾.

    All: (3,3)·(2,−1)/(√18·√5) = 3/√90 = .3162. Below ½: (1,2)·(0,−1)/√5 = −.8944.
    Above: (2,1)·(2,0)/(√5·2) = .8944. Across all: ⟨g_i,h_j⟩, i≠j, = 3 − (1−2+1) = 3; norms 18 − (1+5+2) = 10 and
    5 − 3 = 2, so 3/√20 = .6708. Signs within: + (as the theory), − (as the theory), +: 3 of 3.
    """
    vectors = vectors_of(grpo=[[1, 0], [1, 2], [1, 1]], em_decision=[[1, 0], [0, -1], [1, 0]])
    rows, memes = made_up(vectors, [0.75, 0.25, 0.75])
    products = gradients.read(rows.filter(pl.col("module") == "all"), memes)
    pair = ("grpo", "em_decision")

    def cosine(bin: str, across: bool = False) -> float:
        some = gradients.pairwise(products.of(gradients.BINS[bin](products.p)), across)
        return next(row["value"] for row in some if (row["objective"], row["other"]) == pair)

    assert cosine("all") == pytest.approx(3 / 90**0.5, rel=1e-6)
    assert cosine("below") == pytest.approx(-2 / 5**0.5, rel=1e-6)
    assert cosine("above") == pytest.approx(2 / 5**0.5, rel=1e-6)
    assert cosine("all", across=True) == pytest.approx(3 / 20**0.5, rel=1e-6)
    layer = gradients.read(rows.filter(pl.col("module") == "layer"), memes)
    by_module = next(r for r in gradients.pairwise(layer) if (r["objective"], r["other"]) == pair)
    assert by_module["value"] == pytest.approx(3 / 90**0.5, rel=1e-6)
    # Every pair has a row of the module, GRPO in it or not.
    every = analysed(vectors, [0.75, 0.25, 0.75]).filter(pl.col("module") == "layer")
    assert set(every.select("objective", "other").rows()) == set(combinations(OBJECTIVES, 2))
    found = analysed(vectors, [0.75, 0.25, 0.75])
    assert picked(found, *pair, "sign_agreement") | {"ci_low": 0} == picked(found, *pair, "sign_agreement") | {
        "value": 1.0,
        "n": 3,
        "ci_low": 0,
    }
    assert picked(found, "grpo", "grpo", "norm")["value"] == pytest.approx(18**0.5 / 3, rel=1e-6)
    assert picked(found, "grpo", "grpo", "random_spread")["value"] == pytest.approx(2**-0.5)


def test_jackknife_is_delete_one() -> None:
    """The interval of a cosine, once more with a loop over memes: artanh, t with n − 1 degrees of freedom."""
    random = np.random.default_rng(1)
    one = random.normal(size=(12, 6)) + 1.5
    other = 0.6 * one + random.normal(size=(12, 6))
    row = picked(analysed(vectors_of(grpo=one, dpo=other), [0.75] * 12), "grpo", "dpo", "cosine")

    def cosine(keep: np.ndarray) -> float:
        a, b = one[keep].sum(0), other[keep].sum(0)
        return np.arctanh(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    left = np.array([cosine(np.arange(12) != i) for i in range(12)])
    error = np.sqrt(11 / 12 * ((left - left.mean()) ** 2).sum())
    whole = cosine(np.full(12, True))
    assert row["value"] == pytest.approx(np.tanh(whole), rel=1e-5)
    assert row["ci_low"] == pytest.approx(np.tanh(whole - 2.200985 * error), rel=1e-4)
    assert row["ci_high"] == pytest.approx(np.tanh(whole + 2.200985 * error), rel=1e-4)


def test_equal_captions_are_left_out_together() -> None:
    """Four copies of each of six memes: with their captions equal, the interval is that of the six alone."""
    random = np.random.default_rng(2)
    one, other = random.normal(size=(6, 4)) + 2, random.normal(size=(6, 4)) + 2
    alone = picked(analysed(vectors_of(grpo=one, dpo=other), [0.75] * 6), "grpo", "dpo", "cosine")
    rows, memes = made_up(vectors_of(grpo=np.repeat(one, 4, 0), dpo=np.repeat(other, 4, 0)), [0.75] * 24)
    shared = memes.with_columns(text=pl.Series([f"caption {i // 4}" for i in range(24)]))
    copied = picked(gradients.rows(gather.labelled(rows, "base", None), shared, 50), "grpo", "dpo", "cosine")
    assert alone["ci_low"] < alone["value"] < alone["ci_high"]
    assert copied["ci_low"] == pytest.approx(alone["ci_low"], rel=1e-4)
    assert copied["ci_high"] == pytest.approx(alone["ci_high"], rel=1e-4)


def test_nulls() -> None:
    """Pure noise in 400 dimensions: halves agree by 0 ± a few 1/√400; one shared direction without noise: by 1.

    Two objectives that share the noise of the samples but no direction: cosine near 1, across memes near 0.
    """
    random = np.random.default_rng(3)
    noise, fixed = random.normal(size=(40, 400)), np.tile(random.normal(size=400), (40, 1))
    found = analysed(vectors_of(grpo=noise, dpo=fixed), [0.75] * 40)
    assert abs(picked(found, "grpo", "grpo", "split_half")["value"]) < 4 / 20
    assert picked(found, "dpo", "dpo", "split_half")["value"] == pytest.approx(1, abs=1e-5)
    directions = np.eye(2, 400)[:, None] * 3
    both = vectors_of(grpo=noise + directions[0], dpo=noise + directions[1])
    shared = analysed(both, [0.75] * 40)
    assert picked(shared, "grpo", "dpo", "cosine")["value"] > 0.4
    assert abs(picked(shared, "grpo", "dpo", "cosine_across")["value"]) < 0.15


def test_coverage_of_the_interval() -> None:
    """Of 150 made-up studies of 20 memes the 95 % intervals hold the batch's expected cosine in 88 to 99 %."""
    random = np.random.default_rng(4)
    inside = 0
    many = [
        (random.normal(size=(20, 4)) + [2, 0, 0, 0], random.normal(size=(20, 4)) + [1, 2, 0, 0]) for _ in range(150)
    ]
    means = random.normal(size=(4000, 2, 4)) / 20**0.5 + np.array([[2, 0, 0, 0], [1, 2, 0, 0]])
    truth = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in means])
    for one, other in many:
        inner = np.einsum("uod,vqd->uovq", *[np.stack([one, other], 1)] * 2)
        value = gradient_cosines.cosines(np.ones((1, 20)), inner)[0]
        low, high = gradient_cosines.jackknife(value, gradient_cosines.cosines(1 - np.eye(20), inner), bounded=True)
        inside += low[0, 1] < truth < high[0, 1]
    assert 0.88 < inside / 150 < 0.99


def test_only_cosines_beyond_the_batch_need_halves_that_agree() -> None:
    """GRPO's gradients cancel in pairs (a, −a, …): halves do not agree, so no cosine across memes, but n.

    That of the batch stays: it claims nothing beyond it.

    SFT and DPO share one direction: their halves agree and their cosine stays, 1, in both estimates.
    """
    random = np.random.default_rng(6)
    noise, fixed = random.normal(size=(6, 8)), np.tile(random.normal(size=8), (12, 1))
    noise = np.concatenate([noise, -0.9 * noise])
    found = analysed(vectors_of(grpo=noise, dpo=fixed, sft_chosen=2 * fixed), [0.75] * 12)
    assert picked(found, "grpo", "grpo", "split_half")["ci_low"] < 0
    for bin, module in (("above", "all"), ("all", "layer"), ("all", "all")):
        assert picked(found, "grpo", "dpo", "cosine", bin, module)["value"] is not None
    for bin in ("above", "all"):
        row = picked(found, "grpo", "dpo", "cosine_across", bin)
        assert row["value"] is None and row["ci_low"] is None and row["ci_high"] is None and row["n"] > 0
        assert "grpo is not above 0" in row["missing"]
    for statistic in ("cosine", "cosine_across"):
        row = picked(found, "dpo", "sft_chosen", statistic)
        assert row["value"] == pytest.approx(1) and row["missing"] is None


def test_every_empty_value_has_its_reason() -> None:
    """Of 40 made-up policies with few memes: a value or a reason, never both; no cosine beyond 1."""
    random, reasons = np.random.default_rng(7), set()
    for count in [1, 2, 3, 5, 8] * 8:
        vectors = random.normal(size=(count, len(OBJECTIVES), 3)) + random.normal(size=(len(OBJECTIVES), 3))
        vectors[:, OBJECTIVES.index("grpo")] = 0
        found = gather.finish(analysed(vectors, random.choice([0, 0.25, 0.5, 0.75, 1], count).tolist()), NO_RUNS)
        assert (found["value"].is_null() == found["missing"].is_not_null()).all()
        shown = found.filter(pl.col("statistic").str.starts_with("cosine")).select("value", "ci_low", "ci_high")
        assert all(column.abs().max() is None or column.abs().max() <= 1 for column in shown)
        reasons |= set(found["missing"].drop_nulls())
    named = {gradients.TOO_FEW, gradients.BEYOND, "the squared norm of grpo is not above 0"}
    assert named <= reasons and any("reliability of dpo" in reason for reason in reasons)


def test_sketches_last_a_job(study: Path, processor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches at two milestones: each part's sketch is drawn once, and the products are those of fresh ones."""
    drawn_parts: list[str] = []

    def small(name: str, size: int, device: torch.device) -> Sketch:
        drawn_parts.append(name)
        return Sketch(name, size, device, exact=16, width=32)

    class Forgetful(dict):
        def __contains__(self, part: object) -> bool:
            return False

    monkeypatch.setattr(objective_gradients, "Sketch", small)
    memes = tables.read(study / "data/memes/val.parquet", "data").head(3)
    asked = policy_gradients.prompted(memes, drawn(processor, 1.0, 3), PROMPT, {"memes": "hateful"})
    model = policy(0)

    def taken(sketches: dict) -> list[pl.DataFrame]:
        drawn_parts.clear()
        taker = policy_gradients.Taker(lambda name: model, processor, PROMPT, 0.3, 4, sketches)
        return [taker.take(memes, asked, [[0, 1], [2]], fraction) for fraction in (0.5, 1.0)]

    kept = taken({})
    assert len(drawn_parts) == len(set(drawn_parts)) == len(objective_gradients.parts(model))
    fresh = taken(Forgetful())
    assert len(drawn_parts) >= 4 * len(set(drawn_parts))
    for one, other in zip(kept, fresh, strict=True):
        assert one.equals(other)


def test_bins_without_gradients_are_empty_values() -> None:
    """GRPO learns nothing where all samples are right: the cosine is undefined there, not 0, and n says so."""
    vectors = vectors_of(grpo=[[1, 0], [0, 0]], em_decision=[[1, 0], [1, 1]])
    found = gather.finish(analysed(vectors, [0.5, 1.0]), gather.milestones([]))
    row = picked(found, "grpo", "em_decision", "cosine", "every")
    assert row["value"] is None and row["n"] == 0
    assert {"half", "every", "all"} == set(found["bin"])


def test_reduction_needs_no_torch() -> None:
    """Neither the script nor what it imports."""
    code = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('g', '../workflow/scripts/gradients.py');"
        "m = u.module_from_spec(s); s.loader.exec_module(m); sys.exit('torch' in sys.modules)"
    )
    path = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "tests", env=path)


def drawn(processor, fraction: float, memes: int) -> pl.DataFrame:
    """Samples in their schema: TEXTS of either meme in turn, answers and numbers made up."""
    rows = []
    for m in range(memes):
        for k, text in enumerate(TEXTS[f"m{m % 2}"]):
            correct = (m + k) % 3 == 0
            rows.append(
                {
                    "study": "s", "fraction": fraction, "dataset": "memes", "split": "val", "id": f"m{m}", "sample": k,
                    "token_ids": tokens(processor, text), "tokens": "drawn", "text": text, "finish_reason": "stop",
                    "logp": -3.0 - k, "answer": "yes", "format_ok": k < 3, "correct": correct, "reward": float(correct),
                    "p_hateful": 0.2 + 0.15 * k, "label_mass": 0.9, "forced": False,
                }
            )  # fmt: skip
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, processor) -> Path:
    """Four val memes, base samples, one run of two milestones, and one of full weights."""
    root = tmp_path_factory.mktemp("study")
    memes = []
    for m in range(4):
        picture(m).save(root / f"m{m}.png")
        named = {"study": "s", "dataset": "memes", "split": "val", "id": f"m{m}", "text": f"c {m}", "label": m % 2}
        image = {"image": str(root / f"m{m}.png"), "image_sha256": "0", "width": 56, "height": 56}
        memes.append({**named, **image, "groups": []})
    data = pl.DataFrame(memes, schema_overrides={"groups": pl.List(pl.String)})
    tables.write(data, root / "data/memes/val.parquet", "data")
    tables.write(drawn(processor, 0.0, 4), root / "samples/base/memes/val.parquet", "samples")
    own = pl.concat([drawn(processor, f, 4) for f in (0.5, 1.0)])
    for method, kind in (("sft", "adapter"), ("whole", "full")):
        tables.write(own, root / f"samples/{method}/seed1.parquet", "samples")
        run = root / f"runs/{method}/seed1"
        run.mkdir(parents=True)
        steps = {"0": 0, "0.5": 4, "1": 8}
        (run / "run.json").write_text(json.dumps({"kind": kind, "reference": "base", "steps": steps}))
    for seed, name in enumerate(("0.5", "1")):
        policy(seed).save_pretrained(root / f"runs/sft/seed1/milestones/{name}")
    return root


def extract(study: Path, work: Path, method: str) -> Path:
    out = study / f"extracts/gradients/{method}/seed{0 if method == 'base' else 1}.parquet"
    run = study / f"runs/{method}/seed1"
    its = {"milestones": run / "milestones", "run": run / "run.json", "own": study / f"samples/{method}/seed1.parquet"}
    script("extract_gradients").main(
        model=folder("qwen2_5_vl"), data=[study / "data/memes/val.parquet"],
        base_samples=[study / "samples/base/memes/val.parquet"], extract=out,
        base=BaseModelConfig(source="tiny", dtype="float32"), prompt=PROMPT, questions={"memes": "hateful"},
        settings=Gradients(memes=3, batch_size=2), adapter=Adapter(r=2), sampling_seed=0, beta=0.3, group=4,
        fractions=[0.0] if method == "base" else [0.0, 0.5, 1.0], in_domain="memes", threads=1, work=work,
        **({} if method == "base" else its),
    )  # fmt: skip
    return out


def test_scripts_end_to_end(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base, a run and full weights, reduced and drawn; a second call of a job takes no gradients again."""
    extracts = [extract(study, tmp_path / method, method) for method in ("base", "sft", "whole")]
    first = tables.read(extracts[1], "extract_gradients")
    assert set(first["fraction"]) == {0.5, 1.0} and first["parameters"].min() > 0
    base = tables.read(extracts[0], "extract_gradients")
    ids = [set(frame.filter(pl.col("module") == "all")["id"]) for frame in (base, first)]
    assert ids[0] == ids[1] and len(ids[0]) == 3
    assert base["parameters"][0] < first["parameters"][0]
    monkeypatch.setattr(policy_gradients.Taker, "take", None)
    extract(study, tmp_path / "sft", "sft")
    assert tables.read(extracts[1], "extract_gradients").equals(first)

    table, runs = study / "gradients.parquet", [study / f"runs/{m}/seed1/run.json" for m in ("sft", "whole")]
    script("gradients").main(extracts, runs, [study / "data/memes/val.parquet"], table, 50)
    found = tables.read(table, "gradients")
    missing = found.filter(pl.col("method") == "whole")
    assert missing["value"].null_count() == len(missing) == 2 and "full weights" in missing["missing"][0]
    values = found.filter(pl.col("statistic") == "cosine")["value"].drop_nulls()
    assert len(values) and values.abs().max() <= 1 + 1e-6
    script("figure_gradients").main(table, study / "gradients.html", [])
    assert "full weights have no adapter" in (study / "gradients.html").read_text()


def test_margin_of_pairs_uses_the_reference(study: Path, processor) -> None:
    """DPO's log-ratio of a pair is log π/π0, chosen minus rejected, π from the stored numbers, π0 the adapter off."""
    adapted = policy(0)

    def choose(name: str | None) -> PeftModel:
        adapted.base_model.disable_adapter_layers() if name is None else adapted.base_model.enable_adapter_layers()
        return adapted

    memes = tables.read(study / "data/memes/val.parquet", "data")
    asked = policy_gradients.prompted(memes, drawn(processor, 1.0, 4), PROMPT, {"memes": "hateful"})
    taker = policy_gradients.Taker(choose, processor, PROMPT, 0.3, 4)
    images = [policy_gradients.open_image(one.image) for one in asked]
    found = taker._log_ratios(asked, images)
    for one, image, value in zip(asked, images, found, strict=True):
        if one.pair is None:
            assert value == 0
            continue
        zero = dict.fromkeys(OBJECTIVES, np.zeros(1))
        total = 0.0
        for row, sign in zip(one.pair, (1, -1), strict=True):
            only = Responded(one.content, image, [one.rows["token_ids"][row].to_list()], zero | {"rft": np.ones(1)})
            with torch.no_grad():
                total += sign * (one.rows["logp"][row] - float(brute(choose(None), processor, only)["rft"]))
        assert value == pytest.approx(total, abs=1e-4)
    assert any(one.pair for one in asked)


def test_bad_extracts_are_refused(tmp_path: Path) -> None:
    """NaN in a product, a product too few: file and column named."""
    rows, memes = made_up(np.ones((3, len(OBJECTIVES), 2)), [0.5, 0.25, 0.75])
    nan = pl.col("inner").list.eval(pl.element() * float("nan"))
    for wrong, message in ((nan, "NaN or infinite"), (pl.col("inner").list.head(3), "not one product a row")):
        with pytest.raises(InputError, match=f"seed1.parquet, column inner: {message}"):
            gradients.checked(rows.with_columns(wrong), tmp_path / "grpo/seed1.parquet")
    assert gradients.checked(rows, tmp_path).equals(rows)


def test_memes_must_be_answered(study: Path, processor) -> None:
    """No val meme with samples at every milestone: named, with what to do."""
    data = tables.read(study / "data/memes/val.parquet", "data")
    with pytest.raises(InputError, match="no val meme of memes is answered at every milestone"):
        policy_gradients.choose_memes(data, drawn(processor, 0.5, 4), [0.5, 1.0], 3, 0, "memes")


def test_figure_has_every_panel(study: Path) -> None:
    """Five seeds of four methods with long names, and with none at all but the base."""
    random = np.random.default_rng(5)
    p = [0.25, 0.75, 0.5, 1.0] * 4
    frames = []
    for method, seeds in (("base", [None]), ("sft", [1, 2]), ("a-very-long-method-name", [1, 2, 3, 4, 5])):
        for seed in seeds:
            for fraction in [0.0] if method == "base" else [0.5, 1.0]:
                rows, memes = made_up(random.normal(size=(16, len(OBJECTIVES), 8)) + 0.3, p, fraction)
                frames.append(gradients.rows(gather.labelled(rows, method, seed), memes, 20))
    table = gather.finish(pl.concat(frames), gather.milestones([]))
    for frame in (table, table.filter(pl.col("method") == "base")):
        figure = figure_gradients(frame.with_columns(study=pl.lit("s")))
        titles = " ".join(a.text for a in figure.layout.annotations)
        assert all(f"<b>{letter}</b>" in titles for letter in "abcdef")
