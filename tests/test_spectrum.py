"""The analysis `spectrum`: means, intervals and matched norms by hand, no torch, and its figure."""

import math
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

from memedynamics import schemas, spectrum, spectrum_norms, spectrum_overlaps
from memedynamics.figure_spectrum import figure_spectrum
from memedynamics.figures import COLOURS

WORKFLOW = Path(__file__).parents[1] / "workflow"
RUNS = pl.DataFrame(
    [("base", None, 0.0, 0), *((m, s, f, round(80 * f)) for m in ("sft", "dpo") for s in (1, 2) for f in (0.5, 1.0))],
    schema={"method": pl.String, "seed": pl.Int32, "fraction": pl.Float64, "step": pl.Int64},
    orient="row",
).with_columns(reference=pl.lit("base"))
MODULES = [("layers.0.q_proj", 0, "q_proj"), ("layers.0.up_proj", 0, "up_proj"), ("layers.1.q_proj", 1, "q_proj")]


def module_row(norm: float, directions: float | None) -> dict:
    """Measures of one module: its size, and every shape equal to `directions`."""
    measured = dict.fromkeys(schemas.SCHEMAS["extract_spectrum"].names[7:], 0.5)
    shapes = dict.fromkeys(("stable_rank", "effective_rank", "participation_ratio", "k90"), directions)
    sizes = {"frobenius": 10 * norm, "relative_frobenius": norm, "relative_spectral": norm}
    values = [] if directions is None else [8 * norm, 6 * norm]
    return {**measured, **sizes, **shapes, "singular_values": values, "rank": 8, "missing": None}


def run(method: str, seed: int, milestones: dict[float, tuple], update: str = "trained") -> pl.DataFrame:
    """The extract of a run: by fraction the norm of all modules, and the directions of each."""
    rows = [
        {"method": method, "seed": seed, "fraction": fraction, "update": update, "module": name, "layer": layer,
         "kind": kind, **module_row(norm, directions[i])}
        for fraction, (norm, directions) in milestones.items()
        for i, (name, layer, kind) in enumerate(MODULES)
    ]  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"seed": pl.Int32, "layer": pl.Int32})


def measured(*frames: pl.DataFrame, resamples: int = 200, compared: tuple[str, ...] = ()) -> pl.DataFrame:
    return spectrum.measure(pl.concat(frames, how="vertical_relaxed"), {}, RUNS, resamples, compared)


def found(table: pl.DataFrame, statistic: str, kind: str = "all", layer: int | None = None, **where: object) -> dict:
    """The one row of `statistic`."""
    here = pl.col("layer").is_null() if layer is None else pl.col("layer") == layer
    where = {"versus": None, **where}
    for name, value in where.items():
        here &= pl.col(name).is_null() if value is None else pl.col(name) == value
    rows = table.filter(here & (pl.col("statistic") == statistic) & (pl.col("kind") == kind))
    assert len(rows) == 1, f"{statistic}: {len(rows)} rows"
    return rows.row(0, named=True)


def test_means_are_over_modules_and_intervals_over_layers():
    """Layer 0 holds 1 and 1, layer 1 holds 4: mean 2; a resample of one layer alone gives 1 or 4."""
    table = measured(run("sft", 1, {1.0: (0.1, (1, 1, 4))}))
    row = found(table, "effective_rank")
    assert (row["value"], row["ci_low"], row["ci_high"], row["n"]) == (2, 1, 4, 3)
    assert found(table, "effective_rank_per_rank")["value"] == 2 / 8
    assert found(table, "effective_rank", kind="q_proj")["value"] == 2.5
    assert found(table, "effective_rank", layer=0)["value"] == 1 and found(table, "effective_rank", layer=0)["n"] == 2
    assert found(table, "effective_rank", layer=1)["ci_low"] is None
    assert (row["step"], row["reference"], row["dataset"], row["split"]) == (80, "base", "all", "all")


