"""The analysis `likelihood`: numbers by hand, TRL's own rewards, scipy's correlation, a made-up study end to end."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats

import synthetic
import tiny_models
import tiny_study
from memedynamics import gather, likelihood, likelihood_changes, policies, stats, tables, vlm
from memedynamics.answers import Labels
from memedynamics.config import BaseModelConfig
from memedynamics.errors import InputError
from memedynamics.figure_likelihood import figure_likelihood
from memedynamics.images import open_image
from memedynamics.likelihood_changes import PREDICTORS, TEXTS
from memedynamics.rank_correlation import spearman
from memedynamics.scoring import Meme, Scorer

SCRIPTS = Path(__file__).parents[1] / "workflow/scripts"
MEMES = list("abcdef")
PROMPTS = pl.DataFrame({"dataset": "d", "split": "val", "id": MEMES, "label": 1, "text": MEMES})
RUNS = pl.DataFrame(
    {"method": ["dpo", "sft", "base"], "seed": [1, 1, None], "fraction": [1.0, 1.0, 0.0], "step": [9, 9, 0]},
    schema_overrides={"seed": pl.Int32},
).with_columns(reference=pl.lit("base"), loss_reference=pl.lit("base"))


def scored(method: str, rows: list[tuple], tokens: int = 4) -> pl.DataFrame:
    """What `per_text` reads of one run: rows of (meme, text, log π, log π0), the text's kind in place of a probe's."""
    seed, fraction = (None, 0.0) if method == "base" else (1, 1.0)
    frame = pl.DataFrame(rows, schema=["id", "text", "logp", "ref_logp"], orient="row").with_columns(
        dataset=pl.lit("d"), split=pl.lit("val"), fraction=pl.lit(fraction), num_tokens=pl.lit(tokens),
        logp=pl.col("logp").cast(pl.Float64), probe_kind=pl.col("text"), sample=pl.lit(0, pl.Int16),
        **{name: pl.lit(0.0) for name in PREDICTORS},
    )  # fmt: skip
    return gather.labelled(frame.drop("text"), method, seed)


def wanted(responses: pl.DataFrame, types: dict[str, str] | None = None) -> pl.DataFrame:
    """All texts of `responses`; pair_type by meme, wrong_answer where `types` has none."""
    keys = responses.select("probe_kind", *gather.MEME, "sample").unique()
    kind = pl.col("id").replace_strict(types or {}, default="wrong_answer", return_dtype=pl.String)
    return keys.with_columns(text="probe_kind", pair_type=kind)


def analysed(
    *responses: pl.DataFrame, beta: dict | None = None, types: dict | None = None, resamples: int = 20,
    runs: pl.DataFrame = RUNS,
) -> pl.DataFrame:  # fmt: skip
    frame = pl.concat(responses)
    measured = likelihood_changes.per_text(frame, wanted(frame, types))
    scale = likelihood_changes.scales(runs, {"dpo": 0.1} if beta is None else beta, ["dpo"])
    return likelihood.measure(measured, scale, PROMPTS, runs, resamples)


def value(table: pl.DataFrame, text: str, statistic: str, **where: object) -> float:
    where = {"pair_type": "all", "method": "dpo", **where}
    found = table.filter(pl.col("versus").is_null(), text=text, statistic=statistic, **where)
    assert len(found) == 1, f"{text} {statistic}: {len(found)} rows"
    return found["value"].item()


def pair(meme: str, chosen: float, rejected: float) -> list[tuple]:
    """The pair of a meme whose log-probabilities moved by `chosen` and `rejected` from −3 and −5."""
    return [(meme, "chosen", chosen - 3, -3.0), (meme, "rejected", rejected - 5, -5.0)]


def test_dpo_by_hand():
    """Chosen −2.0 against −2.5 and rejected −5.0 against −4.5 at β = 0.1.

    Rewards 0.1·0.5 = 0.05 and 0.1·(−0.5) = −0.05, margin 0.10 (1 nat before β), loss log(1 + e^−0.1) = 0.6444.
    """
    table = analysed(scored("dpo", [("a", "chosen", -2.0, -2.5), ("a", "rejected", -5.0, -4.5)]))
    assert value(table, "pair", "reward_chosen") == pytest.approx(0.05)
    assert value(table, "pair", "reward_rejected") == pytest.approx(-0.05)
    assert value(table, "pair", "reward_margin") == pytest.approx(0.10)
    assert value(table, "pair", "margin") == pytest.approx(1.0)
    assert value(table, "pair", "dpo_loss") == pytest.approx(0.6444, abs=1e-4)
    assert value(table, "pair", "accuracy") == 1
    assert value(table, "chosen", "logp") == -2.0 and value(table, "rejected", "change") == pytest.approx(-0.5)


FOUR = [*pair("a", -1, -3), *pair("b", 1, -1), *pair("c", -2, -1), *pair("d", -0.5, -0.5)]


def test_displacement_by_hand():
    """(chosen, rejected): a (−1, −3) falls while its margin rises; b (1, −1) does not fall; c (−2, −1) falls, but so
    does its margin; d (−½, −½) ties. 1 of 4 is displaced, 3 of 4 fell; margins 2, 2, −1, 0: mean .75, accuracy 2.5/4.
    """
    table = analysed(scored("dpo", FOUR))
    assert value(table, "pair", "displaced_share") == 0.25
    assert value(table, "chosen", "fell_share") == 0.75
    assert value(table, "pair", "margin") == pytest.approx(0.75)
    assert value(table, "pair", "accuracy") == pytest.approx(0.625)
    assert value(table, "chosen", "change") == pytest.approx(-2.5 / 4)
    assert table["n"].unique().to_list() == [4]


def test_strata_by_hand():
    """a and b differ in the answer, c and d in the format: half of the former are displaced, none of the latter."""
    table = analysed(scored("dpo", FOUR), types={"c": "bad_format", "d": "bad_format"})
    shares = {kind: value(table, "pair", "displaced_share", pair_type=kind) for kind in ("wrong_answer", "bad_format")}
    assert shares == {"wrong_answer": 0.5, "bad_format": 0.0}
    assert value(table, "pair", "accuracy", pair_type="bad_format") == pytest.approx(0.25)
    counts = table.filter(text="chosen", statistic="change").select("pair_type", "n").sort("pair_type").rows()
    assert counts == [("all", 4), ("bad_format", 2), ("wrong_answer", 2)]


def test_per_token_is_a_ratio_of_sums():
    """a: 2 tokens, change −1; b: 6 tokens, change −1: −1 a response, −2/8 a token (not (−1/2 − 1/6)/2)."""
    short, long = (scored("dpo", pair(meme, -1, 0), tokens) for meme, tokens in (("a", 2), ("b", 6)))
    table = analysed(short, long)
    assert value(table, "chosen", "change") == -1 and value(table, "chosen", "change_per_token") == -0.25
    assert value(table, "chosen", "logp_per_token") == -1.0  # (−4 − 4)/8


def test_the_base_has_not_moved():
    """Its own rounding (another code path) is the noise floor and nothing else; a policy's zero change is no fall."""
    base = scored("base", [*pair("a", 0.002, -0.001), *pair("b", -0.004, 0)])
    table = analysed(base, scored("dpo", [*pair("a", 0, 0), *pair("b", 0, 0)]))
    for method in ("base", "dpo"):
        for text in ("chosen", "rejected"):
            for statistic in ("change", "change_per_token", "fell_share"):
                assert value(table, text, statistic, method=method) == 0
        found = {name: value(table, "pair", name, method=method) for name in likelihood.PAIR_STATISTICS}
        assert found.pop("accuracy") == 0.5 and found.pop("dpo_loss") == pytest.approx(np.log(2))
        assert set(found.values()) == {0}
    assert value(table, "chosen", "logp", method="base") == -3
    assert value(table, "chosen", "noise_floor", method="base") == pytest.approx(0.003)  # (.002 + .004)/2
    assert set(table.filter(statistic="noise_floor")["method"]) == {"base"}


