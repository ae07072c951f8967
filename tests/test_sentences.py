"""Sentences say what a table's numbers say: who is first, by how much, whether that is sure; of any study."""

import polars as pl
import pytest

from memedynamics import claims, schemas, tables
from memedynamics.definitions import KNOWN
from memedynamics.questions import BETTER
from memedynamics.sentences import OWN, sentences

EMPTY = {"value": None, "ci_low": None, "ci_high": None}
HOME = {"study": "s", "step": 9, "reference": "base", "dataset": "memes", "split": "val", "fraction": 1.0, "seed": None}


def table(name, rows):
    """`rows` as a table of the analysis `name`: common keys as HOME has them, all others empty."""
    fields = schemas.SCHEMAS[name]
    empty = dict.fromkeys(fields.names) | HOME | {"method": "base", "n": 40, "unit": "1"}
    return pl.from_arrow(tables.conform(pl.DataFrame([empty | row for row in rows], infer_schema_length=None), name))


def strings(frame):
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))


def runs(values, width, **keys):
    """A row a run of `values` (by method, one a seed), whose intervals reach `width` to either side."""
    return [
        {**keys, "method": method, "seed": seed, "value": v, "ci_low": v - width, "ci_high": v + width}
        for method, found in values.items()
        for seed, v in enumerate(found, 1)
    ]


def base(value, width, **keys):
    ends = {"value": value, "ci_low": value - width, "ci_high": value + width}
    return {"method": "base", "fraction": 0.0, **ends, **keys}


FIRST = {"sft": (0.8, 0.82), "dpo": (0.7, 0.71)}
OWN_SAMPLES = {"probe_kind": "own_sample", "statistic": "accuracy"}
MOVED = {"direction": "forward", "estimator": "exact", "span": "all", "probe_kind": "base_sample"}
MOVED |= {"statistic": "per_response"}
GAIN = {"probe_kind": "own_sample", "statistic": "accuracy_difference"}
ELSEWHERE = {"dataset": "other", "split": "test"}


def accuracy(methods=FIRST, width=0.01):
    """Levels, paired differences of the first two, and gains out of domain: up for sft, undecided for dpo."""
    rows = [base(0.6, 0.02, **{**OWN_SAMPLES, "probe_kind": "base_sample"}), *runs(methods, width, **OWN_SAMPLES)]
    first, *others = methods
    for other in others:
        gaps = tuple(a - b for a, b in zip(methods[first], methods[other], strict=True))
        rows += runs({first: gaps}, width, versus=other, **GAIN)
        rows += runs({other: tuple(0.0 for _ in gaps)}, width, versus="base", **GAIN, **ELSEWHERE)
    rows += runs({first: tuple(0.1 for _ in methods[first])}, width, versus="base", **GAIN, **ELSEWHERE)
    return strings(table("accuracy", rows))


def test_accuracy():
    first, second, third = sentences("accuracy", accuracy())
    assert first == (
        "On val of memes the base’s answers are right in 60.0 % [58.0, 62.0]; after training SFT is right most often, "
        "in 80.0 % [79.0, 81.0] and 82.0 [81.0, 83.0] (seeds 1 and 2), and DPO least often, in "
        "70.0 % [69.0, 71.0] and 71.0 [70.0, 72.0] (seeds 1 and 2); n = 40 prompts."
    )
    assert (
        second
        == "In every seed SFT lies above DPO (paired differences, uncorrected; the summary has the corrected claims)."
    )
    assert third == (
        "Out of domain, on test of other, more accurate than the base in every seed: SFT (uncorrected); not "
        "decided by this data (DPO)."
    )


def test_wide_intervals_decide_nothing():
    assert sentences("accuracy", accuracy(width=0.2))[1] == f"{claims.UNDECIDED.capitalize()} (SFT against DPO)."


def test_one_seed_decides_nothing():
    one = accuracy({name: found[:1] for name, found in FIRST.items()})
    assert sentences("accuracy", one)[1:] == [
        "Not decided: one seed (SFT against DPO).",
        "Out of domain, on test of other, not decided: one seed (SFT and DPO).",
    ]


def test_one_method_and_no_set_out_of_domain():
    (only,) = sentences("accuracy", accuracy({"mine": (0.8, 0.82)}).filter(pl.col("dataset") == "memes"))
    assert "after training mine: 80.0 % [79.0, 81.0] and 82.0" in only


