"""Scoring against brute force: every number of `traces` and `responses` once more, from whole sequences in float64."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel, get_peft_model
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from memedynamics import answers, policies, score_plan, tables, vlm
from memedynamics.adapters import peft_config
from memedynamics.answers import Labels
from memedynamics.config import Adapter, BaseModelConfig, Scoring
from memedynamics.errors import InputError
from memedynamics.forcing import plain, read, shared
from memedynamics.prompts import load_prompt, user_text
from memedynamics.scoring import Meme, Scorer
from tiny_models import folder, picture

SPEC = importlib.util.spec_from_file_location("score", Path(__file__).parents[1] / "workflow/scripts/score.py")
score = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(score)
PROMPT = load_prompt(Path(__file__).parents[1] / "config/prompts/think_answer.yaml")
BASE = BaseModelConfig(source="demo", dtype="float32")
PROBES = [
    *(("probe_kind", pl.String), ("dataset", pl.String), ("split", pl.String), ("id", pl.String), ("sample", pl.Int16)),
    *(("token_ids", pl.List(pl.Int32)), ("correct", pl.Boolean), ("format_ok", pl.Boolean)),
    ("reward", pl.Float64),
]
FRACTIONS = [0.25, 1.0]
SIZES = {"m0": (56, 56), "m1": (84, 28), "m2": (28, 56)}
# (text, ends with the end token, correct, well-formed); the second of m0 is cut, the third has no answer block,
# the last of m1 stops inside its answer tag; m1 repeats a response; m2 gives no pair.
RESPONSES = {
    "m0": [
        ("<think> a cat greets everyone </think><answer> No </answer>", True, True, True),
        ("<think> the picture shows a cat and a cat and", False, False, False),
        ("the picture", True, False, False),
        ("<think> a cat </think><answer> Yes </answer>", True, False, True),
    ],
    "m1": [
        ("<think> hateful </think><answer> Yes </answer>", True, True, True),
        ("<think> hateful </think><answer> Yes </answer>", True, True, True),
        ("", True, False, False),
        ("<think> hm </think><answer>", False, False, False),
    ],
    "m2": [("<answer> yes", False, False, False), ("No", True, False, False)],
}


def randomised(model: PeftModel, seed: int) -> PeftModel:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model


@pytest.fixture(scope="module")
def milestones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One adapter a fraction, far enough from the base to tell all numbers apart."""
    root = tmp_path_factory.mktemp("milestones")
    for seed, fraction in enumerate(FRACTIONS):
        model = vlm.load_model(folder("qwen2_5_vl"))
        adapted = get_peft_model(model, peft_config(model, Adapter(r=4)))
        randomised(adapted, seed).save_pretrained(root / f"{fraction:g}")
    return root