def test_a_method_without_beta_has_the_margin_and_says_why_no_reward():
    table = analysed(scored("dpo", FOUR), scored("sft", FOUR))
    sft = table.filter(pl.col("versus").is_null(), method="sft", pair_type="all")
    lacking = sft.filter(pl.col("missing").is_not_null())
    assert set(lacking["statistic"]) == {"reward_chosen", "reward_rejected", "reward_margin", "dpo_loss"}
    assert lacking["value"].null_count() == 4 and set(lacking["missing"]) == {likelihood_changes.NO_BETA}
    assert value(table, "pair", "margin", method="sft") == pytest.approx(0.75)
    assert table.filter(method="dpo")["missing"].null_count() == len(table.filter(method="dpo"))


@pytest.mark.parametrize("reference", ["sft", "own", None])
def test_rewards_are_of_runs_whose_loss_compared_with_the_base(reference: str | None):
    """Against a parent, its own start or nothing at all, β·(log π − log π0) is not what the loss saw."""
    other = pl.when(method="dpo").then(pl.lit(reference, pl.String)).otherwise("loss_reference")
    table = analysed(scored("dpo", FOUR), runs=RUNS.with_columns(loss_reference=other))
    dpo = table.filter(method="dpo", pair_type="all", text="pair", fraction=1.0)
    lacking = dpo.filter(pl.col("missing").is_not_null())
    assert set(lacking["statistic"]) == {*likelihood.REWARDS, "dpo_loss"} and lacking["value"].null_count() == 4
    assert set(lacking["missing"]) == {likelihood_changes.NOT_TO_BASE}
    assert value(table, "pair", "margin") == pytest.approx(0.75)


