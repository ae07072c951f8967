"""The analysis `sharpe`: ratios by hand, the iid-normal interval, planted overfitting, and its script and figure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analysed_study import script
from memedynamics import gather, schemas, sharpe, signal_noise, tables
from memedynamics.errors import InputError
from memedynamics.figure_sharpe import figure_sharpe
from memedynamics.moments import SIZE
from memedynamics.sharpe_check import DISAGREES, JUDGED
from memedynamics.sharpe_ratio import standard_error

SCRIPTS = Path(__file__).parents[1] / "workflow/scripts"
SPLITS = (("d", "train"), ("d", "val"), ("o", "test"))


def prompts(n: int) -> pl.DataFrame:
    """`n` memes a split, labels in turn, every caption its own."""
    rows = [(d, s, f"{i:04d}", i % 2, f"{d} {s} {i}") for d, s in SPLITS for i in range(n)]
    schema = {"dataset": pl.String, "split": pl.String, "id": pl.String, "label": pl.Int8, "text": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("dataset", "split", "id")


def extracted(memes: pl.DataFrame, phi: dict[str, np.ndarray], method: str = "sft", seed: int | None = 1):
    """Extract rows: `phi` of each group, in the order of `memes`; occlusion is 2φ for the first half of the memes."""
    half = pl.col("id").cast(pl.Int64) * 2 < memes["id"].n_unique()
    frames = [
        memes.select("dataset", "split", "id", "label").with_columns(
            group=pl.lit(name), phi=pl.Series(values, dtype=pl.Float64), log_odds=pl.lit(0.5),
            gradient=pl.lit(None, pl.List(pl.Float32)), fraction=pl.lit(1.0 if seed else 0.0),
        ).with_columns(occlusion=pl.when(half).then(pl.col("phi") * 2))
        for name, values in phi.items()
    ]  # fmt: skip
    return gather.labelled(pl.concat(frames), method, seed)


def analysed(rows: pl.DataFrame, memes: pl.DataFrame, resamples: int = 50) -> pl.DataFrame:
    return pl.DataFrame(sharpe.rows(rows, memes, resamples, "d"), infer_schema_length=None)


def one(table: pl.DataFrame, statistic: str, split: str = "val", **where: object) -> dict:
    where = {"label": "all", "split": split, **where}
    found = table.filter(pl.col("versus").is_null(), statistic=statistic, **where)
    assert len(found) == 1, f"{statistic}: {len(found)} rows"
    return found.row(0, named=True)


def test_sharpe_ratio_by_hand():
    """φ = 1, 2, 3, 6: mean 3, deviations −2, −1, 0, 3, s² = 14/3, SR = 3/2.160247 = 1.388730.

    Labels in turn: benign 1, 3 (mean 2, s √2, SR 1.414214), hateful 2, 6 (mean 4, s √8, SR 1.414214).
    Train is 2, 4, 2, 4: mean 3, s² 4/3, SR 2.598076; overfit index 2.598076 − 1.388730 = 1.209346.
    """
    memes = prompts(4)
    phi = np.concatenate([[2, 4, 2, 4], [1, 2, 3, 6], [5, 5, 5, 5]])
    table = analysed(extracted(memes, {"image": phi}), memes)
    assert one(table, "sharpe_ratio")["value"] == pytest.approx(1.388730, abs=1e-6)
    assert one(table, "mean_phi")["value"] == 3 and one(table, "mean_phi")["n"] == 4
    assert one(table, "std_phi")["value"] == pytest.approx(2.160247, abs=1e-6)
    for label in ("benign", "hateful"):
        assert one(table, "sharpe_ratio", label=label)["value"] == pytest.approx(2**0.5)
        assert one(table, "sharpe_ratio", label=label)["n"] == 2
    assert one(table, "overfit_index", "train-val")["value"] == pytest.approx(1.209346, abs=1e-6)
    # Without variance there is no ratio; out of domain no index.
    assert np.isnan(one(table, "sharpe_ratio", "test")["value"])
    assert "o" not in table.filter(statistic="overfit_index")["dataset"].to_list()
    # Occlusion is 2φ: same ratio, perfect correlation, over the first two memes 1, 2.
    assert one(table, "occlusion_correlation")["value"] == pytest.approx(1)
    assert one(table, "occlusion_sharpe_ratio")["value"] == pytest.approx(1.5 / 0.5**0.5)


def test_occlusion_s_ratios_by_label():
    """Of eight memes the first four are occluded, by 2φ: benign 2, 6 (mean 4, s √8), hateful 4, 12 (mean 8, s √32)."""
    memes = prompts(8)
    phi = np.tile([1, 2, 3, 6, 9, 9, 9, 9], 3)
    table = analysed(extracted(memes, {"image": phi}), memes)
    for label in ("benign", "hateful"):
        row = one(table, "occlusion_sharpe_ratio", label=label)
        assert row["value"] == pytest.approx(2**0.5) and row["n"] == 2
    # 2, 4, 6, 12: mean 6, s² = 56/3.
    assert one(table, "occlusion_sharpe_ratio")["value"] == pytest.approx(6 / (56 / 3) ** 0.5)
    keys = ["dataset", "split", "group", "label", "statistic", "versus"]
    assert table.select(pl.struct(keys).n_unique()).item() == len(table)


def test_importance_ratio_by_hand():
    """Picture 1, −3; words: question 1, 2 and caption 1, −1, so 2, 1 in all: (1 + 3)/(2 + 1)."""
    memes = prompts(2)
    phi = {"image": [1, -3] * 3, "question": [1, 2] * 3, "caption": [1, -1] * 3}
    table = analysed(extracted(memes, {name: np.array(values) for name, values in phi.items()}), memes)
    assert one(table, "importance_ratio")["value"] == pytest.approx(4 / 3)
    assert one(table, "importance_ratio")["group"] == "image:text"


def test_interval_is_the_normal_one_for_independent_normal_numbers():
    """SR ½, n = 800: √((1 + ½²/2)/800) = .0375; the bootstrap's half width over 1.96 agrees to a tenth."""
    memes = prompts(800)
    phi = np.random.default_rng(0).normal(0.5, 1, len(memes))
    row = one(analysed(extracted(memes, {"image": phi}), memes, 2000), "sharpe_ratio")
    expected = standard_error(np.array(row["value"]), row["n"])
    assert expected == pytest.approx(0.0375, abs=0.002)
    assert (row["ci_high"] - row["ci_low"]) / 2 / 1.96 == pytest.approx(expected, rel=0.1)
    assert abs(row["value"] - 0.5) < 4 * expected