@pytest.fixture(scope="module")
def whole(milestones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same policies as full weights."""
    root = tmp_path_factory.mktemp("whole")
    for fraction in FRACTIONS:
        merged = policy(milestones, fraction).merge_and_unload()
        merged.save_pretrained(root / f"{fraction:g}")
    return root


def policy(milestones: Path, fraction: float) -> PeftModel:
    return PeftModel.from_pretrained(vlm.load_model(folder("qwen2_5_vl")), milestones / f"{fraction:g}").eval()


@pytest.fixture(scope="module")
def processor():
    return vlm.load_processor(folder("qwen2_5_vl"))


@pytest.fixture(scope="module")
def probes(processor) -> pl.DataFrame:
    end = processor.tokenizer.eos_token_id
    rows = [
        ("base_sample", "memes", "val", id, n, processor.tokenizer(text).input_ids + [end] * stop, correct, ok, reward)
        for id, responses in RESPONSES.items()
        for n, (text, stop, correct, ok) in enumerate(responses)
        for reward in [0.9 * correct + 0.1 * ok]
    ]
    return pl.DataFrame(rows, schema=PROBES, orient="row")


def memes(probes: pl.DataFrame) -> list[Meme]:
    rows = score_plan.with_pairs(probes).partition_by("id", maintain_order=True)
    content = user_text(PROMPT, "hateful", "hello")
    return [
        Meme(content + " again" * n, picture(n, *size), one)
        for n, (size, one) in enumerate(zip(SIZES.values(), rows, strict=True))
    ]


def scorer(choose: policies.Choose, processor, chunk: int = 7, **options) -> Scorer:
    return Scorer(choose, processor, PROMPT, Labels(processor.tokenizer, PROMPT), chunk, **options)


@pytest.fixture(scope="module")
def scored(milestones: Path, processor, probes: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    choose = policies.load(folder("qwen2_5_vl"), BASE, "adapter", milestones, FRACTIONS)
    return scorer(choose, processor).score(memes(probes), FRACTIONS)


class Brute:
    """Each response alone behind its prompt, no padding, no cache; two models; everything in float64."""

    def __init__(self, milestones: Path, fraction: float, processor) -> None:
        self.base, self.policy = vlm.load_model(folder("qwen2_5_vl")).double(), policy(milestones, fraction).double()
        self.processor, self.labels = processor, Labels(processor.tokenizer, PROMPT)

    @torch.inference_mode()
    def logits(self, model, meme: Meme, fed: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (1 + R, V) from the prompt's last token on, and the states before the head."""
        inputs = vlm.encode(self.processor, [meme.content], [meme.image])
        tokens = torch.tensor([fed], dtype=torch.long)
        start = inputs["input_ids"].shape[1] - 1
        inputs["input_ids"] = torch.cat([inputs["input_ids"], tokens], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(tokens)], dim=1)
        out = model(**inputs.to(dtype=torch.float64), output_hidden_states=True)
        return out.logits[0, start:], out.hidden_states[-1][0, start:]

    def response(self, meme: Meme, tokens: list[int]) -> dict[str, np.ndarray]:
        (policy, states), (base, _) = (self.logits(m, meme, tokens) for m in (self.policy, self.base))
        at = torch.tensor(tokens)[:, None]
        logp, logq = policy[:-1].log_softmax(-1), base[:-1].log_softmax(-1)
        p, q = logp.exp(), logq.exp()
        found = {
            "logp": logp.gather(-1, at)[:, 0],
            "ref_logp": logq.gather(-1, at)[:, 0],
            "kl_forward": (q * (logq - logp)).sum(-1),
            "kl_reverse": (p * (logp - logq)).sum(-1),
            "entropy": -(p * logp).sum(-1),
            "acceptance": torch.minimum(p, q).sum(-1),
            "rank": (logp > logp.gather(-1, at)).sum(-1),
        }
        return {name: value.numpy() for name, value in found.items()} | {"sum": states[:-1].sum(0).numpy()}

    def decision(self, model, meme: Meme, tokens: list[int]) -> tuple[float, float]:
        """(p_hateful, label_mass): every spelling's own probability, one forward pass each."""
        before, _ = answers.context(tokens, self.processor.tokenizer, PROMPT, {self.processor.tokenizer.eos_token_id})
        mass = {True: 0.0, False: 0.0}
        for spelling, is_yes in zip(self.labels.spellings, self.labels.is_yes.tolist(), strict=True):
            logits, _ = self.logits(model, meme, [*before, *spelling])
            logp = logits[len(before) : -1].log_softmax(-1)
            mass[is_yes] += logp[range(len(spelling)), spelling].sum().exp().item()
        return mass[True] / (mass[True] + mass[False]), mass[True] + mass[False]


@pytest.fixture(scope="module", params=FRACTIONS)
def brute(request, milestones: Path, processor) -> tuple[float, Brute]:
    return request.param, Brute(milestones, request.param, processor)


def test_every_position_equals_brute_force(brute, scored, probes: pl.DataFrame):
    fraction, by_hand = brute
    traces = scored[0].filter(pl.col("fraction") == fraction)
    for meme in memes(probes):
        for row in meme.rows.iter_rows(named=True):
            found = traces.filter(id=row["id"], sample=row["sample"])
            expected = by_hand.response(meme, row["token_ids"])
            assert found["token_id"].to_list() == row["token_ids"]
            assert found["position"].to_list() == list(range(len(row["token_ids"])))
            for column in ("logp", "ref_logp", "kl_forward", "kl_reverse", "entropy", "acceptance"):
                np.testing.assert_allclose(found[column], expected[column], atol=2e-5, rtol=1e-4, err_msg=column)
            assert found["rank"].to_list() == expected["rank"].tolist()