def test_dpos_loss_is_dpos_alone():
    """KTO has β and implicit rewards (0.1 · .75), and another loss."""
    table = analysed(scored("dpo", FOUR), scored("sft", FOUR), beta={"dpo": 0.1, "sft": 0.1})
    lacking = table.filter(pl.col("missing").is_not_null())
    assert set(lacking.select("method", "statistic", "missing").rows()) == {
        ("sft", "dpo_loss", likelihood_changes.NOT_DPO)
    }
    assert lacking["value"].null_count() == len(lacking) > 0
    assert value(table, "pair", "reward_margin", method="sft") == pytest.approx(0.075)


def test_differences_are_paired():
    """sft moves every margin by one more than dpo: the difference is exactly 1 in every resample, by prompt."""
    more = [row for meme, plus, minus in (("a", 0, -3), ("b", 2, -1), ("c", -1, -1), ("d", 0.5, -0.5))
            for row in pair(meme, plus, minus)]  # fmt: skip
    table = analysed(scored("dpo", FOUR), scored("sft", more))
    gap = table.filter(versus="sft", statistic="margin_difference")
    assert gap.select("method", "value", "ci_low", "ci_high", "n").rows() == [("dpo", -1, -1, -1, 4)]
    same = analysed(scored("dpo", FOUR), scored("sft", FOUR)).filter(pl.col("versus").is_not_null())
    assert same.select("value", "ci_low", "ci_high").unique().rows() == [(0, 0, 0)] and len(same) == 7


def test_row_order_does_not_matter():
    frame = scored("dpo", FOUR)
    assert analysed(frame).equals(analysed(frame.sample(fraction=1, shuffle=True, seed=0)))


@pytest.mark.parametrize("ties", [True, False])
def test_spearman_equals_scipys(ties: bool):
    """Weighted: every item written out as often as it was drawn."""
    random = np.random.default_rng(0)
    x = random.normal(size=60)
    y = x + random.normal(size=60)
    x, y = (x.round(), y.round()) if ties else (x, y)
    assert spearman(x, y)[0] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    weights = random.integers(0, 4, (5, 60)).astype(float)
    for row, found in zip(weights.astype(int), spearman(x, y, weights), strict=True):
        assert found == pytest.approx(scipy.stats.spearmanr(x.repeat(row), y.repeat(row)).statistic)


def test_spearman_where_there_is_none():
    assert np.isnan(spearman(np.ones(4), np.arange(4.0))).all()
    assert np.isnan(spearman(np.empty(0), np.empty(0), np.empty((3, 0)))).tolist() == [True] * 3


def with_ches(frame: pl.DataFrame, values: dict[str, float]) -> pl.DataFrame:
    """Every predictor of the chosen response of each meme."""
    ches = pl.when(probe_kind="chosen").then(pl.col("id").replace_strict(values, return_dtype=pl.Float64))
    return frame.with_columns(ches.alias(name) for name in PREDICTORS)


