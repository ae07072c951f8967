"""The summary by hand: numbers picked from the analyses, claims at equal seeds, relations across runs, blanks."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from memedynamics import claims, questions, schemas, summary, tables
from memedynamics.cells import TABLE, pick
from memedynamics.figure_summary import figure_summary
from memedynamics.questions import BETTER, FEWER, GAP, LEANS, NOISE, PREDICTS, SURER
from memedynamics.verdicts import claims_table

ROOT = Path(__file__).parents[1]
KINDS = {"sft": "sft", "dpo": "dpo", "grpo": "grpo", "em": "em"}
RUNS = [(method, seed) for method in ("sft", "dpo", "grpo") for seed in (1, 2)]
ACCURACY = {
    ("sft", 1): 0.74,
    ("sft", 2): 0.78,
    ("dpo", 1): 0.66,
    ("dpo", 2): 0.65,
    ("grpo", 1): 0.72,
    ("grpo", 2): 0.73,
}
KL = {("sft", 1): 0.75, ("sft", 2): 0.8, ("dpo", 1): 0.1, ("dpo", 2): 0.12, ("grpo", 1): 0.2, ("grpo", 2): 0.3}
RECORD = {"total_steps": 60, "tokens": 90_000, "flops": 2.8e11}


def rows(statistic, values, split, half=0.01, dataset="memes", fraction=1.0, **keys):
    """A row a run: `values` by (method, seed), its interval ± `half`."""
    common = {"fraction": fraction, "dataset": dataset, "split": split, "statistic": statistic, "n": 200, "unit": "1"}
    return [
        {**common, **keys, "method": m, "seed": s, "value": v, "ci_low": v - half, "ci_high": v + half, "missing": None}
        for (m, s), v in values.items()
    ]


def table(*parts):
    return pl.DataFrame([row for part in parts for row in part], infer_schema_length=None).cast({"seed": pl.Int32})


def differences(values, one, other):
    return {(one, seed): values[one, seed] - values[other, seed] for seed in (1, 2)}


def analyses():
    own, moved = {"probe_kind": "own_sample"}, TABLE["forward_kl"].keys
    base = {("base", None): 0.57}
    gained = {run: value - 0.57 for run, value in ACCURACY.items()}
    surer = {run: 0.5 - 0.3 * value for run, value in ACCURACY.items()}
    look = TABLE["image_attention"].keys
    return {
        "accuracy": table(
            rows("accuracy", ACCURACY | base, "val", **own, versus=None),
            rows("accuracy", {run: 0.1 for run in RUNS}, "val", fraction=0.5, **own, versus=None),
            rows("accuracy_difference", gained, "val", **own, versus="base"),
            rows("accuracy_difference", gained, "test", dataset="away", **own, versus="base"),
            # The other way round: DPO minus GRPO.
            rows("accuracy_difference", differences(ACCURACY, "dpo", "grpo"), "val", 0.02, **own, versus="grpo"),
            rows("probe_accuracy_gap", {run: 0.02 for run in RUNS}, "train-val", 0.03, **own, versus=None),
            rows("probe_accuracy_gap_difference", {("grpo", s): 0.0 for s in (1, 2)}, "train-val", **own, versus="sft"),
        ),
        "kl": table(
            rows("per_response", KL, "val", **moved),
            rows("per_response", {run: 2 * value for run, value in KL.items()}, "test", dataset="away", **moved),
        ),
        "entropy": table(rows("entropy", surer, "val", **TABLE["decision_entropy"].keys)),
        "attention": table(
            rows("image_share", {run: 0.3 for run in RUNS}, "test", **look),
            rows("image_share_difference", {("sft", 1): 0.0, ("sft", 2): 0.0}, "test", **{**look, "versus": "dpo"}),
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return measured(KINDS)


def measured(kinds):
    runs = pl.DataFrame(
        [{"method": m, "seed": s, "fraction": 1.0, "step": 60, "reference": "base"} for m, s in RUNS],
        schema_overrides={"seed": pl.Int32},
    )
    records = {run: RECORD for run in RUNS} | {("theirs", 0): {"total_steps": None}}
    splits = [(f"{split}{i}", split) for split in ("train", "val", "test") for i in range(200)]
    prompts = pl.DataFrame({"dataset": "memes", "split": [s for _, s in splits], "text": [name for name, _ in splits]})
    frame = summary.measure(analyses(), records, [], prompts, runs, kinds, "memes")
    return pl.from_arrow(tables.conform(frame, "summary")).with_columns(pl.col(pl.Categorical).cast(pl.String))


def of(found, question, statistic):
    return (
        found.filter(pl.col("question") == question, pl.col("statistic") == statistic).sort("method", "seed").to_dicts()
    )


def test_the_table_holds_the_last_milestone_of_every_run(found):
    side = found.filter(pl.col("question").is_null())
    gains = side.filter(pl.col("statistic") == "accuracy_gain").sort("method", "seed")
    assert gains["value"].to_list() == pytest.approx([0.09, 0.08, 0.15, 0.16, 0.17, 0.21])
    away = side.filter(pl.col("statistic") == "forward_kl_out_of_domain", pl.col("method") == "sft")
    assert away["dataset"].to_list() == ["away"] * 2 and away["value"].to_list() == [1.5, 1.6]
    steps = side.filter(pl.col("statistic") == "total_steps").sort("method", "seed")
    assert steps["value"].to_list() == [60] * 6 + [None]
    assert steps["missing"].to_list() == [None] * 6 + ["it was not trained here"]


def test_grpo_is_better_whichever_way_round_the_analysis_wrote_it(found):
    """Differences .06 and .08 ± .02: standard error .02/1.96, z = 5.9 and 7.8; both seeds, all four crossed pairs."""
    numbers = of(found, BETTER, "difference")
    assert [row["value"] for row in numbers] == pytest.approx([0.06, 0.08])
    assert [(row["ci_low"], row["ci_high"]) for row in numbers] == [
        pytest.approx((0.04, 0.08)),
        pytest.approx((0.06, 0.1)),
    ]
    judged = {row["split"]: row for row in of(found, BETTER, "p_holm")}
    assert judged["val"]["verdict"] == "yes" and judged["val"]["value"] < 1e-6 and judged["val"]["n"] == 2
    assert set(judged) == {"val"}


def test_equal_gaps_are_not_decided(found):
    """A paired difference with SFT, of 0; with DPO there is none."""
    assert [row["value"] for row in of(found, GAP, "difference")] == [0, 0]
    said = {row["versus"]: row["verdict"] for row in of(found, GAP, "p_holm")}
    assert said == {"sft": claims.UNDECIDED, "dpo": claims.NO_INTERVAL}
    assert len(of(found, GAP, "train_val_gap")) == 6


def test_relations_have_one_point_a_run(found):
    """KL away is twice KL at home: ρ = 1; three methods have six orders, so nothing is decided, and there is no p."""
    both = {row["versus"]: row for row in of(found, PREDICTS, "correlation")}
    assert both["forward_kl, forward_kl_out_of_domain"]["value"] == pytest.approx(1)
    assert both["forward_kl, forward_kl_out_of_domain"]["n"] == 6
    said = {row["versus"]: row for row in of(found, PREDICTS, "p_holm")}
    away = said["forward_kl, forward_kl_out_of_domain"]
    assert (away["verdict"], away["value"], away["n"]) == (claims.FEW_METHODS, None, 3)
    (surer,) = of(found, SURER, "p_holm")
    assert surer["verdict"] == claims.FEW_METHODS and of(found, SURER, "correlation")[0]["value"] == pytest.approx(-1)


def test_runs_made_of_others_are_in_no_relation():
    """Two seeds of each of three methods; without DPO, were it a merge, four runs are left."""
    alone = measured({name: kind for name, kind in KINDS.items() if name != "dpo"})
    assert {row["n"] for row in of(alone, PREDICTS, "correlation")} == {4}


def test_what_was_not_measured_is_not_decided(found):
    """Spectrum and noise are not among these analyses; no paired look for GRPO, and none that differs for SFT."""
    assert {row["verdict"] for row in of(found, FEWER, "p_holm")} == {claims.UNDECIDED}
    assert {row["verdict"] for row in of(found, LEANS, "p_holm")} == {claims.UNDECIDED, claims.NO_INTERVAL}
    assert of(found, FEWER, "p_holm")[0]["value"] is None
    assert not of(found, NOISE, "p_holm")


def test_a_question_is_asked_of_the_first_method_of_a_kind():
    kinds = {"mine": "sft", "sft": "sft", "dpo": "dpo"}
    asked = questions.asked(kinds, None)
    assert {(claim.first, claim.second) for claim in asked} == {("mine", "dpo")}


def test_every_cell_names_columns_of_its_analysis():
    for cell in TABLE.values():
        assert set(cell.keys) <= set(schemas.SCHEMAS[cell.analysis].names)
        assert pick({}, cell, "memes").is_empty()


def test_the_figure_shows_every_run_and_every_claim(found):
    lines = claims_table(found)
    assert [line.question for line in lines if line.question] == [BETTER, GAP, FEWER, PREDICTS, SURER, LEANS]
    assert lines[0].compared == "GRPO against DPO"
    assert [line.compared for line in lines if line.question == SURER] == [""]
    assert lines[0].numbers.startswith("seed 1: +0.06 [0.04, 0.08]; seed 2: +0.08") and lines[0].seeds == "agree (2)"
    (related,) = [line for line in lines if line.question == SURER]
    assert related.numbers.startswith("ρ of 6 runs, 3 methods: -1") and (related.seeds, related.p) == ("", "")
    figure = figure_summary(found, ["a note"])
    assert sum(len(trace.x) for trace in figure.data if trace.type == "scatter" and trace.xaxis == "x") == 6


def test_a_panel_that_nothing_fills_is_there_and_says_so(found):
    """Without a trace of its own a panel has no axes, and plotly puts its title into another."""
    empty = found.with_columns(
        value=pl.when(pl.col("statistic") == "accuracy", pl.col("question").is_null()).then(None).otherwise("value")
    )
    for frame in (empty, found.filter((pl.col("statistic") != "accuracy") | pl.col("question").is_not_null())):
        figure = figure_summary(frame)
        said = [note for note in figure.layout.annotations if note.text == "no run has a value"]
        assert "x domain" in {note.xref for note in said}
        assert any(trace.xaxis == "x" and len(trace.x) for trace in figure.data if trace.type == "scatter")


def test_the_table_has_room_for_every_line_of_text(found):
    """At least 15 px a line of text and 13 around it, in plotly's domain of the table; names that wrap take more."""
    long = found.with_columns(pl.col("method", "versus").replace({"dpo": "dpo-with-the-pairs-of-the-judge"}))
    heights = []
    for frame in (found, long):
        figure = figure_summary(frame)
        (drawn,) = [trace for trace in figure.data if trace.type == "table"]
        layout = figure.layout
        heights.append((layout.height - layout.margin.t - layout.margin.b) * (drawn.domain.y[1] - drawn.domain.y[0]))
        assert heights[-1] > 28 * (len(claims_table(frame)) + 1)
    assert heights[1] > heights[0] + 15


def test_upright_names_of_many_methods_have_room(found):
    """A name of ten letters takes 70 px with its tick, the title of the panel below 25, and some room between."""
    sft = found.filter(pl.col("method") == "sft")
    layout = figure_summary(pl.concat([found, *(sft.with_columns(method=pl.lit(f"sft-{n}")) for n in range(6))])).layout
    gap = layout.yaxis.domain[0] - layout.yaxis5.domain[1]
    assert (layout.height - layout.margin.t - layout.margin.b) * gap > 105


def test_the_reduction_never_imports_torch():
    code = "import sys, memedynamics.summary, memedynamics.gains; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "workflow")})
