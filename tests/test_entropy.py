"""The analysis `entropy`: prompts by hand, relations by brute force, the made-up study end to end, bad input."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

import synthetic
from analysed_study import script
from memedynamics import answer_entropy, curves, entropy_paths, figures, gather, relations, stats, tables, token_entropy
from memedynamics.errors import InputError
from memedynamics.figure_entropy import _against, figure_entropy

WORKFLOW = Path(__file__).parents[1] / "workflow"
RESAMPLES = 60
PROMPTS = pl.DataFrame(
    {"dataset": "d", "split": "val", "id": ["a", "b"], "label": [1, 0], "text": ["one", "two"]},
    schema_overrides={"label": pl.Int8},
)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return synthetic.write_study(tmp_path_factory.mktemp("entropy"))


@pytest.fixture(scope="module")
def table(paths, tmp_path_factory):
    target = tmp_path_factory.mktemp("entropy") / "entropy.parquet"
    analyse(paths, target)
    return tables.read(target, "entropy")


def analyse(paths: dict[str, list[Path]], target: Path) -> None:
    names = ("samples", "base", "traces", "runs", "data")
    script("entropy").main(**{name: paths[name] for name in names}, table=target, resamples=RESAMPLES)


def one(table: pl.DataFrame, **where: object) -> dict:
    for column, value in where.items():
        table = table.filter(pl.col(column).is_null() if value is None else pl.col(column) == value)
    assert len(table) == 1, f"{len(table)} rows of {where}"
    return table.row(0, named=True)


VAL = {"dataset": "memes", "split": "val"}
END = {"method": "grpo", "seed": 1, "fraction": 1.0, "versus": None, **VAL}
HEADLINE = {"estimator": "exact", "invalid": "forced"}


# Prompts by hand.
def drawn(**columns: list) -> pl.DataFrame:
    """Samples of the prompts a and b, two each, of one policy."""
    return pl.DataFrame({"id": ["a", "a", "b", "b"], "sample": [1, 0, 0, 1], **columns}).with_columns(
        method=pl.lit("sft"), seed=1, fraction=1.0, probe_kind=pl.lit("own_sample"), dataset=pl.lit("d"),
        split=pl.lit("val"),
    )  # fmt: skip


def test_prompts_by_hand():
    """a: q = .9, .1, label mass 1 and .5, answers yes, no. b: q = .8 and a forced .2, answers yes, invalid.

    a, forced: H(.5) = .693147 = .325083 + .368064; jackknifed 1.061211 (see test_information).
    b, forced: H(.5) again, mean H = H(.8) = .500402; dropped: one rationale, H(.8), no jackknife.
    a, third: distributions (.9, .1, 0) and (.05, .45, .5), mean (.475, .275, .25):
    .475·.744440 + .275·1.290984 + .25·1.386294 = .353609 + .355021 + .346574 = 1.055204.
    """
    frame = drawn(
        p_hateful=[0.1, 0.9, 0.8, 0.2], label_mass=[0.5, 1.0, 1.0, 1.0], forced=[False, False, False, True],
        answer=["no", "yes", "yes", "invalid"], correct=[False, True, False, False],
    )  # fmt: skip
    found = answer_entropy.per_prompt(frame, PROMPTS, 2).sort("id")

    def of(name: str) -> list[float | None]:
        known = f"{name}#" in found.columns
        values = found.select(pl.when(pl.col(f"{name}#") == 1).then(name)) if known else found.select(name)
        return values.to_series().to_list()

    h8 = -0.8 * np.log(0.8) - 0.2 * np.log(0.2)
    assert of("exact_uncorrected/forced///entropy") == pytest.approx([0.693147] * 2, abs=1e-6)
    assert of("exact/forced///entropy")[0] == pytest.approx(1.061211, abs=1e-6)
    assert of("exact/forced///entropy_given_rationale") == pytest.approx([0.325083, h8], abs=1e-6)
    assert of("exact_uncorrected/dropped///entropy") == pytest.approx([0.693147, h8], abs=1e-6)
    # Without a jackknife none of its terms counts, so that they add up over prompts.
    assert of("exact/dropped///entropy")[1] is None and of("exact/dropped///entropy_given_rationale")[1] is None
    assert of("exact_uncorrected/third///entropy")[0] == pytest.approx(1.055204, abs=1e-6)
    # b, third: (.8, .2, 0) and (0, 0, 1), mean (.4, .1, .5).
    assert of("exact_uncorrected/third///entropy")[1] == pytest.approx(-sum(p * np.log(p) for p in (0.4, 0.1, 0.5)))
    assert of("plug_in/dropped///entropy") == pytest.approx([np.log(2), 0])
    assert of("plug_in/third///entropy") == pytest.approx([np.log(2)] * 2)
    assert of("unbiased/dropped///gini") == [1, None] and of("unbiased/third///gini") == [1, 1]
    assert of("brier") == pytest.approx([0.25, 0.25]) and of("right") == [0.5, 0]
    assert (of("yes"), of("no"), of("invalid")) == ([0.5, 0.5], [0.5, 0], [0, 0.5])


def test_confident_errors():
    """b is benign and both its rationales say .95 hateful: sure (>= .9) and wrong; a's .95 is sure and right."""
    frame = drawn(
        p_hateful=[0.95] * 4, label_mass=[1.0] * 4, forced=[False] * 4, answer=["yes"] * 4, correct=[True] * 4
    )
    found = answer_entropy.per_prompt(frame, PROMPTS, 2).sort("id")
    assert found["sure"].to_list() == [1, 1] and found["sure_wrong"].to_list() == [0, 1]