def test_ches_of_the_base_predicts_by_hand():
    """CHES under π0 5, 4, 3, 2 and changes −2, −1, −½, 1: the higher, the deeper the fall: −1.

    The policy's own CHES, in the opposite order, is not what is correlated.
    """
    high = dict(zip("abcd", (5.0, 4.0, 3.0, 2.0), strict=True))
    moved = [row for meme, change in zip("abcd", (-2, -1, -0.5, 1), strict=True) for row in pair(meme, change, 0)]
    base = with_ches(scored("base", [row for meme in "abcd" for row in pair(meme, 0, 0)]), high)
    table = analysed(base, with_ches(scored("dpo", moved), {meme: -ches for meme, ches in high.items()}))
    for name in PREDICTORS:
        assert value(table, "pair", f"{name}_correlation") == pytest.approx(-1)


def test_ches_of_every_policy_by_hand():
    """dpo's CHES −5, −4, −3, 2 (mean −2.5; the three wrong answers −4, the bad format 2), the base's 1, 2, 3, 4."""
    own, base = ({meme: ches for meme, ches in zip("abcd", values, strict=True)}
                 for values in ((-5.0, -4.0, -3.0, 2.0), (1.0, 2.0, 3.0, 4.0)))  # fmt: skip
    still = scored("base", [row for meme in "abcd" for row in pair(meme, 0, 0)])
    frames = with_ches(still, base), with_ches(scored("dpo", FOUR), own)
    table = analysed(*frames, types={"d": "bad_format"}, resamples=200)
    for name in PREDICTORS:
        assert value(table, "pair", name) == -2.5 and value(table, "pair", name, method="base") == 2.5
        assert value(table, "pair", name, pair_type="wrong_answer") == -4
        assert (
            value(table, "pair", f"{name}_change") == -5 and value(table, "pair", f"{name}_change", method="base") == 0
        )
        assert value(table, "pair", name, pair_type="bad_format") == 2
        rows = table.filter(pl.col("versus").is_null(), statistic=name, method="dpo").sort("pair_type")
        assert rows["n"].to_list() == [4, 1, 3] and set(rows["unit"]) == {"1"}
        low, high = rows.select("ci_low", "ci_high").row(0)
        assert -5 <= low < -2.5 < high <= 2


@pytest.mark.parametrize("whose", ["base", "dpo"])
@pytest.mark.parametrize("name", PREDICTORS)
def test_a_chosen_response_without_ches_is_named(whose: str, name: str):
    """It would be ranked as the largest of all."""
    frames = {method: scored(method, FOUR) for method in ("base", "dpo")}
    lost = pl.when((pl.col("id") == "c") & (pl.col("probe_kind") == "chosen")).then(None).otherwise(name).alias(name)
    frames[whose] = frames[whose].with_columns(lost)
    run = {"base": "base", "dpo": "dpo/seed1"}[whose]
    with pytest.raises(InputError, match=f"^responses/{run}, column {name}: empty on 1 chosen .*d/val/c at fraction"):
        analysed(*frames.values())


# TRL's own numbers.


def scored_pairs(study: Path, milestones: Path, fraction: float) -> pl.DataFrame:
    """`responses` of the study's pairs (sample 0 chosen, 1 rejected) at a milestone."""
    folder = tiny_models.folder("qwen2_5_vl")
    processor = vlm.load_processor(folder)
    choose = policies.load(folder, BaseModelConfig(source="tiny", dtype="float32"), "adapter", milestones, [fraction])
    images = dict(tables.read(study / "data.parquet", "data").select("id", "image").iter_rows())
    memes = []
    for row in tables.read(study / "preferences.parquet", "preferences").iter_rows(named=True):
        tokens = [
            [*processor.tokenizer(row[role], add_special_tokens=False).input_ids, processor.tokenizer.eos_token_id]
            for role in ("chosen", "rejected")
        ]
        rows = pl.DataFrame({"sample": [0, 1], "token_ids": tokens}).with_columns(
            probe_kind=pl.lit("base_sample"), dataset=pl.lit("memes"), split=pl.lit("train"), id=pl.lit(row["id"]),
            chosen_sample=0, rejected_sample=1,
        )  # fmt: skip
        memes.append(Meme(row["prompt"], open_image(Path(images[row["id"]])), rows))
    scorer = Scorer(choose, processor, tiny_study.PROMPT, Labels(processor.tokenizer, tiny_study.PROMPT), 64)
    return gather.labelled(scorer.score(memes, [fraction])[1], "dpo", 1)