def test_every_response_equals_brute_force(brute, scored, probes: pl.DataFrame):
    fraction, by_hand = brute
    responses = scored[1].filter(pl.col("fraction") == fraction)
    for meme in memes(probes):
        for row in meme.rows.iter_rows(named=True):
            (found,) = responses.filter(id=row["id"], sample=row["sample"]).iter_rows(named=True)
            expected = by_hand.response(meme, row["token_ids"])
            for column in ("logp", "ref_logp", "kl_forward", "kl_reverse"):
                assert found[column] == pytest.approx(expected[column].sum(), abs=1e-4), column
            p_hateful, mass = by_hand.decision(by_hand.policy, meme, row["token_ids"])
            assert found["p_hateful"] == pytest.approx(p_hateful, abs=1e-5)
            assert found["label_mass"] == pytest.approx(mass, rel=1e-4)
            assert found["ref_p_hateful"] == pytest.approx(
                by_hand.decision(by_hand.base, meme, row["token_ids"])[0], abs=1e-5
            )
            assert found["num_tokens"] == len(row["token_ids"])


def test_ches_stands_on_chosen_responses_of_pairs(brute, scored, probes: pl.DataFrame):
    """Pairs: m0 sample 0 over 3 (well-formed but wrong), m1 sample 0 over 2 (badly formed); m2 has none."""
    fraction, by_hand = brute
    found = scored[1].filter(pl.col("fraction") == fraction, pl.col("ches").is_not_null())
    assert found.select("id", "sample").rows() == [("m0", 0), ("m1", 0)]
    for meme, chosen, rejected, value in zip(memes(probes)[:2], (0, 0), (3, 2), found["ches"], strict=True):
        plus, minus = (by_hand.response(meme, meme.rows["token_ids"][n].to_list())["sum"] for n in (chosen, rejected))
        assert value == pytest.approx(plus @ minus - plus @ plus, rel=1e-4)


def test_logp_and_entropy_equal_trls(brute, scored, probes: pl.DataFrame):
    """TRL's own functions on whole-sequence logits."""
    fraction, by_hand = brute
    meme = memes(probes)[0]
    tokens = meme.rows["token_ids"][0].to_list()
    logits = by_hand.logits(by_hand.policy, meme, tokens)[0][:-1].float()
    found = scored[0].filter(fraction=fraction, id="m0", sample=0)
    logp = selective_log_softmax(logits, torch.tensor(tokens))
    np.testing.assert_allclose(found["logp"].sum(), logp.sum().item(), atol=1e-4)
    np.testing.assert_allclose(found["entropy"], entropy_from_logits(logits), atol=2e-5)


def test_spans_add_up(scored):
    traces, responses = scored
    keys = ["fraction", "probe_kind", "id", "sample"]
    by_span = traces.group_by(*keys, "span").agg(pl.col("kl_forward", "kl_reverse").cast(pl.Float64).sum())
    total = by_span.group_by(keys).agg(pl.col("kl_forward", "kl_reverse").sum()).sort(keys)
    whole = responses.sort(keys)
    np.testing.assert_allclose(total["kl_forward"], whole["kl_forward"], rtol=1e-9)
    np.testing.assert_allclose(total["kl_reverse"], whole["kl_reverse"], rtol=1e-9)
    spans = traces.filter(fraction=1.0, id="m0", sample=0)["span"].to_list()
    assert spans[-1] == "end" and set(spans) == {"format", "rationale", "answer", "end"}


def test_forced_where_there_is_no_answer_block(scored):
    forced = scored[1].filter(fraction=1.0).select("id", "sample", "forced")
    found = forced.filter("forced").select("id", "sample").rows()
    assert found == [("m0", 1), ("m0", 2), ("m1", 2), ("m2", 1)]


def test_equal_responses_have_equal_numbers(scored):
    one, other = (scored[0].filter(id="m1", sample=n).drop("sample") for n in (0, 1))
    assert one.equals(other)