def test_singular_values_are_shares_of_the_norm():
    """σ = (8, 6) of a norm of 10, whatever the unit."""
    table = measured(run("sft", 1, {0.5: (0.1, (2, 2, 2)), 1.0: (0.3, (2, 2, 2))}))
    for fraction in (0.5, 1.0):
        values = [found(table, "singular_value", index=i, fraction=fraction)["value"] for i in (1, 2)]
        assert values == pytest.approx([0.8, 0.6])
    assert found(table, "singular_value_at_norm", index=2)["value"] == pytest.approx(0.6)


def test_crossing_by_hand():
    """From .1 to .4: .2 is ln 2/ln 4 = ½ of the way, .1 is its start; a norm never reached, or jumped over, is none."""
    norms = [(0.5, 0.1), (1.0, 0.4)]
    assert spectrum_norms.crossing(norms, 0.2) == pytest.approx((0.5, 1.0, 0.5))
    assert spectrum_norms.crossing(norms, 0.4).share == pytest.approx(1)
    assert spectrum_norms.crossing(norms, 0.1) == (0.5, 0.5, 1)
    assert spectrum_norms.crossing(norms, 0.09) is None and spectrum_norms.crossing(norms, 0.5) is None
    # Shrinking again does not count, the first passing does.
    assert spectrum_norms.crossing([(0.2, 0.1), (0.5, 0.4), (1.0, 0.2)], 0.2).before == 0.2


def test_methods_are_read_at_equal_norm():
    """dpo ends at .2, which sft passes half-way (in log) from .1 to .4: between 2 and 4 directions, at 3/4 of training.

    At the ends of training sft has 4 against 3.5; at equal norm 3 against 3.5.
    """
    sft = run("sft", 1, {0.5: (0.1, (2, 2, 2)), 1.0: (0.4, (4, 4, 4))})
    dpo = run("dpo", 1, {0.5: (0.05, (3, 3, 3)), 1.0: (0.2, (3.5, 3.5, 3.5))})
    table = measured(sft, dpo)
    assert {row["value"] for row in table.filter(pl.col("statistic") == "matched_norm").to_dicts()} == {0.2}
    assert found(table, "fraction_at_norm", method="sft")["value"] == pytest.approx(0.75)
    assert found(table, "fraction_at_norm", method="dpo")["value"] == 1
    assert found(table, "effective_rank_at_norm", method="sft")["value"] == pytest.approx(3)
    assert found(table, "effective_rank_at_norm", method="sft", kind="q_proj")["value"] == pytest.approx(3)
    ends = found(table, "effective_rank_difference", method="dpo", versus="sft", fraction=1.0)
    matched = found(table, "effective_rank_at_norm_difference", method="dpo", versus="sft")
    assert ends["value"] == pytest.approx(-0.5) and matched["value"] == pytest.approx(0.5)
    text = figure_spectrum(table).layout.annotations[-1].text
    assert "DPO +0.50 (as supposed)" in text


def test_a_run_that_starts_beyond_the_norm_says_so():
    far = run("sft", 1, {0.5: (0.3, (2, 2, 2)), 1.0: (0.4, (2, 2, 2))})
    table = measured(far, run("dpo", 1, {1.0: (0.2, (2, 2, 2))}))
    row = found(table, "fraction_at_norm", method="sft")
    assert row["value"] is None and row["missing"] == spectrum_norms.TOO_FAR
    for statistic in ("effective_rank_at_norm", "intruders_at_norm"):
        row = found(table, statistic, method="sft")
        assert row["value"] is None and row["missing"] == spectrum_norms.TOO_FAR
    assert found(table, "effective_rank_at_norm", method="dpo")["value"] == 2