def test_rewards_equal_those_trl_logs(tmp_path: Path):
    """Two steps on all six pairs at once: what TRL logs at the second is the policy that the first one left."""
    study = tiny_study.write_study(tmp_path, 8)
    made = tiny_study.train("dpo", study, tmp_path / "dpo", max_steps=2, per_device_train_batch_size=6, beta=0.3)
    history = tables.read(made["history"], "history").filter(step=2)
    logged = dict(history.select("metric", "value").iter_rows())
    responses = scored_pairs(study, made["milestones"], 0.5)
    texts = responses.select("probe_kind", *gather.MEME, "sample").with_columns(
        text=pl.when(sample=0).then(pl.lit("chosen")).otherwise(pl.lit("rejected")), pair_type=pl.lit("wrong_answer")
    )
    measured = likelihood_changes.per_text(responses, texts)
    pairs = likelihood_changes.per_pair(measured, likelihood_changes.scales(RUNS, {"dpo": 0.3}, ["dpo"])).mean()
    assert abs(logged["rewards/margins"]) > 0.01
    for name, column in (("chosen", "reward_chosen"), ("rejected", "reward_rejected"), ("margins", "reward_margin"),
                         ("accuracies", "wider")):  # fmt: skip
        assert pairs[column].item() == pytest.approx(logged[f"rewards/{name}"], abs=2e-4), name
    assert pairs["loss"].item() == pytest.approx(logged["loss"], abs=2e-4)
    for role in ("chosen", "rejected"):
        mean = measured.filter(probe_kind=role)["logp"].mean()
        assert mean == pytest.approx(logged[f"logps/{role}"], rel=1e-4)


# A made-up study with all texts.
METHODS, SEEDS, FRACTIONS = ("sft", "dpo"), (1, 2), (0.25, 1.0)
EFFECT = {"chosen": -1.0, "rejected": -4.0, "correct_other": -1.5, "other_image": -2.0, "gold_answer": -3.0,
          "greedy": 1.0, "permuted": -9.0}  # fmt: skip
STRENGTH = {"sft": 0.5, "dpo": 1.0, "base": 0.0}
SPLITS = {("memes", "val"): 40, ("memes", "train"): 20, ("other", "test"): 20}


def probes_of(memes: pl.DataFrame) -> pl.DataFrame:
    """Three base samples a meme: right, well-formed but wrong (broken for every fourth), broken; val: the texts too."""
    rows = []
    for n, (dataset, split, meme) in enumerate(memes.select(gather.MEME).iter_rows()):
        where = {"dataset": dataset, "split": split, "id": meme, "token_ids": [1, 2], "reward": 0.0}
        for sample, (right, ok) in enumerate([(True, True), (False, n % 4 != 3), (False, False)]):
            rows.append({**where, "probe_kind": "base_sample", "sample": sample, "correct": right, "format_ok": ok})
        for kind in TEXTS[2:] if (dataset, split) == ("memes", "val") else ():
            rows.append({**where, "probe_kind": kind, "sample": 0, "correct": True, "format_ok": False})
    return pl.DataFrame(rows)