def test_kl_says_whether_methods_moved_further_than_seeds_lie_apart():
    between = {**MOVED, "direction": "between_seeds"}
    rows = runs({"sft": (1.0, 1.1), "em": (0.1, 0.12)}, 0.05, unit="nat", **MOVED)
    rows += runs({"sft": (0.2, 0.2), "em": (0.2, 0.2)}, 0.01, versus="seed9", **between)
    rows.append(base(1e-6, 0, **MOVED, versus="other_path"))
    told = sentences("kl", strings(table("kl", rows)))
    assert told[0].startswith("On val of memes SFT moved furthest from the base, 1 nat a response [0.95, 1.05] and 1.1")
    assert (
        told[1]
        == "In every seed SFT lies above EM (intervals apart, uncorrected; the summary has the corrected claims)."
    )
    assert told[2] == (
        "Further than their own seeds lie apart, whatever the seed: SFT (uncorrected); not further than that: EM; the "
        "base differs from itself by 1e−06 nat a response [1e−06, 1e−06] through another code path."
    )


def test_likelihood_says_who_lowered_the_chosen_response():
    keys = {"text": "chosen", "pair_type": "all", "statistic": "change", "unit": "nat"}
    rows = runs({"sft": (2.0, 3.0), "dpo": (-5.0, -4.0)}, 0.5, **keys)
    rows += runs(
        {"sft": (0.1, 0.1), "dpo": (0.4, 0.5)}, 0.05, text="pair", pair_type="all", statistic="displaced_share"
    )
    told = sentences("likelihood", strings(table("likelihood", rows)))
    assert "most under SFT, +2 nat [+1.5, +2.5]" in told[0] and "least under DPO, −5 nat" in told[0]
    assert told[1] == (
        "The chosen response became more likely in every seed: SFT (uncorrected); less likely in every seed: DPO "
        "(uncorrected)."
    )
    assert "most of DPO’s, 40.0 % [35.0, 45.0] and 50.0" in told[2]


def test_gradients_compare_the_sign_with_theory():
    keys = {"objective": "em_decision", "other": "grpo_decision", "module": "all", "statistic": "cosine"}
    rows = [base(-0.8, 0.1, bin="below", **keys), base(-0.3, 0.2, bin="above", **keys)]
    rows.append({**base(0.1, 0.3, bin="all", module="all", statistic="split_half"), "objective": "dpo", "other": "dpo"})
    told = sentences("gradients", strings(table("gradients", rows)))
    assert "below one half, a cosine of −0.8 [−0.9, −0.7], n = 40 prompts (as theory expects, uncorrected)" in told[0]
    assert "above one half, a cosine of −0.3 [−0.5, −0.1], n = 40 prompts (against theory, uncorrected)" in told[0]
    assert told[1] == "No direction beyond this batch (halves of the memes disagree): “DPO”."


def test_a_judge_that_tosses_a_coin_and_prefers_the_first():
    common = {"source": "labels", "pair_type": "all"}
    rows = [base(0.52, 0.1, statistic="agreement", **common), base(0.2, 0.05, statistic="position_bias", **common)]
    first, second = sentences("judgement", strings(table("judgement", rows)))
    assert "in 52.0 % [42.0, 62.0] of the label pairs, not decided against a coin; n = 40 pairs" in first
    assert (
        second == "It prefers whatever stands first by +20.0 points [+15.0, +25.0], above no preference (uncorrected)."
    )


def test_a_barrier_between_two_runs():
    keys = {"way": "linear", "versus": "dpo", "statistic": "accuracy_off_line"}
    start = "Between SFT and DPO accuracy is lowest against the straight line by −10.0 points [−15.0, −5.0] and −20.0 "
    start += "[−25.0, −15.0] (seeds 1 and 2): "
    middle = runs({"sft": (-0.1, -0.2)}, 0.05, t=0.5, **keys)
    told = sentences("merge_path", strings(table("merge_path", middle)))
    assert told == [f"{start}a barrier in every seed (uncorrected)."]
    # The lowest of several is chosen for being low.
    rows = middle + runs({"sft": (0.0, 0.0)}, 0.05, t=0.25, **keys)
    told = sentences("merge_path", strings(table("merge_path", rows)))
    assert told == [f"{start}the interval is of the point chosen as lowest of 2, and alone shows no barrier."]


def test_parity_tells_the_widest_gap():
    keys = {"metric": "loss", "versus": "dpo", "statistic": "difference", "method": "dpo-llamafactory", "seed": 1}
    rows = [{**keys, **EMPTY, "step": step, "value": value} for step, value in ((1, 0.0), (2, -3e-7), (3, 1e-7))]
    (told,) = sentences("parity", strings(table("parity", rows)))
    assert told == "The losses of DPO and dpo-llamafactory differ by at most 3e-07, at step 2 (3 steps, seeds 1)."