def test_planted_overfitting_is_found_and_compared():
    """SFT's picture speaks for train labels (SR 1) and not for val's (0); DPO's speaks for both alike (½)."""
    memes, rng = prompts(200), np.random.default_rng(1)
    train = (memes["split"] == "train").to_numpy()
    noise = rng.normal(size=len(memes))
    rows = pl.concat(
        [
            extracted(memes, {"image": noise + train, "caption": noise}, "sft"),
            extracted(memes, {"image": noise + 0.5, "caption": noise}, "dpo"),
            extracted(memes, {"image": noise, "caption": noise}, "base", None),
        ]
    )
    table = analysed(rows, memes, 300)
    found = {m: one(table, "overfit_index", "train-val", method=m, group="image") for m in ("sft", "dpo")}
    assert found["sft"]["ci_low"] > 0.6 and found["dpo"]["ci_low"] < 0 < found["dpo"]["ci_high"]
    gaps = table.filter(statistic="overfit_index_difference", label="all")
    image, caption = (gaps.filter(group=group, versus="sft").row(0, named=True) for group in ("image", "caption"))
    assert (image["method"], image["versus"]) == ("dpo", "sft")
    assert image["value"] == pytest.approx(found["dpo"]["value"] - found["sft"]["value"]) and image["ci_high"] < 0
    added = gaps.filter(group="image", method="sft", versus="base").row(0, named=True)
    assert added["value"] > 0.6 and added["ci_low"] > 0
    # Paired: the same numbers differ by exactly nothing.
    assert (caption["value"], caption["ci_low"], caption["ci_high"]) == (0, 0, 0)