# Relations.
def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 6)).round(1), rng.random((30, 6)).round(1)
    expected = [spearmanr(a, b)[0] for a, b in zip(x, y, strict=True)]
    assert relations.rank_correlation(x, y) == pytest.approx(np.array(expected))
    assert np.isnan(relations.rank_correlation(np.ones(4), np.arange(4.0)))
    assert relations.slope(x[0], y[0]) == pytest.approx(np.polyfit(x[0], y[0], 1)[0])


def test_an_interval_over_runs_needs_four():
    """n = 4, rho = 0: tanh(1.96·sqrt(1.06)) = tanh(2.0179) = .9653."""
    assert relations.correlation_interval(0.0, 4) == pytest.approx((-0.9653, 0.9653), abs=1e-4)
    assert (
        np.isnan(relations.correlation_interval(0.5, 3)).all() and np.isnan(relations.correlation_interval(1, 9)).all()
    )


def test_matched_accuracy_by_hand():
    """One reaches .7, the other .8, so both are read at .7.

    one: (.5, .6), (.6, .5), (.7, .4): at its end, .4. other: (.5, .6), (.8, .3), (.6, .5): two thirds up, .6 - .2 = .4.
    """
    found = relations.matched(
        (np.array([0.5, 0.6, 0.7]), np.array([0.6, 0.5, 0.4])), (np.array([0.5, 0.8, 0.6]), np.array([0.6, 0.3, 0.5]))
    )
    assert found == pytest.approx((0.7, 0.4, 0.4))
    fallen = (np.array([0.5, 0.4, 0.3]), np.array([0.6, 0.5, 0.4]))
    assert np.isnan(relations.matched(fallen, (np.array([0.5, 0.8]), np.array([0.6, 0.3])))).all()


# The made-up study.
def samples_of(paths: dict, method: str, seed: int | None, fraction: float, split: str = "val") -> pl.DataFrame:
    """Samples on memes/split, sorted, with their labels."""
    files = paths["base"] if method == "base" else paths["samples"]
    (found,) = [path for path in files if gather.run_of(path) == (method, seed) and (
        method != "base" or (path.parent.name, path.stem) == ("memes", split))]  # fmt: skip
    frame = tables.read(found, "samples").filter(dataset="memes", split=split, fraction=fraction)
    labels = gather.prompts(paths["data"]).select("id", "label")
    return frame.join(labels, on="id").sort("id", "sample")


