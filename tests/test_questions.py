"""Every question with a known answer, in both directions: tables made so that one order of the methods is all they say.

A run's numbers are 0.1 × its method's place in METHODS, and 0.01 more for the second seed, each ± 0.01; `turned`
negates them. Six methods: 2 of 6! orders are as extreme, and .0028 withstands Holm's correction over three relations.
"""

from itertools import combinations

import polars as pl
import pytest

from memedynamics import claims, questions
from memedynamics.cells import BLANK, MATCHED, TABLE, perturbed, table_rows
from memedynamics.questions import BETTER, FEWER, GAP, LEANS, NOISE, PREDICTS, SURER

METHODS = ("sft", "dpo", "grpo", "em", "rft", "kto")
RUNS = [(method, seed) for method in METHODS for seed in (1, 2)]
HOME, AWAY = "memes", "away"
NOISY = "noise_64"


def number(method, seed, sign):
    return sign * (0.1 * METHODS.index(method) + 0.01 * seed)


def row(cell, statistic, method, seed, value, half=0.01, **keys):
    dataset, split = (AWAY, "test") if cell.place == "out" else (HOME, cell.place)
    where = {"dataset": "all" if split == "all" else dataset, "split": split}
    ends = {"ci_low": value - half, "ci_high": value + half}
    found = {"fraction": 1.0, **where, **cell.keys, "statistic": statistic, "method": method, "seed": seed}
    return {**found, "value": value, **ends, "n": 200, "unit": "1", "missing": None} | keys


def levels(cell, sign):
    return [row(cell, cell.statistic, *run, number(*run, sign)) for run in RUNS]


def differences(cell, sign):
    """Of every pair at equal seed; the analyses write a pair once, here the later method minus the earlier."""
    return [
        row(cell, f"{cell.statistic}_difference", a, seed, number(a, seed, sign) - number(b, seed, sign), versus=b)
        for b, a in combinations(METHODS, 2)
        for seed in (1, 2)
    ]


def both(cell, sign):
    return levels(cell, sign) + differences(cell, sign)


def analyses(sign):
    accuracy = TABLE["accuracy"]
    spectrum = TABLE["effective_rank_at_norm"]
    return {
        "accuracy": frame(
            *[both(accuracy._replace(place=place), sign) for place in ("val", "test", "out")],
            levels(TABLE["accuracy_gain_out_of_domain"], sign),
            both(TABLE["train_val_gap"], sign),
        ),
        "kl": frame(levels(TABLE["forward_kl"], 1), levels(TABLE["forward_kl_out_of_domain"], sign)),
        "entropy": frame(levels(TABLE["decision_entropy"], 1), differences(MATCHED, sign)),
        "spectrum": frame(
            both(spectrum, sign), [row(spectrum, "stable_rank", "sft", 1, 1.0, layer=layer) for layer in range(12)]
        ),
        "attention": frame(
            both(TABLE["image_attention"], sign),
            both(perturbed(BLANK), sign),
            both(perturbed(NOISY, "decision_accuracy"), sign),
            both(perturbed(NOISY), sign),
            [row(perturbed(level), "accuracy_change", "sft", 1, 0.0) for level in ("noise_4", "noise_8")],
            both(perturbed("noise_8", "decision_accuracy"), -sign),
            [row(perturbed("noise_4", "decision_accuracy", "header"), "decision_accuracy", "sft", 1, 0.6)],
        ),
    }  # fmt: skip


def frame(*parts):
    return pl.DataFrame([one for part in parts for one in part], infer_schema_length=None)


def asked(tables):
    runs = pl.DataFrame(RUNS, schema={"method": pl.String, "seed": pl.Int32}, orient="row")
    places = [(dataset, split) for dataset in (HOME, AWAY) for split in ("train", "val", "test")]
    memes = [(*place, f"{place[1]}{i}") for place in places for i in range(50)]
    prompts = pl.DataFrame(memes, schema=["dataset", "split", "text"], orient="row")
    return questions.answer_rows(tables, table_rows(tables, HOME), prompts, runs, {m: m for m in METHODS}, HOME)


def said(rows, question):
    """Verdicts by what was compared or related, and where that is out of domain; one text a claim."""
    found = {}
    for one in rows:
        if one["question"] == question and one["statistic"] == "p_holm":
            pair = (one["method"], one["versus"]) if one["method"] != "all runs" else (one["versus"],)
            found.setdefault((one.get("measure"), *pair), set()).add(one["verdict"])
    return {key: verdicts.pop() if len(verdicts) == 1 else verdicts for key, verdicts in found.items()}