def turned(rows: pl.DataFrame, group: str, split: str) -> pl.DataFrame:
    """`rows` whose occlusion contradicts φ in `group` on `split`: −2φ instead of 2φ."""
    here = (pl.col("group") == group) & (pl.col("split") == split)
    return rows.with_columns(occlusion=pl.when(here).then(-pl.col("occlusion")).otherwise("occlusion"))


def test_ratios_of_phi_that_contradicts_occlusion_are_left_out():
    """SFT's picture is contradicted on val at the last fraction: out go val's ratios, cells' too, at both fractions,

    the index, which rests on val, and DPO's difference from SFT. Train's ratio, the caption and DPO's own stay.
    """
    memes = prompts(20)
    phi = {name: np.random.default_rng(5).normal(1, 1, len(memes)) for name in ("image", "caption", "cell_3")}
    last = turned(extracted(memes, phi, "sft"), "image", "val")
    early = last.with_columns(fraction=pl.lit(0.5), occlusion=pl.lit(None, pl.Float64))
    table = analysed(pl.concat([last, early, extracted(memes, phi, "dpo")]), memes)
    out = table.filter(pl.col("missing") == DISAGREES)
    found = set(out.select("method", "fraction", "group", "split", "statistic", "versus").rows())
    expected = {
        *(("sft", f, g, "val", "sharpe_ratio", None) for f in (0.5, 1.0) for g in ("image", "cell_3")),
        *(("sft", f, "image", "train-val", "overfit_index", None) for f in (0.5, 1.0)),
        ("dpo", 1.0, "image", "train-val", "overfit_index_difference", "sft"),
    }
    assert found == expected and set(out["label"]) == {"all", "benign", "hateful"}
    assert out["value"].is_nan().all() and out["ci_low"].is_nan().all() and out["ci_high"].is_nan().all()
    kept = table.filter(pl.col("missing").is_null(), label="all", group="image", method="sft", fraction=1.0)
    for name, split in (
        ("mean_phi", "val"), ("std_phi", "val"), ("occlusion_sharpe_ratio", "val"), ("sharpe_ratio", "train"),
        ("occlusion_overfit_index", "train-val"),
    ):  # fmt: skip
        row = one(kept, name, split)
        assert row["ci_low"] <= row["value"] <= row["ci_high"] and row["module"] is None


def test_a_correlation_that_may_be_nought_is_no_agreement():
    """Occlusion independent of φ: its interval takes in 0."""
    memes, rng = prompts(60), np.random.default_rng(6)
    rows = extracted(memes, {"image": rng.normal(1, 1, len(memes))})
    rows = rows.with_columns(occlusion=pl.col("occlusion") * 0 + pl.Series(rng.normal(size=len(rows))))
    table = analysed(rows, memes, 300)
    found = one(table, "occlusion_correlation")
    assert found["ci_low"] < 0 < found["ci_high"]
    assert one(table, "sharpe_ratio")["missing"] == DISAGREES


def test_cells_and_frequent_words_have_ratios_of_their_own():
    memes = prompts(sharpe.FREQUENT)
    phi = np.random.default_rng(2).normal(1, 1, len(memes))
    often = extracted(memes, {"image": phi, "cell_3": phi, "word:greets": phi})
    seldom = extracted(memes, {"word:seldom": phi}).filter(pl.col("id") != "0000")
    table = analysed(pl.concat([often, seldom]), memes)
    assert table.filter(statistic="sharpe_ratio", label="all")["group"].unique().sort().to_list() == [
        "cell_3", "image", "word:greets",
    ]  # fmt: skip
    assert one(table, "sharpe_ratio", group="cell_3")["value"] == one(table, "sharpe_ratio", group="image")["value"]