def responses_of(probes: pl.DataFrame, method: str, seed: int, fraction: float) -> pl.DataFrame:
    random = np.random.default_rng([seed, len(probes), round(100 * fraction), *method.encode()])
    role = pl.when(probe_kind="base_sample").then(pl.col("sample").replace_strict(
        {0: "chosen", 1: "rejected", 2: "none"}, return_dtype=pl.String)).otherwise("probe_kind")  # fmt: skip
    effect = pl.col("role").replace_strict(EFFECT, default=0.0, return_dtype=pl.Float64)
    place = pl.int_range(pl.len()).over("probe_kind").cast(pl.Float64)
    noise = random.normal(0, 1.0 if method != "base" else 1e-6, len(probes))
    drop = {"token_ids", "correct", "format_ok", "reward"}
    return (
        probes.drop(drop)
        .with_columns(role=role, fraction=pl.lit(fraction), ref_logp=-20.0 - place % 7, noise=pl.Series(noise))
        .with_columns(
            pl.when(role="chosen").then(place % 11).alias(name) for name in (*PREDICTORS,)
        )
        .with_columns(
            logp=pl.col("ref_logp")
            + STRENGTH[method] * fraction * (effect - 0.3 * pl.col(PREDICTORS[0]).fill_null(0))
            + pl.col("noise") * (fraction or 1),
            kl_forward=0.0, kl_reverse=0.0, p_hateful=0.5, label_mass=1.0, ref_p_hateful=0.5, forced=False,
            num_tokens=10 + pl.col("sample"),
        )
        .drop("role", "noise")
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path] | Path]:
    folder = tmp_path_factory.mktemp("study")
    memes = {key: synthetic.data(*key, n) for key, n in SPLITS.items()}
    probes = pl.concat([probes_of(frame) for frame in memes.values()])
    paths: dict = {"responses": [], "runs": [], "data": [], "probes": folder / "probes.parquet", "folder": folder}
    tables.write(probes, paths["probes"], "probes")
    for (dataset, split), frame in memes.items():
        paths["data"].append(folder / f"data/{dataset}/{split}.parquet")
        tables.write(frame, paths["data"][-1], "data")
    runs = [("base", 0, (0.0,)), *((method, seed, FRACTIONS) for method in METHODS for seed in SEEDS)]
    for method, seed, fractions in runs:
        frame = pl.concat([responses_of(probes, method, seed, fraction) for fraction in fractions])
        paths["responses"].append(folder / f"responses/{method}/seed{seed}")
        tables.write(frame, paths["responses"][-1] / "1-of-1.parquet", "responses")
        if method != "base":
            run = folder / f"runs/{method}/seed{seed}/run.json"
            run.parent.mkdir(parents=True)
            run.write_text(json.dumps({"reference": "base", "steps": {"0": 0, "0.25": 20, "1": 80}}))
            paths["runs"].append(run)
    return paths


CFG = {"resamples": 60, "beta": {"dpo": 0.1}, "dpo": ["dpo"], "pair_rule": "paired"}


@pytest.fixture(scope="module")
def table(study) -> pl.DataFrame:
    """The script, run as the workflow does in a process that fails if it imports torch."""
    folder, written = study["folder"], study["folder"] / "analyses/likelihood.parquet"
    job = {"rule": "likelihood", "root": str(folder), "study": "synthetic", "digest": "", "code": "", "threads": 1}
    job |= {"gpu": 0, "work": str(folder / "work"), "input": {"probes": str(study["probes"])}, "wildcards": {}}
    job |= {"output": {"table": str(written)}}
    job["cfg"] = CFG | {name: [str(path) for path in study[name]] for name in ("responses", "runs", "data")}
    code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__'); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, SCRIPTS / "likelihood.py", json.dumps(job)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr or "torch was imported"
    return tables.read(written, "likelihood")


KEYS = ["method", "seed", "fraction", "dataset", "split", "text", "pair_type", "versus", "statistic"]


def test_script_covers_the_study(table):
    assert table["study"].unique().to_list() == ["synthetic"]
    assert table.select(pl.struct(KEYS).n_unique()).item() == len(table)
    policies = table.filter(pl.col("method") != "base", pl.col("versus").is_null())
    found = policies.filter(pair_type="all", statistic="change").select("dataset", "split", "text").unique()
    texts = {where: TEXTS if where == ("memes", "val") else TEXTS[:2] for where in SPLITS}
    assert set(found.rows()) == {(*where, text) for where, names in texts.items() for text in names}
    assert set(policies.select("method", "seed", "fraction", "step").unique().rows()) == {
        (m, s, f, round(80 * f)) for m in METHODS for s in SEEDS for f in FRACTIONS
    }
    # Every fourth rejected response is badly formed.
    counts = table.filter(pl.col("versus").is_null(), method="dpo", seed=1, fraction=1.0, split="val", text="pair")
    assert dict(counts.filter(statistic="margin").select("pair_type", "n").iter_rows()) == {
        "all": 40, "wrong_answer": 30, "bad_format": 10,
    }  # fmt: skip
    inside = (pl.col("ci_low") <= pl.col("value")) & (pl.col("value") <= pl.col("ci_high"))
    assert table.drop_nulls("value").select(inside.mean()).item() > 0.98