def test_one_short_run_of_another_kind_takes_the_comparison_from_nobody():
    """A run of EM ends at .01, before anyone's first milestone: SFT and DPO are read at DPO's .2 all the same.

    Without a method to compare the smallest final norm of all runs, .01, is where nobody else ever was.
    """
    sft = run("sft", 1, {0.5: (0.1, (2, 2, 2)), 1.0: (0.4, (4, 4, 4))})
    dpo = run("dpo", 1, {0.5: (0.05, (3, 3, 3)), 1.0: (0.2, (3.5, 3.5, 3.5))})
    still = run("kto", 1, {0.5: (0.0, (None,) * 3), 1.0: (0.0, (None,) * 3)})
    frames = sft, dpo, run("em", 1, {0.5: (0.005, (1, 1, 1)), 1.0: (0.01, (1, 1, 1))}), still
    table = measured(*frames, compared=("sft", "dpo", "grpo"))
    assert set(table.filter(pl.col("statistic") == "matched_norm")["value"]) == {0.2}
    assert found(table, "effective_rank_at_norm", method="sft")["value"] == pytest.approx(3)
    for method in ("em", "kto"):
        for statistic in ("fraction_at_norm", "effective_rank_at_norm"):
            row = found(table, statistic, method=method)
            assert row["value"] is None and row["missing"] == spectrum_norms.NEVER
    assert "EM, KTO: never moved as far" in figure_spectrum(table).layout.annotations[-1].text
    for other in ((), ("grpo",)):
        table = measured(*frames, compared=other)
        assert set(table.filter(pl.col("statistic") == "matched_norm")["value"]) == {0.01}
        assert found(table, "effective_rank_at_norm", method="sft")["missing"] == spectrum_norms.TOO_FAR


def test_nulls_of_different_rank_are_different_lines():
    """Random updates of LoRA (two directions) and of DoRA (three of equal size): no mean of the two."""
    lora, dora = (run(method, 1, {1.0: (0.1, (2, 2, 2))}) for method in ("sft", "dora"))
    drawn = run("sft", 1, {1.0: (0.1, (2, 2, 2))}, "random")
    wide = run("dora", 1, {1.0: (0.1, (3, 3, 3))}, "random")
    wide = wide.with_columns(singular_values=pl.lit([0.57] * 3, pl.List(pl.Float64)))
    figure = figure_spectrum(measured(lora, dora, drawn, wide))
    grey = [trace for trace in figure.data if trace.mode == "lines+markers" and trace.line.color == COLOURS["base"]]
    assert sorted([round(y, 2) for y in trace.y if y] for trace in grey) == [[0.57] * 3, [0.8, 0.6]]


def test_an_update_of_zero_has_no_shape():
    """As after a first step at learning rate 0: size 0, no directions, and the later milestone as ever."""
    table = measured(run("sft", 1, {0.5: (0.0, (None,) * 3), 1.0: (0.2, (2, 2, 2))}))
    first = found(table, "effective_rank", fraction=0.5)
    assert first["value"] is None and first["missing"] == spectrum.NOT_MOVED
    assert found(table, "relative_frobenius", fraction=0.5)["value"] == 0
    assert found(table, "effective_rank", fraction=1.0)["missing"] is None
    assert found(table, "effective_rank_at_norm")["value"] == 2


def test_equal_runs_differ_by_nothing_and_seeds_are_not_pooled():
    rng = np.random.default_rng(0)
    runs = {f: (0.1 + f, tuple(rng.random(3))) for f in (0.5, 1.0)}
    table = measured(*(run(m, s, runs) for m in ("sft", "dpo") for s in (1, 2)))
    gaps = table.filter(pl.col("statistic").cast(pl.String).str.ends_with("_difference"))
    assert gaps.select("value", "ci_low", "ci_high").unique().rows() == [(0, 0, 0)]
    # Methods at equal seed, seeds of equal method; never both.
    assert set(gaps.select("method", "seed", "versus").rows()) == {
        ("dpo", 1, "sft"), ("dpo", 2, "sft"), ("dpo", 1, "seed2"), ("sft", 1, "seed2"),
    }  # fmt: skip
    assert set(table["seed"]) == {1, 2}