@pytest.fixture(scope="module")
def rows():
    return {1: asked(analyses(1)), -1: asked(analyses(-1))}


# What each question's data says where the numbers rise from SFT over DPO to GRPO (and on to EM, RFT and KTO), and fall.
ANSWERS = {
    BETTER: {("accuracy", "grpo", "dpo"): ("yes", "no: dpo is")},
    GAP: {
        ("probe_accuracy_gap", "grpo", "sft"): ("grpo’s gap is wider", "sft’s gap is wider"),
        ("probe_accuracy_gap", "grpo", "dpo"): ("grpo’s gap is wider", "dpo’s gap is wider"),
    },
    FEWER: {
        ("effective_rank_at_norm", "sft", "dpo"): ("yes", "no: more"),
        ("effective_rank_at_norm", "sft", "grpo"): ("yes", "no: more"),
    },
    # KL in domain always rises; out of domain, and the gain, turn.
    PREDICTS: {
        (None, "forward_kl, forward_kl_out_of_domain"): ("yes", "no: the reverse"),
        (None, "forward_kl, accuracy_gain_out_of_domain"): ("more KL, more gain", "more KL, less gain"),
    },
    # Entropy always rises; accuracy, and the entropy at equal accuracy, turn.
    SURER: {
        (None, "accuracy, decision_entropy"): ("no: the reverse", "yes"),
        ("matched_entropy", "sft", "dpo"): ("sft is surer at equal accuracy", "dpo is surer at equal accuracy"),
        ("matched_entropy", "sft", "grpo"): ("sft is surer at equal accuracy", "grpo is surer at equal accuracy"),
        ("matched_entropy", "dpo", "grpo"): ("dpo is surer at equal accuracy", "grpo is surer at equal accuracy"),
    },
    # A change of accuracy that is higher is a smaller loss.
    LEANS: {
        ("image_share", "sft", "dpo"): ("dpo looks more", "sft looks more"),
        ("image_share", "sft", "grpo"): ("grpo looks more", "sft looks more"),
        ("image_share", "dpo", "grpo"): ("grpo looks more", "dpo looks more"),
        ("accuracy_change", "sft", "dpo"): ("sft loses more", "dpo loses more"),
        ("accuracy_change", "sft", "grpo"): ("sft loses more", "grpo loses more"),
        ("accuracy_change", "dpo", "grpo"): ("dpo loses more", "grpo loses more"),
    },
    NOISE: {
        ("decision_accuracy", "sft", "dpo"): ("dpo is right more often", "sft is right more often"),
        ("decision_accuracy", "sft", "grpo"): ("grpo is right more often", "sft is right more often"),
        ("decision_accuracy", "dpo", "grpo"): ("grpo is right more often", "dpo is right more often"),
        ("accuracy_change", "sft", "dpo"): ("sft loses more", "dpo loses more"),
        ("accuracy_change", "sft", "grpo"): ("sft loses more", "grpo loses more"),
        ("accuracy_change", "dpo", "grpo"): ("dpo loses more", "grpo loses more"),
    },
}  # fmt: skip


@pytest.mark.parametrize(("sign", "place"), [(1, 0), (-1, 1)])
@pytest.mark.parametrize("question", questions.QUESTIONS)
def test_what_rises_and_what_falls(rows, question, sign, place):
    """On val, test and out of domain alike, and under the strongest noise: under a weaker one the order is reversed."""
    assert said(rows[sign], question) == {key: texts[place] for key, texts in ANSWERS[question].items()}


def test_better_is_asked_on_val_test_and_out_of_domain(rows):
    places = {(one["dataset"], one["split"]) for one in rows[1] if one["question"] == BETTER and "verdict" in one}
    assert places == {(HOME, "val"), (HOME, "test"), (AWAY, "test")}


def test_agreement_of_seeds_is_a_row_a_claim(rows):
    """Claims of two seeds; relations have none. Every claim's seeds agree, and n counts them."""
    agreed = [one for one in rows[1] if one["statistic"] == "seeds_agree"]
    claimed = [one for one in rows[1] if one["statistic"] == "p_holm" and one["method"] != "all runs"]
    assert len(agreed) == len(claimed) == 3 + 2 + 2 + 3 + 6 + 6
    assert {(one["value"], one["n"], one["seed"]) for one in agreed} == {(1.0, 2, None)}