def test_a_group_that_a_meme_lacks_is_left_out():
    memes = prompts(6)
    rows = extracted(memes, {"caption": np.arange(18.0)}).filter(pl.col("id") != "0002")
    assert one(analysed(rows, memes), "sharpe_ratio")["n"] == 5


def test_reduction_and_figure_import_no_torch():
    code = "import sys, memedynamics.signal_noise, memedynamics.figure_sharpe; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)})
    assert done.returncode == 0


# A made-up study through script and figure: two methods and two seeds, and one run of full weights.
RUNS = [("base", None), ("sft", 1), ("sft", 2), ("dpo", 1), ("dpo", 2), ("whole", 0)]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pl.DataFrame:
    folder, memes = tmp_path_factory.mktemp("sharpe"), prompts(24)
    given = {name: [] for name in ("extracts", "signals", "runs", "data")}
    rng = np.random.default_rng(0)
    for method, seed in RUNS:
        file = f"{method}/seed{seed or 0}.parquet"
        extract, signal = run_tables(memes, method, [0.0] if method == "base" else [0.5, 1.0], rng)
        for name, frame, schema in (
            ("extracts", extract, "extract_sharpe"), ("signals", signal, "extract_signal")
        ):  # fmt: skip
            tables.write(frame, folder / name / file, schema)
            given[name].append(folder / name / file)
        if method != "base":
            path = folder / f"runs/{method}/seed{seed}/run.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"reference": "base", "steps": {"0": 0, "0.5": 5, "1": 10}}))
            given["runs"].append(path)
    for (dataset, split), part in memes.group_by("dataset", "split"):
        given["data"].append(folder / f"data/{dataset}/{split}.parquet")
        other = {"image": "x.png", "image_sha256": "", "width": 8, "height": 8}
        full = part.with_columns(**{k: pl.lit(v) for k, v in other.items()}, groups=pl.lit([], pl.List(pl.String)))
        tables.write(full, given["data"][-1], "data")
    return launch(folder, given)


def run_tables(memes, method, fractions, rng) -> tuple[pl.DataFrame, pl.DataFrame]:
    extracts, signals = [], []
    for fraction in fractions:
        phi = {group: rng.normal(0.3, 1, len(memes)) for group in ("all", *sharpe.GROUPS)}
        rows = extracted(memes, phi).drop("method", "seed").with_columns(fraction=pl.lit(fraction))
        if method != "whole":
            vectors = pl.Series(rng.normal(0.2, 1, (len(rows), SIZE)).tolist(), dtype=pl.List(pl.Float32))
            home = (pl.col("group") == "all") & (pl.col("dataset") == "d")
            rows = rows.with_columns(gradient=pl.when(home).then(vectors))
            for split in ("train", "val"):
                row = {"fraction": fraction, "dataset": "d", "split": split, "module": "layers.0", "n": 24}
                signals.append(row | {"parameters": 9, "mean_sq": 40.0, "var": 500.0, "ratio": 0.08, "varying": 9})
                signals[-1] |= {name: [0.02, 0.05, 0.04] for name in ("snr_without", "gsnr_without")}
        extracts.append(rows)
    empty = schemas.SCHEMAS["extract_signal"].empty_table().drop(["study"])
    return pl.concat(extracts), pl.DataFrame(signals) if signals else empty


def launch(folder: Path, given: dict[str, list[Path]]) -> pl.DataFrame:
    """Run the script as the workflow does, in a process that fails if it imports torch; its table."""
    table = folder / "analyses/sharpe.parquet"
    job = {"rule": "sharpe", "root": str(folder), "study": "s", "digest": "", "code": "", "threads": 1, "gpu": 0}
    job |= {"work": str(folder / "work"), "input": {}, "wildcards": {}, "output": {"table": str(table)}}
    job["cfg"] = {name: [str(path) for path in paths] for name, paths in given.items()}
    job["cfg"] |= {"resamples": 50, "in_domain": "d"}
    code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__'); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, SCRIPTS / "sharpe.py", json.dumps(job)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr or "torch was imported"
    return tables.read(table, "sharpe")