def test_script_finds_the_squeeze_that_was_put_in(table):
    """Change by text in the order of EFFECT, dpo's twice sft's, displacement, and CHES against the fall."""
    last = table.filter(pl.col("versus").is_null(), fraction=1.0, split="val", pair_type="all", seed=1)
    for method in METHODS:
        rows = last.filter(method=method, statistic="change")
        moved = dict(rows.select("text", "value").iter_rows())
        assert moved["permuted"] < moved["rejected"] < moved["gold_answer"] < moved["other_image"] < 0 < moved["greedy"]
        assert value(last, "pair", "ches_correlation", method=method) < -0.25
    assert value(last, "pair", "displaced_share", method="dpo") > 0.5
    gap = table.filter(statistic="margin_difference", seed=1, split="val", fraction=1.0, method="dpo", versus="sft")
    assert gap["value"].item() == pytest.approx(
        value(last, "pair", "margin", method="dpo") - value(last, "pair", "margin", method="sft")
    )


def test_script_intervals_equal_a_loop(study, table):
    """Displaced share and CHES correlation of one run, resample by resample over written-out prompts."""
    memes = gather.prompts(study["data"]).filter(dataset="memes", split="val")
    cluster = stats.clusters(memes["text"])
    weights = stats.resample_weights(int(cluster.max()) + 1, CFG["resamples"], "memes/val")
    read = pl.concat([tables.read(study["responses"][i] / "1-of-1.parquet", "responses") for i in (0, 3)])
    frame = read.filter(pl.col("fraction").is_in([0.0, 1.0]), split="val", probe_kind="base_sample")
    moved = frame.filter(fraction=1.0).with_columns(change=pl.col("logp") - pl.col("ref_logp"))
    chosen, rejected = (dict(moved.filter(sample=n).select("id", "change").iter_rows()) for n in (0, 1))
    ches = dict(frame.filter(fraction=0.0, sample=0).select("id", "ches").iter_rows())
    shares, correlations = [], []
    for row in weights:
        drawn = [i for c, k in enumerate(row) for _ in range(int(k)) for i in memes["id"].filter(cluster == c)]
        shares.append(np.mean([chosen[i] < 0 and chosen[i] > rejected[i] for i in drawn]))
        correlations.append(scipy.stats.spearmanr([ches[i] for i in drawn], [chosen[i] for i in drawn]).statistic)
    for statistic, replicates in (("displaced_share", shares), ("ches_correlation", correlations)):
        where = {"method": "dpo", "seed": 1, "fraction": 1.0, "split": "val", "pair_type": "all", "text": "pair"}
        row = table.filter(pl.col("versus").is_null(), statistic=statistic, **where)
        found = row.select("ci_low", "ci_high").row(0)
        assert found == pytest.approx(np.quantile(replicates, [0.025, 0.975]), rel=1e-8), statistic


def test_figure_shows_every_run(table):
    figure = figure_likelihood(table)
    words = " ".join(note.text for note in figure.layout.annotations)
    assert all(name in words for name in ("SFT", "DPO", "displacement", "by text", "seed 1", "seed 2"))
    squeezed = table.filter(pl.col("versus").is_null(), fraction=1.0, split="val", pair_type="all")
    rows = squeezed.filter((pl.col("method") != "base"), statistic="change_per_token")
    drawn = {round(y, 9) for trace in figure.data for y in (trace.y or ()) if trace.mode == "markers"}
    assert len(rows) == 28 and {round(v, 9) for v in rows["value"]} <= drawn


# Bad input.