def test_rows_against_a_loop_over_prompts(table, paths):
    frame = samples_of(paths, "grpo", 1, 1.0)
    q = frame["p_hateful"].to_numpy().reshape(-1, synthetic.SAMPLES)
    label = frame["label"].to_numpy()[:: synthetic.SAMPLES]
    h = lambda p: -p * np.log(p) - (1 - p) * np.log(1 - p)  # noqa: E731
    given, total = h(q).mean(), h(q.mean(1)).mean()
    plain = {"estimator": "exact_uncorrected", "invalid": "forced", **END}
    assert one(table, statistic="entropy", **plain)["value"] == pytest.approx(total)
    assert one(table, statistic="entropy_given_rationale", **plain)["value"] == pytest.approx(given)
    assert one(table, statistic="information_rationale", **plain)["value"] == pytest.approx(total - given)
    wrong = (q.mean(1) >= 0.5) != (label == 1)
    area = stats.auroc(h(q.mean(1)), wrong.astype(int))[0]
    assert one(table, statistic="auroc_error", **END)["value"] == pytest.approx(area)
    assert one(table, statistic="brier", **END)["value"] == pytest.approx(((q.mean(1) - label) ** 2).mean())
    assert one(table, statistic="risk", coverage=1.0, **END)["value"] == pytest.approx(wrong.mean())
    assert one(table, statistic="accuracy", **END)["value"] == pytest.approx(frame["correct"].mean())
    assert one(table, statistic="entropy", **plain)["n"] == 50


def test_the_parts_add_up_in_every_policy_and_place(table):
    keys = ["method", "seed", "fraction", "dataset", "split", "estimator", "invalid"]
    terms = table.filter(pl.col("statistic").is_in(answer_entropy.TERMS))
    wide = terms.filter(pl.col("estimator").str.starts_with("exact"), pl.col("versus").is_null()).pivot(
        "statistic", index=keys, values="value"
    )
    assert len(wide) > 100
    gap = wide["entropy"] - wide["entropy_given_rationale"] - wide["information_rationale"]
    assert gap.abs().max() < 1e-9


def test_information_from_the_joint_of_single_answers(table, paths):
    """I(ŷ; label) and I(ŷ_π; ŷ_π0) from counts of all responses, and of all pairs of a policy's and the base's."""
    ours, theirs = samples_of(paths, "grpo", 1, 1.0), samples_of(paths, "base", None, 0.0)
    where = {"estimator": "plug_in", "invalid": "third", **END}

    def information(counts: pl.DataFrame) -> float:
        p = counts["n"].to_numpy() / counts["n"].sum()
        margin = [counts.select(pl.col("n").sum().over(c))["n"].to_numpy() / counts["n"].sum() for c in ("a", "b")]
        return float((p * np.log(p / margin[0] / margin[1])).sum())

    single = ours.group_by(a="answer", b="label").agg(n=pl.len())
    plug_in = one(table, statistic="information_label_plug_in", **where)
    assert plug_in["value"] == pytest.approx(information(single)) and plug_in["ci_low"] is None
    pairs = ours.select("id", a="answer").join(theirs.select("id", b="answer"), on="id")
    expected = information(pairs.group_by("a", "b").agg(n=pl.len()))
    row = one(table, statistic="information_base_plug_in", **{**where, "versus": "base"})
    assert row["value"] == pytest.approx(expected)
    null = one(table, statistic="information_label_null", **where)
    assert 0 <= null["ci_low"] < null["value"] < null["ci_high"] < information(single)
    found = one(table, statistic="information_label", **where)
    assert found["value"] == pytest.approx(information(single) - null["value"])
    assert 0 < found["ci_low"] < found["value"] < found["ci_high"]