@pytest.mark.parametrize(("name", "column"), [("extract_sharpe", "phi"), ("extract_signal", "var")])
def test_a_number_that_is_none_is_refused_by_name(tmp_path, name, column):
    memes = prompts(2)
    extract, signal = run_tables(memes, "sft", [1.0], np.random.default_rng(0))
    frames = {"extract_sharpe": extract, "extract_signal": signal}
    frames[name] = frames[name].with_columns(pl.lit(float("nan")).alias(column))
    paths = {key: tmp_path / key / "sft/seed1.parquet" for key in frames}
    for key, frame in frames.items():
        tables.write(frame, paths[key], key)
    with pytest.raises(InputError, match=f"{name}/sft/seed1.parquet, column {column}"):
        script("sharpe").main(
            [paths["extract_sharpe"]], [paths["extract_signal"]], [], [], tmp_path / "out.parquet", 10, "d"
        )


def test_script_covers_the_study(table):
    ratios = table.filter(statistic="sharpe_ratio", group="image", label="all")
    expected = {(m, s, f) for m, s in RUNS for f in ([0.0] if m == "base" else [0.5, 1.0])}
    assert set(ratios.select("method", "seed", "fraction").rows()) == expected
    assert set(ratios.select("dataset", "split").rows()) == set(SPLITS)
    assert ratios.filter(fraction=0.5)["step"].unique().to_list() == [5]
    whole = table.filter(group="gradient", module="all", statistic="snr").drop_nulls("value")
    # 40/500 − 1/24
    assert whole["value"].to_numpy() == pytest.approx(0.08 - 1 / 24)
    assert (whole["ci_low"] < whole["value"]).all() and (whole["ci_high"] > whole["value"]).all()
    missing = table.drop_nulls("missing")
    assert missing.select("method", "fraction", "missing").rows() == [
        ("whole", f, signal_noise.WITHOUT) for f in (0.5, 1.0)
    ]


@pytest.mark.parametrize("kept", [RUNS, [("base", None), ("sft", 1)], [("base", None)]])
def test_figure(table, kept):
    methods, seeds = (list(part) for part in zip(*kept, strict=True))
    some = table.filter(pl.col("method").is_in(methods), pl.col("seed").is_in(seeds, nulls_equal=True))
    figure = figure_sharpe(some, ["a study's own note"])
    words = " ".join(annotation.text for annotation in figure.layout.annotations)
    assert "A study's own note" in words and all(f"<b>{letter}</b>" in words for letter in "abcdefgh")
    assert (signal_noise.WITHOUT in words) == ("whole" in methods)
    drawn = [trace for trace in figure.data if trace.error_y.array]
    assert bool(drawn) == (len(kept) > 1)


def test_figure_says_where_phi_is_left_out(table):
    """No φ left: panel c says so, b has the occlusion's; no run is named as one that lacks the whole figure."""
    numbers = {name: pl.lit(None, pl.Float64) for name in ("value", "ci_low", "ci_high")}
    judged = pl.col("statistic").is_in(list(JUDGED))
    changed = numbers | {"missing": pl.lit(DISAGREES)}
    some = table.with_columns(**{k: pl.when(judged).then(v).otherwise(k) for k, v in changed.items()})
    figure = figure_sharpe(some)
    words = " ".join(annotation.text for annotation in figure.layout.annotations)
    assert "φ agrees with occlusion nowhere" in words and DISAGREES not in words
    # A panel without a trace has no place of its own: its title would stand in another one.
    titled = {note.yref for note in figure.layout.annotations if note.text.startswith("<b>") and "domain" in note.yref}
    assert {place.removesuffix(" domain") for place in titled} <= {trace.yaxis for trace in figure.data}
    assert "nowhere" not in " ".join(annotation.text for annotation in figure_sharpe(table).layout.annotations)