def test_chunks_and_batches_change_nothing(milestones: Path, processor, probes: pl.DataFrame, scored):
    choose = policies.load(folder("qwen2_5_vl"), BASE, "adapter", milestones, FRACTIONS)
    once = [scorer(choose, processor, chunk=1000).score([meme], FRACTIONS) for meme in memes(probes)]
    keys = ["fraction", "id", "sample"]
    for place, extra in enumerate([["position"], []]):
        alone = pl.concat([frames[place] for frames in once]).sort(*keys, *extra)
        together = scored[place].sort(*keys, *extra)
        for column in ("logp", "kl_forward", "kl_reverse"):
            np.testing.assert_allclose(alone[column], together[column], atol=2e-5, rtol=1e-4)


def test_full_weights_equal_their_adapters(whole: Path, processor, probes: pl.DataFrame, scored):
    choose = policies.load(folder("qwen2_5_vl"), BASE, "full", whole, FRACTIONS)
    found = [scorer(choose, processor).score(memes(probes), [fraction]) for fraction in FRACTIONS]
    for place in (0, 1):
        frame = pl.concat([frames[place] for frames in found])
        for column in ("logp", "ref_logp", "kl_forward", "kl_reverse"):
            np.testing.assert_allclose(frame[column], scored[place][column], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_a_run_against_its_start(kind: str, milestones: Path, whole: Path, processor, probes, tmp_path, monkeypatch):
    """As its fraction 0 asked for by name; of full weights the start is loaded once, and no base beside it."""
    root, loads, load_model = {"adapter": milestones, "full": whole}[kind], [], vlm.load_model
    for name, fraction in (("0", FRACTIONS[0]), ("1", FRACTIONS[1])):
        (tmp_path / name).symlink_to(root / f"{fraction:g}")
    monkeypatch.setattr(vlm, "load_model", lambda path, *rest: loads.append(path.name) or load_model(path, *rest))
    choose = policies.against_start(folder("qwen2_5_vl"), BASE, kind, tmp_path, [1.0])
    for _ in range(2):
        found = scorer(choose, processor).score(memes(probes), [1.0])
    assert len(loads) == (1 if kind == "adapter" else 2)
    ours, theirs = (policies.load(folder("qwen2_5_vl"), BASE, kind, tmp_path, [0.0, 1.0]) for _ in range(2))
    expected = scorer(lambda name: ours(name) if name else theirs("0"), processor).score(memes(probes), [1.0])
    for frame, other in zip(found, expected, strict=True):
        for column in ("logp", "ref_logp", "kl_forward", "kl_reverse"):
            np.testing.assert_allclose(frame[column], other[column], atol=1e-6)


def test_noise_floor_of_the_base(processor, probes: pl.DataFrame, scored):
    """The base against itself through whole sequences: rounding, and nothing else."""
    choose = policies.load(folder("qwen2_5_vl"), BASE, "base", None, [0.0])
    traces, responses = scorer(choose, processor, plainly=True).score(memes(probes), [0.0])
    assert traces["kl_forward"].max() < 1e-7 and traces["kl_reverse"].max() < 1e-7
    np.testing.assert_allclose(traces["logp"], scored[0].filter(fraction=1.0)["ref_logp"], atol=2e-5)
    np.testing.assert_allclose(responses["p_hateful"], responses["ref_p_hateful"], atol=1e-6)
    assert (traces["acceptance"] > 1 - 1e-5).all()


def test_a_policy_that_is_the_reference_scores_exactly_zero(processor, probes: pl.DataFrame):
    choose = policies.load(folder("qwen2_5_vl"), BASE, "base", None, [0.0])
    traces, responses = scorer(choose, processor).score(memes(probes), [0.0])
    assert traces["kl_forward"].max() == 0 and traces["kl_reverse"].max() == 0 and traces["acceptance"].min() == 1
    assert responses["p_hateful"].equals(responses["ref_p_hateful"].rename("p_hateful"))


def test_the_two_code_paths_agree(processor, probes: pl.DataFrame):
    model, labels = vlm.load_model(folder("qwen2_5_vl")), Labels(processor.tokenizer, PROMPT)
    batch = memes(probes)
    ends = vlm.end_token_ids(model, processor)
    texts = [
        read(n, tokens, processor.tokenizer, PROMPT, ends)
        for n, meme in enumerate(batch)
        for tokens in meme.rows["token_ids"].to_list()
    ]
    contents, images = [meme.content for meme in batch], [meme.image for meme in batch]
    one = shared(model, vlm.encode(processor, contents, images), texts, labels)
    other = plain(model, processor, contents, images, texts, labels)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def study(milestones: Path, probes: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A job of scripts/score.py on disk, outputs aside: own samples are the probes' m0 at fraction 1."""
    root = tmp_path_factory.mktemp("study")
    for n, (id, size) in enumerate(SIZES.items()):
        picture(n, *size).save(root / f"{id}.png")
    data = [
        ("memes", "val", id, f"{root}/{id}.png", "0", *size, "hello", n % 2, [])
        for n, (id, size) in enumerate(SIZES.items())
    ]
    names = ["dataset", "split", "id", "image", "image_sha256", "width", "height", "text", "label", "groups"]
    tables.write(pl.DataFrame(data, schema=names, orient="row"), root / "data.parquet", "data")
    tables.write(probes, root / "probes.parquet", "probes")
    graded = {"logp": 0.0, "reward": 0.0, "p_hateful": 0.5, "label_mass": 1.0, "forced": False}
    words = {"text": pl.lit(""), "finish_reason": pl.lit("stop"), "answer": pl.lit("no"), "tokens": pl.lit("drawn")}
    own = probes.filter(id="m0").drop("probe_kind").with_columns(fraction=1.0, **words, **graded)
    tables.write(own, root / "own.parquet", "samples")
    record = {"kind": "adapter", "steps": {"0": 0, "0.25": 2, "1": 8}}
    (root / "run.json").write_text(json.dumps(record))
    return {
        **{"model": folder("qwen2_5_vl"), "milestones": milestones, "run": root / "run.json"},
        **{"data": [root / "data.parquet"], "probes": root / "probes.parquet", "own": root / "own.parquet"},
        **{"base": BASE, "prompt": PROMPT, "questions": {"memes": "hateful"}, "scoring": Scoring(batch_size=2)},
        **{"fractions": [0.0, 0.0625, *FRACTIONS], "pair_rule": "paired", "threads": 1},
    }


def job(study: dict, root: Path, shard: str = "1-of-1", **changes: object) -> tuple[pl.DataFrame, pl.DataFrame]:
    outputs = {name: root / f"{name}.{shard}.parquet" for name in ("traces", "responses")}
    score.main(**study | {"scatteritem": shard, "work": root / f"work.{shard}", **outputs, **changes})
    return tuple(tables.read(path, name) for name, path in outputs.items())


def test_pairs_follow_the_studys_rule(probes: pl.DataFrame):
    """m0: sample 3 is well-formed but wrong, sample 2 has the lowest reward; m1: 2 badly formed, 3 lowest."""
    reward = pl.when(pl.col("sample") == pl.when(pl.col("id") == "m0").then(2).otherwise(3)).then(-1.0).otherwise(0.0)
    graded = probes.with_columns(reward=reward)
    for rule, rejected in (("paired", {"m0": 3, "m1": 2}), ("seed", {"m0": 2, "m1": 3})):
        (fixed, *_) = score_plan.passes(graded, None, [1.0], True, rule)
        found = fixed.rows.filter(pl.col("rejected_sample").is_not_null())
        assert dict(found.select("id", "rejected_sample").unique().iter_rows()) == rejected, rule


def test_a_job_takes_the_rule_from_its_study(study, tmp_path: Path):
    """The first rejected response by either rule differs for m0, and so does the CHES of its chosen one."""
    found = [job(study, tmp_path / rule, pair_rule=rule)[1].drop_nulls("ches") for rule in ("paired", "seed")]
    ches = [frame.filter((pl.col("id") == "m0") & (pl.col("fraction") == 1))["ches"].to_list() for frame in found]
    assert ches[0] != ches[1]


def test_a_job_scores_probes_and_own_samples(study, scored, tmp_path: Path):
    traces, responses = job(study, tmp_path)
    counts = responses.group_by("fraction", "probe_kind").len().sort("fraction", "probe_kind").rows()
    assert counts == [(0.25, "base_sample", 10), (1.0, "base_sample", 10), (1.0, "own_sample", 4)]
    assert responses.filter(probe_kind="own_sample")["ches"].null_count() == 4
    by_row = responses.group_by("probe_kind", "fraction", "id", "sample").agg(pl.col("num_tokens").sum())
    assert by_row["num_tokens"].sum() == len(traces)
    own, fixed = (traces.filter(probe_kind=kind, fraction=1.0, id="m0") for kind in ("own_sample", "base_sample"))
    np.testing.assert_allclose(own["logp"], fixed["logp"], atol=1e-5)


def test_shards_share_the_batches_of_a_job(study, tmp_path: Path):
    whole = job(study, tmp_path)
    shards = [job(study, tmp_path, name) for name in ("1-of-2", "2-of-2")]
    for place in (0, 1):
        assert pl.concat([shard[place] for shard in shards]).equals(whole[place])
        assert min(len(shard[place]) for shard in shards) > 0


def test_a_killed_job_keeps_its_batches(study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = job(study, tmp_path / "whole")
    scored, real = [], Scorer.score

    def dies_at_third(self: Scorer, memes: list[Meme], fractions: list[float]) -> tuple:
        scored.append(len(memes))
        if len(scored) == 3:
            raise KeyboardInterrupt
        return real(self, memes, fractions)

    monkeypatch.setattr(Scorer, "score", dies_at_third)
    with pytest.raises(KeyboardInterrupt):
        job(study, tmp_path / "killed")
    assert not (tmp_path / "killed" / "traces.1-of-1.parquet").exists()
    again = job(study, tmp_path / "killed")
    assert len(scored) == 4  # two before the kill, the one that was killed, and that one again
    assert all(one.equals(other) for one, other in zip(again, whole, strict=True))


def test_out_of_memory_halves_the_batch(study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole, real = job(study, tmp_path / "whole"), Scorer.measure

    def holds_one(self: Scorer, memes: list[Meme], *given: object) -> list:
        if len(memes) > 1:
            raise torch.OutOfMemoryError
        return real(self, memes, *given)

    monkeypatch.setattr(Scorer, "measure", holds_one)
    halved = job(study, tmp_path / "halved")
    keys = ["fraction", "probe_kind", "id", "sample"]
    np.testing.assert_allclose(*(one.sort(keys)["kl_forward"] for one in (halved[1], whole[1])), atol=1e-4)
    assert halved[0].select(keys).equals(whole[0].select(keys))


def test_the_base_is_scored_at_fraction_0(study, tmp_path: Path):
    none = dict.fromkeys(("milestones", "run", "own"))
    _, responses = job(study, tmp_path, **none, fractions=[0.0])
    assert responses["fraction"].unique().to_list() == [0.0] and len(responses) == 10
    assert responses["kl_forward"].max() < 1e-6


def test_full_weights_as_a_job(study, whole: Path, tmp_path: Path):
    (tmp_path / "run.json").write_text(json.dumps({"kind": "full", "steps": {"0.25": 2, "1": 8}}))
    full = job(study, tmp_path / "full", milestones=whole, run=tmp_path / "run.json")[1]
    adapted = job(study, tmp_path / "adapted")[1]
    keys = ["fraction", "probe_kind", "id", "sample"]
    np.testing.assert_allclose(*(frame.sort(keys)["kl_forward"] for frame in (full, adapted)), atol=1e-4, rtol=1e-4)


def test_a_scored_meme_without_data(study, tmp_path: Path):
    data = tables.read(study["data"][0], "data").filter(pl.col("id") != "m1")
    tables.write(data, tmp_path / "data.parquet", "data")
    with pytest.raises(InputError, match="memes/val/m1"):
        job(study, tmp_path, data=[tmp_path / "data.parquet"])