def script():
    spec = importlib.util.spec_from_file_location("script_likelihood", SCRIPTS / "likelihood.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def launched(study, tmp_path: Path, **changes: object) -> None:
    given = {name: study[name] for name in ("responses", "probes", "runs", "data")} | CFG | changes
    script().main(**given, table=tmp_path / "likelihood.parquet")


REASONS = {"missing": "no such table", "cut": "not a whole Parquet", "empty": "no rows", "other": "lacks "}
FLOATS = {"responses": "logp", "probes": "reward"}


@pytest.mark.parametrize(("name", "column"), FLOATS.items())
def test_numbers_that_are_none_are_named(study, tmp_path, name: str, column: str):
    good = study[name] if name == "probes" else study[name][-1] / "1-of-1.parquet"
    bad = tmp_path / "dpo/seed2/x.parquet"
    values = pl.when(pl.int_range(pl.len()) == 3).then(float("nan")).otherwise(column)
    tables.write(tables.read(good, name).with_columns(values.alias(column)), bad, name)
    given = {name: bad if name == "probes" else [*study[name][:-1], bad]}
    with pytest.raises(InputError, match=f"{bad}, column {column}: 1 values are NaN"):
        launched(study, tmp_path, **given)


@pytest.mark.parametrize("how", REASONS)
@pytest.mark.parametrize("name", ["responses", "data", "probes"])
def test_unusable_tables_are_named(study, tmp_path, name: str, how: str):
    good = study[name] if name == "probes" else next(study[name][-1].parent.rglob("*.parquet"))
    bad = tmp_path / "sft/seed1/x.parquet"
    bad.parent.mkdir(parents=True)
    if how == "cut":
        bad.write_bytes(good.read_bytes()[:-30])
    elif how == "empty":
        tables.write(tables.read(good, name).clear(), bad, name)
    elif how == "other":
        tables.write(pl.DataFrame({"step": [1], "metric": ["loss"], "value": [0.5]}), bad, "history")
    given = {name: bad if name == "probes" else [*study[name][:1], bad]}
    said = "no prompt gives a pair" if (name, how) == ("probes", "empty") else f"{bad}: .*{REASONS[how]}"
    with pytest.raises(InputError, match=said):
        launched(study, tmp_path, **given)
    assert not (tmp_path / "likelihood.parquet").exists()


def test_texts_that_were_not_scored_are_named(study, tmp_path):
    """A run scored before the probes had their greedy paths, and one whose milestone lost a prompt."""
    good = tables.read(study["responses"][-1] / "1-of-1.parquet", "responses")
    stale = tmp_path / "dpo/seed2/1-of-1.parquet"
    lost = good["id"][0]
    for frame, said in (
        (good.filter(pl.col("probe_kind") != "greedy"), "at fraction 0.25 80 texts .* greedy of memes/val/"),
        (good.filter((pl.col("id") != lost) | (pl.col("fraction") < 1)), f"at fraction 1 7 texts .*{lost}"),
    ):
        tables.write(frame, stale, "responses")
        with pytest.raises(InputError, match=f"responses/dpo/seed2: {said}"):
            launched(study, tmp_path, responses=[study["responses"][0], stale])


def test_a_run_without_early_milestones_is_no_fault(study, tmp_path):
    late = tables.read(study["responses"][-1] / "1-of-1.parquet", "responses").filter(pl.col("fraction") == 1)
    tables.write(late, tmp_path / "dpo/seed2/1-of-1.parquet", "responses")
    changed = {"responses": [*study["responses"][:-1], tmp_path / "dpo/seed2"]}
    with pytest.raises(InputError, match="^responses of dpo/seed2 .*: none at milestone 0.25; "):
        launched(study, tmp_path, **changed)
    run = tmp_path / "runs/dpo/seed2/run.json"
    run.parent.mkdir(parents=True)
    run.write_text(json.dumps({"reference": "base", "steps": {"0": 0, "1": None}}))
    launched(study, tmp_path, **changed, runs=[*study["runs"][:-1], run])
    found = tables.read(tmp_path / "likelihood.parquet", "likelihood").filter(method="dpo", seed=2)
    assert found["fraction"].unique().to_list() == [1.0] and len(found) > 50
    assert figure_likelihood(tables.read(tmp_path / "likelihood.parquet", "likelihood")).data