def test_no_information_lies_outside_its_own_interval(table):
    """A value within its null is bounded by 0; the rest of them start above it or at it."""
    rows = table.filter(pl.col("statistic").is_in(["information_label", "information_base"]))
    assert len(rows) > 50 and rows["value"].min() >= 0
    assert (rows["ci_low"] <= rows["value"]).all() and (rows["value"] <= rows["ci_high"]).all()
    keys = ["method", "seed", "fraction", "dataset", "split", "estimator", "invalid", "versus"]
    for name in ("information_label", "information_base"):
        of = {part: table.filter(statistic=f"{name}{part}") for part in ("", "_plug_in", "_null")}
        both = of[""].join(of["_plug_in"], keys, suffix="_plug_in", nulls_equal=True)
        both = both.join(of["_null"], keys, suffix="_null", nulls_equal=True)
        chance = both["value_plug_in"] <= both["ci_high_null"]
        assert len(both) == len(of[""]) and (both.filter(chance)["ci_low"] == 0).all()


def test_paired_differences_with_the_base(table):
    found = one(table, statistic="entropy_difference", **HEADLINE, **{**END, "versus": "base"})
    base = one(table, statistic="entropy", method="base", **HEADLINE, **VAL)["value"]
    assert found["value"] == pytest.approx(one(table, statistic="entropy", **HEADLINE, **END)["value"] - base)
    assert found["ci_low"] < found["value"] < found["ci_high"]


def test_paths_and_runs(table):
    names = ["path_accuracy", "path_entropy"]
    path = table.filter(pl.col("statistic").is_in(names), pl.col("split") == "val")
    run = path.filter((pl.col("method") == "base") | ((pl.col("method") == "sft") & (pl.col("seed") == 2)))
    wide = run.pivot("statistic", index="fraction", values="value").sort("fraction")
    assert wide["fraction"].to_list() == [0, *synthetic.FRACTIONS]
    here = {**END, "method": "sft", "seed": 2}
    found = one(table, statistic="milestone_correlation", **here)
    assert (found["value"], found["n"]) == (pytest.approx(spearmanr(wide[names[0]], wide[names[1]])[0]), 4)
    ends = table.filter(pl.col("statistic").is_in(names), pl.col("split") == "val", pl.col("fraction") == 1)
    runs = ends.pivot("statistic", index=["method", "seed"], values="value")
    whole = one(table, statistic="run_correlation", **VAL)
    assert (whole["method"], whole["seed"], whole["n"]) == (entropy_paths.ALL_RUNS, None, 6)
    assert whole["value"] == pytest.approx(spearmanr(runs[names[0]], runs[names[1]])[0])
    # Only val is answered at every milestone.
    assert set(table.filter(pl.col("statistic") == "milestone_correlation")["split"]) == {"val"}
    matched = table.filter(pl.col("statistic") == "matched_entropy_difference")
    assert len(matched) == 6 and set(matched["seed"]) == {1, 2}


def test_the_path_of_a_run_that_starts_elsewhere_is_its_own():
    """Base, own start and end: two points of its own make no path, three do, and the base is not among them."""
    keys = [{"method": "base", "seed": None, "fraction": 0.0}]
    keys += [{"method": "on", "seed": 1, "fraction": fraction} for fraction in (0.0, 0.5, 1.0)]
    numbers = curves.Estimate(np.array([0.5, 0.6, 0.7, 0.8]), np.array([[0.5, 0.6, 0.7, 0.8]]), "1")
    both = {"path_accuracy": numbers, "path_entropy": numbers}
    runs = pl.DataFrame({"method": ["on"], "seed": [1], "starts_at": ["sft"]})
    (path,) = entropy_paths._paths(keys, range(4), both, runs)
    assert path.value[0].tolist() == [0.6, 0.7, 0.8]
    assert not entropy_paths._paths([keys[0], *keys[2:]], range(3), both, runs)
    (path,) = entropy_paths._paths([keys[0], *keys[2:]], range(3), both, runs.with_columns(starts_at=pl.lit("base")))
    assert path.value[0].tolist() == [0.5, 0.6, 0.7]