def test_row_order_does_not_matter():
    frame = pl.concat([run("sft", s, {0.5: (0.1, (1, 2, 3)), 1.0: (0.2, (2, 2, 4))}) for s in (1, 2)])
    assert measured(frame).equals(measured(frame.sample(fraction=1, shuffle=True, seed=0)))


def test_runs_without_updates_say_why():
    empty = run("sft", 1, {1.0: (0.1, (1, 1, 1))}).head(1)
    keys = ("method", "seed", "fraction", "update")
    nothing = empty.with_columns(
        pl.lit(None, kind).alias(name) for name, kind in empty.schema.items() if name not in keys
    )
    nothing = nothing.with_columns(missing=pl.lit("prompt tuning has no weight update"))
    for frames in ([nothing], [nothing, run("dpo", 1, {1.0: (0.1, (1, 1, 1))})]):
        table = measured(*frames)
        row = found(table, "effective_rank", method="sft")
        assert row["value"] is None and row["n"] == 0 and row["missing"] == "prompt tuning has no weight update"
        assert table.filter(method="sft")["value"].null_count() == 2 * len(spectrum.MEASURES)  # and at equal norm
        assert "Not computed for SFT: prompt tuning" in figure_spectrum(table).layout.annotations[-1].text


def test_the_reduction_needs_no_torch():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import spectrum; sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, WORKFLOW / "scripts"], env={**os.environ, "PYTHONPATH": str(WORKFLOW)}
    )
    assert done.returncode == 0


def test_many_pairs_become_a_matrix():
    """Six methods: fifteen pairs of equal seed, and six of seeds; each value once on either side of the diagonal."""
    names = ["sft", "dpo", "grpo", "em", "ties", "a-name-that-is-long"]
    shared = [
        (one, seed, other, update, module, 0.2 if update == "random" else 0.5, 0.9, 0.2)
        for (one, seed), other in [((min(p), s), max(p)) for p in combinations(names, 2) for s in (1, 2)]
        + [((name, 1), "seed2") for name in names]
        for update in ("trained", "random")
        for module, _, _ in MODULES
    ]
    frame = pl.DataFrame(shared, schema=spectrum_overlaps.SCHEMA, orient="row")
    runs = [run(name, seed, {1.0: (0.1, (1, 1, 1))}) for name in names for seed in (1, 2)]
    with patch.object(spectrum_overlaps, "between_runs", return_value=frame):
        table = measured(*runs)
    left, right = [trace for trace in figure_spectrum(table).data if trace.type == "heatmap"]
    assert np.allclose(left.z, 0.5) and np.allclose(right.z, 0.9) and len(set(left.x)) == 6
    words = [axis.title.text for axis in figure_spectrum(table).select_xaxes()]
    assert "random updates: 0.20, between seeds (diagonal) 0.20" in words


def test_the_figure_shows_every_run_and_repeats():
    runs = {f: (0.1 + f, (1.0 + f, 2.0, 3.0)) for f in (0.5, 1.0)}
    frames = [run(m, s, runs) for m in ("sft", "dpo", "my-very-long-method-name") for s in (1, 2)]
    control = run("sft", 1, {1.0: (1.1, (7, 7, 7))}, update="random")
    table = measured(*frames, control)
    figure = figure_spectrum(table)
    again = figure_spectrum(table.sample(fraction=1, shuffle=True, seed=1))
    assert figure.to_json() == again.to_json()
    words = [trace.hovertext for trace in figure.data if trace.hovertext]
    assert words and not any("prompts" in text or "all all" in text for texts in words for text in texts)
    # The control: seven directions in grey.
    assert any(trace.mode == "lines" and trace.y and math.isclose(trace.y[0] or 0, 7) for trace in figure.data)