def test_summary_counts_what_is_decided():
    keys = {"question": BETTER, "method": "grpo", "versus": "dpo", "measure": "accuracy"}
    rows = [{**keys, "statistic": "p_holm", "value": 0.01, "verdict": "yes"}]
    rows.append({**keys, "split": "test", "statistic": "p_holm", "value": None, "verdict": claims.ONE_SEED})
    told = sentences("summary", strings(table("summary", rows)))
    assert told[0] == "Of 2 claims 1 is decided by this data."
    assert told[1].startswith(f"{BETTER} yes (GRPO − DPO: accuracy, val memes; p = 0.01")
    assert told[2] == "Not decided: 1 (one seed)."


PARTS = {
    "rewards": [
        *runs(FIRST, 0.1, source="samples", over="split", statistic="reward"),
        *runs({"grpo": (0.4, 0.5)}, 0.1, source="rollouts", over="run", split="train", statistic="zero_share"),
    ],
    "spectrum": runs(
        FIRST, 0.1, update="trained", kind="all", dataset="all", split="all", statistic="effective_rank_at_norm"
    ),
    "sharpe": [
        *runs({"sft": (0.3, 0.4), "dpo": (0.0, 0.0)}, 0.1, group="caption", label="all", versus="base",
              split="train-val", statistic="occlusion_overfit_index_difference"),
        *runs(FIRST, 0.1, group="gradient", module="all", label="all", split="train", statistic="snr"),
    ],
    "attention": [
        *runs({"sft": (0.3, 0.4)}, 0.1, policy="trained", perturbation="clean", head="mean", versus="base",
              split="test", statistic="image_share_difference"),
        *runs({"sft": (-0.3, -0.4)}, 0.1, policy="trained", perturbation="blank", after="redrawn", split="test",
              statistic="accuracy_change"),
        *runs(FIRST, 0.1, policy="trained", perturbation="noise_64", after="redrawn", split="test",
              statistic="decision_accuracy"),
    ],
    "entropy": runs(
        FIRST, 0.1, probe_kind="own_sample", estimator="exact", invalid="forced", statistic="entropy", unit="nat"
    ),
}  # fmt: skip
SAID = {
    "rewards": ["SFT earns most, 0.8 [0.7, 0.9]", "taught nothing: GRPO: 40.0 % [30.0, 50.0]"],
    "spectrum": ["SFT’s update has most directions, an effective rank of 0.8"],
    "sharpe": ["(1 of 2 pairs of feature and method, uncorrected): the caption under SFT.", "highest for SFT"],
    "attention": ["+30.00 points [+20.00, +40.00]", "blank, test of memes: SFT: −30.0", "memes, SFT is right most"],
    "entropy": ["DPO surest, with 0.7 nat", "DPO against SFT"],
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_the_others(name):
    told = " ".join(sentences(name, strings(table(name, PARTS[name]))))
    for part in SAID[name]:
        assert part in told


def test_features_are_told_apart():
    common = {"label": "all", "versus": "base", "split": "train-val", "statistic": "occlusion_overfit_index_difference"}
    rows = runs({"sft": (-0.3, -0.4), "dpo": (-0.3, -0.4)}, 0.1, group="header", **common)
    rows += runs({"sft": (-0.3, -0.4), "dpo": (0.3, -0.4)}, 0.1, group="system", **common)
    none, less = sentences("sharpe", strings(table("sharpe", rows)))
    assert none.endswith("in every seed (0 of 4 pairs of feature and method).")
    assert less == (
        "Less reliable in every seed (3 of 4 pairs of feature and method, uncorrected): the header under SFT and DPO; "
        "the system under SFT; not decided: seeds disagree (1)."
    )


CLAIMS = ("in every seed", "lies above", "lies below", "theory", "further than their own", "barrier in", "a coin")
CLAIMS += ("no preference",)


def claimed(told):
    """The sentences that claim a side."""
    return [text for text in told if any(words in text.replace("(0 of", "") for words in CLAIMS)]


def sides():
    """Tables whose sentences claim sides, on the 40 items that `table` gives every row."""
    cosine = {"objective": "em_decision", "other": "grpo_decision", "module": "all", "statistic": "cosine"}
    labels = {"source": "labels", "pair_type": "all"}
    path = {"way": "linear", "versus": "dpo", "statistic": "accuracy_off_line", "t": 0.5}
    apart = {**MOVED, "direction": "between_seeds", "versus": "seed9"}
    chosen = {"text": "chosen", "pair_type": "all", "statistic": "change"}
    parts = PARTS | {
        "gradients": [base(-0.8, 0.1, bin="below", **cosine)],
        "judgement": [base(0.9, 0.1, statistic=one, **labels) for one in ("agreement", "position_bias")],
        "merge_path": runs({"sft": (-0.1, -0.2)}, 0.05, **path),
        "kl": runs({"sft": (1.0, 1.1), "em": (0.1, 0.12)}, 0.05, **MOVED) + runs({"sft": (0.2, 0.2)}, 0.01, **apart),
        "likelihood": runs({"sft": (2.0, 3.0), "dpo": (-5.0, -4.0)}, 0.5, **chosen),
        "entropy": runs({"sft": (0.9, 0.8), "dpo": (0.1, 0.2)}, 0.01, probe_kind="own_sample", estimator="exact",
                        invalid="forced", statistic="entropy"),
        "rewards": runs({"sft": (0.9, 0.8), "dpo": (0.1, 0.2)}, 0.01, source="samples", over="split",
                        statistic="reward"),
        "spectrum": runs({"sft": (9.0, 9.1), "dpo": (5.0, 5.2)}, 0.1, update="trained", kind="all", dataset="all",
                         split="all", statistic="effective_rank_at_norm"),
    }  # fmt: skip
    return {name: strings(table(name, rows)) for name, rows in parts.items()} | {"accuracy": accuracy()}


@pytest.mark.parametrize("name", [*PARTS, "gradients", "judgement", "merge_path", "kl", "likelihood", "accuracy"])
def test_no_sentence_claims_a_side_where_n_is_under_ten(name):
    frame = sides()[name]
    told = claimed(sentences(name, frame))
    assert told and all("uncorrected" in text for text in told)
    told = sentences(name, frame.with_columns(n=pl.lit(9)))
    assert not [text for text in claimed(told) if "0 of" not in text]
    assert any("under 10 clusters" in text or "no barrier is decided" in text for text in told)


@pytest.mark.parametrize(("layers", "claim"), [(9, False), (10, True)])
def test_many_matrices_of_few_layers_are_few_clusters(layers, claim):
    """40 linear layers, all within so many decoder layers."""
    common = {"update": "trained", "dataset": "all", "split": "all"}
    each = [{**common, "kind": "q", "layer": layer, "statistic": "effective_rank"} for layer in range(layers)]
    rows = [row | base(1.0, 0.1) for row in each] + sides()["spectrum"].drop("study").to_dicts()
    told = sentences("spectrum", strings(table("spectrum", rows)))
    assert bool(claimed(told)) == claim and (claims.FEW.capitalize() in told[1]) != claim


@pytest.mark.parametrize(("items", "claim"), [(40, False), (39, True)])
def test_the_summary_knows_how_few_captions_memes_have(items, claim):
    """Of `items` memes or fewer on that split it says so; the table has 40."""
    keys = {"question": BETTER, "method": "grpo", "versus": "dpo", "measure": "image_share", "split": "test"}
    rows = [{**keys, "statistic": "p_holm", "value": None, "n": 2, "verdict": claims.FEW}]
    rows += [{**keys, "statistic": "difference", "seed": s, "value": 1.0, "n": items + s - 1} for s in (1, 2)]
    told = sentences("attention", sides()["attention"], strings(table("summary", rows)))
    assert bool(claimed(told)) == claim


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_table_without_values_says_why(name):
    row = {**EMPTY, "method": "sft", "seed": 1, "statistic": "x", "missing": "it was <lost>"}
    keys = {f.name: "x" for f in schemas.SCHEMAS[name] if not f.nullable and f.name not in (*HOME, *row, "n", "unit")}
    keys |= {"t": 0.5} if "t" in keys else {}
    frame = strings(table(name, [{**keys, **row}]))
    assert sentences(name, frame) and sentences(name, frame.clear())
    if name != "summary":
        assert sentences(name, frame) == ["No trained policy has a value in this table: it was <lost>."]


def test_every_analysis_has_sentences_and_a_definition():
    assert set(OWN) == set(KNOWN)


def test_an_analysis_of_a_user_is_told_of_by_its_rows():
    rows = runs({"sft": (30, 31), "<b>": (20, 21)}, 2, statistic="mean_length", unit="token")
    frame = pl.DataFrame([{**HOME, "n": 40, "missing": None, "mine": "x", **row} for row in rows])
    first, second = sentences("length", frame)
    assert first.startswith("Mean length on val of memes, at the end of training: SFT has most, 30 tokens [28, 32]")
    assert (
        second
        == "In every seed SFT lies above <b> (intervals apart, uncorrected; the summary has the corrected claims)."
    )