def test_token_entropy_is_a_ratio_of_sums_by_span(paths, table):
    """a: one rationale token of 1 nat and an end of 3; b: three of 2: rationale 7/4, all 10/5, end 3."""
    rows = pl.DataFrame(
        {
            "id": ["a", "a", "b", "b", "b"],
            "span": ["rationale", "end", *["rationale"] * 3],
            "entropy": [1.0, 3, 2, 2, 2],
        }
    ).with_columns(
        fraction=1.0, probe_kind=pl.lit("own_sample"), dataset=pl.lit("d"), split=pl.lit("val"), sample=pl.lit(0)
    )
    summed = gather.labelled(token_entropy.per_prompt(rows.lazy()), "sft", 1)
    found = {row["statistic"]: row["value"] for row in token_entropy.token_rows(summed, PROMPTS, 5)}
    name = "exact//{}//token_entropy".format
    assert (found[name("rationale")], found[name("all")], found[name("end")]) == (7 / 4, 2, 3)
    assert np.isnan(found[name("answer")])
    end = {"statistic": "token_entropy", "method": "sft", "seed": 1, "fraction": 1.0, "versus": None, **VAL}
    assert one(table, span="rationale", probe_kind="base_sample", **end)["value"] == 1.0


def test_equal_input_gives_equal_tables(paths, table, tmp_path):
    analyse(paths, tmp_path / "again.parquet")
    assert tables.read(tmp_path / "again.parquet", "entropy").drop("study").equals(table.drop("study"))


def test_a_path_that_never_rises_is_missing_with_its_reason(paths, table, tmp_path):
    """DPO's answers are made all wrong: no accuracy above the start's to match, and a reason in place of a value."""
    spoilt = {**paths, "samples": []}
    for path in paths["samples"]:
        frame = tables.read(path, "samples")
        if gather.run_of(path)[0] == "dpo":
            path = tmp_path / "samples/dpo" / path.name
            tables.write(frame.with_columns(correct=pl.lit(False)), path, "samples")
        spoilt["samples"].append(path)
    analyse(spoilt, tmp_path / "entropy.parquet")
    rows = tables.read(tmp_path / "entropy.parquet", "entropy").filter(statistic="matched_entropy_difference")
    dpo = (pl.col("method") == "dpo") | (pl.col("versus") == "dpo")
    assert rows.filter(dpo)["value"].null_count() == 4 and set(rows.filter(dpo)["missing"]) == {entropy_paths.FLAT}
    assert rows.filter(~dpo)["value"].null_count() == 0 and rows.filter(~dpo)["missing"].null_count() == 2


# Bad input.
@pytest.mark.parametrize("keep", [pl.col("sample") > 0, (pl.col("sample") > 0) | (pl.col("id") != "memes-val-003")])
def test_another_k_is_refused_by_name(paths, tmp_path, keep):
    """Fewer answers everywhere in one file, or to one of its prompts."""
    bad = tmp_path / "samples/sft/seed1.parquet"
    tables.write(tables.read(paths["samples"][0], "samples").filter(keep), bad, "samples")
    with pytest.raises(InputError, match=f"{bad}: 3( and 4)? responses a prompt, not 4"):
        analyse({**paths, "samples": [bad]}, tmp_path / "entropy.parquet")
    assert not (tmp_path / "entropy.parquet").exists()


@pytest.mark.parametrize("name", ["samples", "traces", "data"])
def test_a_cut_table_is_named(paths, tmp_path, name):
    good = paths[name][-1]
    good = next(good.rglob("*.parquet")) if good.is_dir() else good
    bad = tmp_path / "grpo/seed2.parquet"
    bad.parent.mkdir()
    bad.write_bytes(good.read_bytes()[:-30])
    with pytest.raises(InputError, match=f"{bad}: not a whole Parquet"):
        analyse({**paths, name: [*paths[name][:-1], bad]}, tmp_path / "entropy.parquet")