def test_seeds_that_disagree_are_a_reason_of_their_own():
    """At equal accuracy DPO − SFT is +.1 after seed 1 and, made so, −.5 after seed 2; GRPO − SFT stays as it is."""
    tables = analyses(1)
    entropy = tables["entropy"].with_columns(
        pl.when(versus="sft", method="dpo", seed=2, statistic="matched_entropy_difference")
        .then(-0.5 + pl.col(name) - pl.col("value"))
        .otherwise(name)
        .alias(name)
        for name in ("value", "ci_low", "ci_high")
    )
    found = asked(tables | {"entropy": entropy})
    verdicts = said(found, SURER)
    assert verdicts["matched_entropy", "sft", "dpo"] == claims.SEEDS
    assert verdicts["matched_entropy", "sft", "grpo"] == "sft is surer at equal accuracy"
    agreed = {
        one["versus"]: one["value"]
        for one in found
        if one["statistic"] == "seeds_agree" and one["question"] == SURER and one["method"] == "sft"
    }
    assert agreed == {"dpo": 0.0, "grpo": 1.0}


def test_a_method_that_is_wrong_throughout_loses_nothing_and_does_not_win():
    """SFT: .2 right under noise, change 0; DPO: .8 and −.1. SFT loses less, DPO is right more often."""
    parts = []
    for cell, sft, dpo in ((perturbed(NOISY, "decision_accuracy"), 0.2, 0.8), (perturbed(NOISY), 0.0, -0.1)):
        for seed in (1, 2):
            parts += [row(cell, cell.statistic, method, seed, value) for method, value in (("sft", sft), ("dpo", dpo))]
            parts.append(row(cell, f"{cell.statistic}_difference", "sft", seed, sft - dpo, versus="dpo"))
    verdicts = said(asked({"attention": frame(parts)}), NOISE)
    assert verdicts["decision_accuracy", "sft", "dpo"] == "dpo is right more often"
    assert verdicts["accuracy_change", "sft", "dpo"] == "dpo loses more"


def test_runs_without_a_common_accuracy_have_a_row_and_are_not_decided():
    """The entropy analysis writes such pairs without a value and says why."""
    tables = analyses(1)
    blank = [pl.lit(None, pl.Float64).alias(name) for name in ("value", "ci_low", "ci_high")]
    entropy = (
        tables["entropy"]
        .filter(pl.col("statistic") == "matched_entropy_difference")
        .with_columns(*blank, missing=pl.lit("flat"))
    )
    found = asked({"entropy": entropy})
    assert set(said(found, SURER).values()) == {claims.NO_INTERVAL}
    kept = [one for one in found if one["question"] == SURER and one["statistic"] == "difference"]
    assert len(kept) == 6 and {(one["value"], one["missing"]) for one in kept} == {(None, "flat")}


def test_what_stands_beside_the_questions():
    """Who knows when it is wrong, entropy along training, and every level of noise after the header."""
    cells = {"auroc_error": 0.8, "milestone_correlation": -0.9}
    entropy = [row(TABLE[name], name, "sft", 1, value) for name, value in cells.items()]
    noise = {"clean": 0.9, "noise_4": 0.8, NOISY: 0.6}
    header = {name: perturbed(name, "decision_accuracy", "header") for name in noise}
    attention = [row(cell, "decision_accuracy", "sft", 1, noise[name]) for name, cell in header.items()]
    attention += levels(perturbed(NOISY, "decision_accuracy"), 1) + levels(perturbed(NOISY), 1)
    found = asked({"entropy": frame(entropy), "attention": frame(attention)})
    surer = {one["statistic"]: one["value"] for one in found if one["question"] == SURER and one["value"] is not None}
    assert surer == cells
    beside = [one for one in found if one["question"] == NOISE]
    levelled = {one["measure"]: one["value"] for one in beside if one["statistic"] == "noise_accuracy_after_header"}
    assert levelled == noise
    assert sum(one["statistic"] == "noise_accuracy" for one in beside) == len(RUNS)


def test_a_relation_of_too_few_methods_says_so_and_shows_its_correlation():
    tables = {name: table.filter(pl.col("method").is_in(METHODS[:4])) for name, table in analyses(1).items()}
    found = [one for one in asked(tables) if one["question"] == PREDICTS]
    judged = [one for one in found if one["statistic"] == "p_holm"]
    assert {(one["verdict"], one["n"]) for one in judged} == {(claims.FEW_METHODS, 4)}
    assert all(one["value"] != one["value"] for one in judged)
    assert [(one["value"], one["n"]) for one in found if one["statistic"] == "correlation"] == [(1.0, 8)] * 2