@pytest.mark.parametrize(("name", "column"), [("samples", "p_hateful"), ("traces", "entropy")])
def test_numbers_that_are_none_are_named(paths, tmp_path, name, column):
    good = paths[name][-1]
    good = next(good.rglob("*.parquet")) if good.is_dir() else good
    bad = tmp_path / "grpo/seed2/1-of-1.parquet"
    spoilt = pl.when(pl.int_range(pl.len()) == 7).then(float("nan")).otherwise(column).alias(column)
    tables.write(tables.read(good, name).with_columns(spoilt), bad, name)
    with pytest.raises(InputError, match=f"{bad.parent}.*{column}"):
        analyse({**paths, name: [*paths[name][:-1], bad]}, tmp_path / "entropy.parquet")


def test_no_torch():
    code = "import runpy, sys; runpy.run_path('scripts/entropy.py', run_name='x'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, '.'); {code}"], cwd=WORKFLOW, check=True)


# The figure.
def test_the_figure_shows_every_run(table):
    figure = figure_entropy(table, ["a note"])
    for method in synthetic.METHODS:
        colour = figures.COLOURS[method]
        symbols = {t.marker.symbol for t in figure.data if t.marker.color == colour}
        assert symbols == set(figures.MARKERS[:2])
        # Two seeds, their paths and their risk-coverage curves.
        lines = [t for t in figure.data if t.line.color == colour and t.mode == "lines+markers"]
        assert sorted(len(t.x) for t in lines) == [4, 4, 10, 10]
    words = " ".join(note.text or "" for note in figure.layout.annotations)
    assert "Spearman" in words and "zero-shot .33 / 65.9" in words
    # What an answer tells is drawn with its interval, which holds it.
    told = table.filter(statistic="information_base", estimator="plug_in", invalid="third", split="val", fraction=1.0)
    drawn = {round(y, 9) for t in figure.data if t.xaxis == "x7" and t.mode == "markers" for y in t.y}
    assert len(told) == 6 and {round(value, 9) for value in told["value"]} <= drawn


def test_the_figure_draws_a_path_from_the_runs_own_start(table):
    """With rows at fraction 0 a run does not begin at the base: as many points as before, none of them the base's."""
    sft = table.filter(pl.col("method") == "sft", pl.col("statistic").is_in(["path_accuracy", "path_entropy"]))
    own = sft.filter(pl.col("fraction") == synthetic.FRACTIONS[0]).with_columns(fraction=pl.lit(0.0))
    figure = figure_entropy(pl.concat([table, own]), [])
    paths = [t for t in figure.data if t.line.color == figures.COLOURS["sft"] and t.xaxis == "x"]
    base = next(t for t in figure.data if t.marker.color == figures.COLOURS["base"] and t.xaxis == "x")
    assert [len(t.x) for t in paths] == [4, 4] and all(t.x[0] == t.x[1] and t.x[0] != base.x[0] for t in paths)


def test_the_figure_of_a_single_run_and_milestone(table):
    alone = table.filter((pl.col("method") == "base") | ((pl.col("method") == "sft") & (pl.col("seed") == 1)))
    alone = alone.filter(pl.col("fraction").is_in([0.0, 1.0]), ~pl.col("statistic").str.starts_with("path_"))
    assert len(figure_entropy(alone, []).data) > 10
    assert any(note.text == "nothing to compare" for note in figure_entropy(alone, []).layout.annotations)


def test_differences_with_one_method_all_point_the_same_way():
    """em - sft stays .2 [.1, .4]; sft - ties = .3 [.2, .5] becomes ties - sft = -.3 [-.5, -.2]; em - ties goes."""
    rows = pl.DataFrame(
        [("em", "sft", 0.2, 0.1, 0.4), ("sft", "ties", 0.3, 0.2, 0.5), ("em", "ties", 0.5, 0.3, 0.9)],
        schema=["method", "versus", "value", "ci_low", "ci_high"], orient="row",
    )  # fmt: skip
    found = _against(rows.with_columns(pair=pl.lit("")), "sft").select("pair", "value", "ci_low", "ci_high").rows()
    assert found == [("em", 0.2, 0.1, 0.4), ("ties", -0.3, -0.5, -0.2)]
