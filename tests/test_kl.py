"""The analysis `kl`: toys whose every sequence is enumerated, sums by hand, the made-up study end to end."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import synthetic
from memedynamics import gather, kl, kl_between_seeds, stats, tables
from memedynamics.errors import InputError

SCRIPTS = Path(__file__).parents[1] / "workflow/scripts"
PROMPTS = pl.DataFrame(
    {"dataset": "d", "split": "val", "id": ["a", "b"], "label": [1, 0], "text": ["one", "two"]},
    schema_overrides={"label": pl.Int8},
)
RUNS = pl.DataFrame(
    {"method": ["sft", "dpo", "base"], "seed": [1, 1, None], "fraction": [1.0, 1.0, 0.0], "step": [9, 9, 0]},
    schema_overrides={"seed": pl.Int32},
).with_columns(reference=pl.lit("base"))

# Two tokens in a row, each 0 or 1; the second depends on the first. P(0) at the start, then after a 0 and after a 1.
REFERENCE = {"": 1 / 4, "0": 1 / 2, "1": 1 / 4}
POLICY = {"": 1 / 2, "0": 1 / 4, "1": 3 / 4}
OTHER = {"": 3 / 4, "0": 1 / 2, "1": 1 / 2}


def step(model: dict[str, float], prefix: str, token: str) -> float:
    return model[prefix] if token == "0" else 1 - model[prefix]


def chance(model: dict[str, float], sequence: str) -> float:
    return step(model, "", sequence[0]) * step(model, sequence[0], sequence[1])


def divergence(p: dict[str, float], q: dict[str, float]) -> float:
    """KL of the distributions over the four sequences: no chain rule, no tokens."""
    sequences = ["".join(s) for s in product("01", repeat=2)]
    return sum(chance(p, s) * math.log(chance(p, s) / chance(q, s)) for s in sequences)


def token_kl(p: dict[str, float], q: dict[str, float], prefix: str) -> float:
    return sum(step(p, prefix, t) * math.log(step(p, prefix, t) / step(q, prefix, t)) for t in "01")


def enumerated(policy: dict[str, float], kind: str, meme: str = "a") -> pl.DataFrame:
    """16 responses to one prompt, each sequence as often as it is likely: means over them are expectations."""
    source = REFERENCE if kind == "base_sample" else policy
    counts = [("".join(s), 16 * chance(source, "".join(s))) for s in product("01", repeat=2)]
    assert all(count == int(count) for _, count in counts)
    drawn = [sequence for sequence, count in counts for _ in range(int(count))]
    rows = []
    for sample, sequence in enumerate(drawn):
        for position, (prefix, span) in enumerate(zip(("", sequence[0]), ("answer", "end"), strict=True)):
            token = sequence[position]
            rows.append(
                {
                    "fraction": 1.0, "probe_kind": kind, "dataset": "d", "split": "val", "id": meme,
                    "sample": sample, "position": position, "span": span,
                    "logp": math.log(step(policy, prefix, token)), "ref_logp": math.log(step(REFERENCE, prefix, token)),
                    "kl_forward": token_kl(REFERENCE, policy, prefix),
                    "kl_reverse": token_kl(policy, REFERENCE, prefix),
                }
            )  # fmt: skip
    return pl.DataFrame(rows)


def decided(tokens: pl.DataFrame, p: float = 0.5, q: float = 0.5, forced: bool = False) -> pl.DataFrame:
    """Response rows of the texts in `tokens`, all with P(Yes) = p under π and q under π0."""
    keys = ["method", "seed", "fraction", "probe_kind", "dataset", "split", "id", "sample"]
    return tokens.select(keys).unique().with_columns(p_hateful=p, ref_p_hateful=q, forced=forced)


def analysed(
    traces: pl.DataFrame, responses: pl.DataFrame | None = None, method: str = "sft", resamples: int = 20
) -> pl.DataFrame:
    """The analysis of `traces` of one run."""
    tokens = gather.labelled(kl.per_response(traces.lazy()), method, 1)
    return kl.measure(tokens, decided(tokens) if responses is None else responses, [], PROMPTS, RUNS, resamples)


def value(table: pl.DataFrame, name: str, **where: object) -> float:
    """The one value called estimator/span/statistic where columns equal `where`."""
    estimator, span, statistic = name.split("/")
    found = table.filter(estimator=estimator, span=span, statistic=statistic, **where)
    assert len(found) == 1, f"{name}: {len(found)} rows"
    return found["value"].item()


@pytest.mark.parametrize("kind", ["base_sample", "own_sample"])
def test_every_estimator_has_the_mean_of_the_exact_kl(kind: str):
    table = analysed(enumerated(POLICY, kind))
    forward, reverse = divergence(REFERENCE, POLICY), divergence(POLICY, REFERENCE)
    expected, unwanted = (forward, reverse) if kind == "base_sample" else (reverse, forward)
    assert abs(expected - unwanted) > 0.05
    assert table["direction"].unique().to_list() == ["forward" if kind == "base_sample" else "reverse"]
    for estimator in ("exact", "k1", "k3"):
        assert value(table, f"{estimator}/all/per_response") == pytest.approx(expected)
        # Two tokens in every response.
        assert value(table, f"{estimator}/all/per_token") == pytest.approx(expected / 2)


def test_forward_kl_by_hand():
    """One token: π0 = (1/4, 3/4), π = (1/2, 1/2); four base samples: one 0, three 1s.

    KL(π0‖π) = 1/4 ln(1/2) + 3/4 ln(3/2) = -0.173287 + 0.304099 = 0.130812
    r = π/π0 is 2 or 2/3: k1 = (-ln 2 - 3 ln(2/3))/4 = (-0.693147 + 1.216395)/4 = 0.130812
    k3 = (2 - 1 - ln 2 + 3·(2/3 - 1 - ln(2/3)))/4 = (0.306853 + 3·0.072132)/4 = 0.130812
    """
    half, quarter = {"": 0.5}, {"": 0.25}
    rows = pl.DataFrame({"sample": range(4), "token": list("0111")}).with_columns(
        fraction=1.0, probe_kind=pl.lit("base_sample"), dataset=pl.lit("d"), split=pl.lit("val"), id=pl.lit("a"),
        span=pl.lit("end"), position=0, logp=math.log(0.5), kl_reverse=9.0, kl_forward=token_kl(quarter, half, ""),
        ref_logp=pl.col("token").replace_strict({"0": math.log(0.25), "1": math.log(0.75)}),
    )  # fmt: skip
    table = analysed(rows)
    for estimator in ("exact", "k1", "k3"):
        assert value(table, f"{estimator}/all/per_response") == pytest.approx(0.130812, abs=1e-6)


def test_a_policy_that_did_not_move():
    table = analysed(pl.concat([enumerated(REFERENCE, kind) for kind in ("base_sample", "own_sample")]))
    moved = table.filter(pl.col("estimator") != "count")
    assert len(moved) > 20 and (moved["value"].drop_nulls() == 0).all() and (moved["ci_high"].drop_nulls() == 0).all()


def test_k3_is_never_negative_and_k1_is():
    sums = kl.per_response(enumerated(POLICY, "base_sample").lazy())
    assert (sums["k3"] >= 0).all() and (sums["k1"] < 0).any()


def test_spans_add_up_and_tokens_are_counted():
    """π and π0 differ in both tokens; the answer's share is KL at the start, the end's the rest (chain rule)."""
    table = analysed(enumerated(POLICY, "base_sample"))
    parts = [value(table, f"exact/{span}/per_response") for span in kl.SPANS]
    first = token_kl(REFERENCE, POLICY, "")
    assert parts == pytest.approx([0, 0, first, divergence(REFERENCE, POLICY) - first])
    assert sum(parts) == pytest.approx(value(table, "exact/all/per_response"))
    assert value(table, "count/all/length") == 2
    # No rationale: no rate for its tokens; nothing but the whole for Monte Carlo.
    assert value(table, "exact/rationale/per_token") is None
    assert set(table.filter(pl.col("estimator").is_in(["k1", "k3"]))["span"]) == {"all"}


def test_per_token_is_a_ratio_of_sums():
    """a: 2 tokens, 0.4 nat; b: 6 tokens, 0.4 nat: 0.4 a response, 0.8/8 = 0.1 a token (not (0.2 + 0.4/6)/2)."""
    rows = [
        {"fraction": 1.0, "probe_kind": "base_sample", "dataset": "d", "split": "val", "id": meme, "sample": 0,
         "position": at, "span": "rationale" if at < n - 1 else "end", "logp": -1.0, "ref_logp": -1.0,
         "kl_forward": 0.4 / n, "kl_reverse": 9.0}
        for meme, n in (("a", 2), ("b", 6)) for at in range(n)
    ]  # fmt: skip
    table = analysed(pl.DataFrame(rows))
    assert value(table, "exact/all/per_response") == pytest.approx(0.4)
    assert value(table, "exact/all/per_token") == pytest.approx(0.1)
    # Rationale: 1 token of 0.2 and 5 of 0.4/6: (0.2 + 0.3333)/2 a response, 0.5333/6 a token.
    assert value(table, "exact/rationale/per_response") == pytest.approx(0.8 / 3)
    assert value(table, "exact/rationale/per_token") == pytest.approx(1.6 / 3 / 6)
    # Prompts a, a: 0.2; b, b: 1/15; the interval spans both.
    row = table.filter(estimator="exact", span="all", statistic="per_token")
    assert row["ci_low"].item() == pytest.approx(1 / 15) and row["ci_high"].item() == pytest.approx(0.2)
    assert row["n"].item() == 2


def test_a_cut_response_lacks_its_end():
    """4 of 16 responses lose their end token: a quarter is cut and the mean length is 28/16."""
    tokens = enumerated(POLICY, "base_sample").filter((pl.col("span") != "end") | (pl.col("sample") >= 4))
    table = analysed(tokens)
    assert value(table, "count/all/cut_share") == 0.25 and value(table, "count/all/length") == 28 / 16


@pytest.mark.parametrize(("kind", "expected"), [("base_sample", 0.130812), ("own_sample", 0.143841)])
def test_decision_kl_by_hand(kind: str, expected: float):
    """π = 1/2, π0 = 1/4: forward 1/4 ln(1/2) + 3/4 ln(3/2) = .130812, reverse 1/2 ln 2 + 1/2 ln(2/3) = .143841.

    Of prompt a's 16 responses 4 are forced, with P(Yes) equal: .75 of them count, and they alone make the mean.
    """
    traces = enumerated(POLICY, kind)
    tokens = gather.labelled(kl.per_response(traces.lazy()), "sft", 1)
    forced = pl.col("sample") < 4
    responses = decided(tokens, 0.5, 0.25).with_columns(
        forced=forced, ref_p_hateful=pl.when(forced).then(0.5).otherwise(0.25)
    )
    table = analysed(traces, responses)
    assert value(table, "decision/answer/per_response") == pytest.approx(expected, abs=1e-6)
    assert value(table, "decision/answer/per_response_forced") == 0
    assert value(table, "count/all/forced_share") == 0.25
    # Nothing forced: undefined, not zero.
    assert value(analysed(traces), "decision/answer/per_response_forced") is None


def test_decision_kl_stays_finite():
    """Certain and wrong: (1 - 1e-7) ln((1 - 1e-7)/1e-7) + 1e-7 ln(1e-7/(1 - 1e-7)) = 16.118 - 0.000003."""
    frame = pl.DataFrame({"p": [0.0, 1.0, 1.0, 0.3], "q": [1.0, 0.0, 1.0, 0.3]})
    found = frame.select(kl.decision_kl(pl.col("p"), pl.col("q")))["p"].to_list()
    assert found[:2] == pytest.approx([math.log(1e7)] * 2, rel=1e-5) and found[2:] == [0, 0]


def test_between_seeds_is_the_kl_at_the_bases_prefixes():
    """Σ over base prefixes of KL(π_a‖π_b) per position: at the start, then after 0 (1/4 of the time) and 1 (3/4)."""
    first, second = (enumerated(model, "base_sample") for model in (POLICY, OTHER))
    for ours, theirs, (p, q) in ((first, second, (POLICY, OTHER)), (second, first, (OTHER, POLICY))):
        found = kl_between_seeds.between_seeds(ours.lazy(), theirs.lazy())
        expected = token_kl(p, q, "") + token_kl(p, q, "0") / 4 + token_kl(p, q, "1") * 3 / 4
        assert found["k3_weighted"].item() == pytest.approx(expected)
        assert found["tokens"].item() == 2 and found["fraction"].item() == 1.0
    same = kl_between_seeds.between_seeds(first.lazy(), first.lazy())
    assert same["k3_weighted"].item() == 0


def test_equal_policies_differ_by_exactly_nothing():
    """The same traces under two methods' names, with two prompts that differ: every paired difference is 0."""
    traces = pl.concat([enumerated(POLICY, "base_sample", "a"), enumerated(OTHER, "base_sample", "b")])
    tokens = pl.concat([gather.labelled(kl.per_response(traces.lazy()), method, 1) for method in ("sft", "dpo")])
    table = kl.measure(tokens, decided(tokens), [], PROMPTS, RUNS, 50)
    gaps = table.filter(pl.col("statistic").cast(pl.String).str.ends_with("_difference"))
    assert gaps.select("method", "versus").unique().rows() == [("dpo", "sft")] and len(gaps) == 2
    assert gaps.select("value", "ci_low", "ci_high").unique().rows() == [(0, 0, 0)]


def test_row_order_does_not_matter():
    traces = pl.concat([enumerated(POLICY, "base_sample", "a"), enumerated(OTHER, "base_sample", "b")])
    assert analysed(traces).equals(analysed(traces.sample(fraction=1, shuffle=True, seed=0)))


def test_a_study_of_the_base_alone(tmp_path):
    """Of π0 against itself through the other code path: no seed, versus other_path, never a difference."""
    tokens = gather.labelled(kl.per_response(enumerated(REFERENCE, "base_sample").lazy()), "base", None)
    table = kl.measure(tokens, decided(tokens), [], PROMPTS, RUNS, 10)
    assert table["versus"].unique().to_list() == ["other_path"]
    tables.write(table, tmp_path / "kl.parquet", "kl")
    assert tables.read(tmp_path / "kl.parquet", "kl")["seed"].null_count() == len(table)


# The made-up study.
METHODS = ("sft", "dpo")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Path]]]:
    folder = tmp_path_factory.mktemp("study")
    return folder, synthetic.write_study(folder, METHODS)


def launch(folder: Path, rule: str, given: dict, cfg: dict) -> pl.DataFrame:
    """Run the script as the workflow does, in a process that fails if it imports torch; its table."""
    table = folder / f"analyses/{rule}.parquet"
    job = {"rule": rule, "root": str(folder), "study": "synthetic", "digest": "", "code": "", "threads": 1, "gpu": 0}
    job |= {"work": str(folder / "work"), "input": {}, "wildcards": {}, "output": {"table": str(table)}}
    job["cfg"] = {name: [str(path) for path in paths] for name, paths in given.items()} | cfg
    code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__'); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, SCRIPTS / f"{rule}.py", json.dumps(job)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr or "torch was imported"
    return tables.read(table, rule)


@pytest.fixture(scope="module")
def table(study) -> pl.DataFrame:
    folder, paths = study
    given = {name: paths[name] for name in ("traces", "responses", "runs", "data")}
    return launch(folder, "kl", given, {"resamples": 60})


KEYS = ["method", "seed", "fraction", "dataset", "split", "probe_kind"]


def test_script_covers_the_study(table):
    assert table["study"].unique().to_list() == ["synthetic"]
    whole = table.filter(pl.col("estimator") == "exact", span="all", statistic="per_response")
    conditions = {(d, s) for d, s in synthetic.SPLITS if (d, s) != ("memes", "test")}
    forward = whole.filter(direction="forward")
    assert set(forward.filter(pl.col("method") != "base").select(KEYS[:5]).rows()) == {
        (m, s, f, *where) for m in METHODS for s in synthetic.SEEDS for f in synthetic.FRACTIONS for where in conditions
    }
    assert set(forward.filter(method="base").select("versus", "seed", "fraction", "step").rows()) == {
        ("other_path", None, 0.0, 0)
    }
    # Steps come from run.json: 80 in all.
    assert table.filter(fraction=0.5)["step"].unique().to_list() == [40]
    assert table.select(
        pl.struct(*KEYS, "direction", "estimator", "span", "versus", "statistic").n_unique()
    ).item() == (len(table))
    inside = (pl.col("ci_low") <= pl.col("value")) & (pl.col("value") <= pl.col("ci_high"))
    assert table.select(inside.mean()).item() > 0.99


@pytest.mark.parametrize(("kind", "direction"), [("base_sample", "forward"), ("own_sample", "reverse")])
def test_script_gives_the_kl_of_the_distributions(table, kind: str, direction: str):
    """Summed anew from the distributions the study was drawn from; a cut response ends one token early."""
    memes = synthetic.data("memes", "val", synthetic.SPLITS["memes", "val"])
    totals, last = [], len(synthetic.SPANS) - 1
    for i, meme in enumerate(memes["id"]):
        p, q = synthetic.distributions("dpo", 2, 0.5, meme, len(synthetic.SPANS))
        first, second = (q, p) if direction == "forward" else (p, q)
        at = (first * np.log(first / second)).sum(axis=1)
        cut = [(i + sample) % 15 == 0 for sample in range(synthetic.SAMPLES)]
        totals += [at[:last].sum() + (0 if gone else at[last]) for gone in cut]
    where = {"method": "dpo", "seed": 2, "fraction": 0.5, "dataset": "memes", "split": "val", "probe_kind": kind}
    found = value(table, "exact/all/per_response", direction=direction, **where)
    assert found == pytest.approx(np.mean(totals), rel=1e-6)
    cut = np.mean([(i + s) % 15 == 0 for i in range(len(memes)) for s in range(synthetic.SAMPLES)])
    assert value(table, "count/all/cut_share", direction=direction, **where) == pytest.approx(cut)


def test_script_spans_add_up_for_every_curve(table):
    exact = table.filter(estimator="exact", statistic="per_response")
    whole = exact.filter(span="all").select(*KEYS, "value")
    parts = exact.filter(pl.col("span") != "all").group_by(KEYS).agg(pl.len(), total=pl.col("value").sum())
    both = whole.join(parts, on=KEYS, nulls_equal=True)
    assert len(both) == len(whole) == len(parts) and (both["len"] == 4).all()
    np.testing.assert_allclose(both["total"], both["value"], rtol=1e-8)


def test_script_orders_movement_as_the_study_was_made(table):
    """dpo drifts twice as far as sft, drift grows with the fraction; seeds differ less than methods; a small floor."""
    val = table.filter(estimator="exact", span="all", statistic="per_response", direction="forward", split="val")
    moved = {
        row["method"]: row["value"] for row in val.filter((pl.col("seed") == 1) & (pl.col("fraction") == 1)).to_dicts()
    }
    floor = val.filter(method="base")["value"].item()
    assert 0 < floor < 1e-5 < moved["sft"] < moved["dpo"]
    by_fraction = val.filter(method="sft", seed=1).sort("fraction")["value"]
    assert by_fraction.is_sorted() and len(by_fraction) == 3
    gap = table.filter(
        statistic="per_response_difference",
        direction="forward",
        split="val",
        fraction=1.0,
        seed=1,
        method="dpo",
        versus="sft",
    )
    assert gap["value"].item() == pytest.approx(moved["dpo"] - moved["sft"]) and gap["ci_low"].item() > 0
    seeds = table.filter(direction="between_seeds", statistic="per_response", split="val", fraction=1.0)
    assert set(seeds.select("method", "seed", "versus").rows()) == {
        (m, s, f"seed{3 - s}") for m in METHODS for s in synthetic.SEEDS
    }
    for row in seeds.to_dicts():
        assert floor < row["value"] < moved[row["method"]]


def test_script_intervals_equal_a_loop(study, table):
    """Per-token KL and its paired difference on val, resample by resample over written-out prompts."""
    memes = gather.prompts(study[1]["data"]).filter(dataset="memes", split="val")
    cluster = stats.clusters(memes["text"])
    assert cluster.max() + 1 == len(memes) - 5  # every tenth of 50 repeats the caption before it
    weights = stats.resample_weights(int(cluster.max()) + 1, 60, "memes/val")
    totals = {}
    for method in METHODS:
        traces = tables.read(study[0] / f"traces/{method}/seed1/1-of-1.parquet", "traces")
        rows = traces.filter(dataset="memes", split="val", fraction=1.0, probe_kind="base_sample")
        totals[method] = {m: (r["kl_forward"].cast(pl.Float64).sum(), len(r)) for (m,), r in rows.group_by("id")}
    replicates = []
    for row in weights:
        drawn = [i for c, k in enumerate(row) for _ in range(int(k)) for i in memes["id"].filter(cluster == c)]
        replicates.append([np.sum([totals[m][i] for i in drawn], axis=0) for m in METHODS])
    sft, dpo = (np.array([r[i][0] / r[i][1] for r in replicates]) for i in range(2))
    where = {"split": "val", "fraction": 1.0, "seed": 1, "direction": "forward", "estimator": "exact", "span": "all"}
    for row, expected in (
        (table.filter(statistic="per_token", method="sft", **where), sft),
        (table.filter(statistic="per_token_difference", method="dpo", versus="sft", **where), dpo - sft),
    ):
        found = row.select("ci_low", "ci_high").row(0)
        assert found == pytest.approx(np.quantile(expected, [0.025, 0.975]), rel=1e-8)


# Bad input.
def script(name: str):
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def spoil(good: Path, bad: Path, how: str, name: str) -> Path:
    """At `bad` the table `good`: missing, cut short, without rows, or of another schema."""
    bad.parent.mkdir(parents=True)
    if how == "cut":
        bad.write_bytes(good.read_bytes()[:-30])
    elif how == "empty":
        tables.write(tables.read(good, name).clear(), bad, name)
    elif how == "other":
        tables.write(pl.DataFrame({"step": [1], "metric": ["loss"], "value": [0.5]}), bad, "history")
    return bad


REASONS = {"missing": "no such table", "cut": "not a whole Parquet", "empty": "no rows", "other": "lacks "}


@pytest.mark.parametrize("how", REASONS)
@pytest.mark.parametrize("name", ["traces", "responses", "data"])
def test_unusable_tables_are_named(study, tmp_path, name: str, how: str):
    paths = dict(study[1])
    good = next(paths[name][-1].rglob("*.parquet")) if name != "data" else paths[name][-1]
    bad = spoil(good, tmp_path / "grpo/seed1/x.parquet", how, name)
    # Beside one good run: what is whole must not hide what is not.
    paths = {key: paths[key][:2] for key in ("traces", "responses", "runs", "data")}
    paths[name] = [*paths[name], bad]
    with pytest.raises(InputError, match=f"{bad}: .*{REASONS[how]}"):
        script("kl").main(**paths, table=tmp_path / "kl.parquet", resamples=5)
    assert not (tmp_path / "kl.parquet").exists()


def test_unusable_runs_are_named(tmp_path):
    run = tmp_path / "sft/seed1/run.json"
    with pytest.raises(InputError, match=f"{run}: no such file"):
        gather.milestones([run])
    run.parent.mkdir(parents=True)
    for text in ('{"reference": "ba', '{"reference": "base"}'):
        run.write_text(text)
        with pytest.raises(InputError, match=f"{run}: not a whole run.json"):
            gather.milestones([run])


def test_a_folder_without_tables_is_named(tmp_path):
    (tmp_path / "sft/seed1").mkdir(parents=True)
    with pytest.raises(InputError, match=f"{tmp_path}/sft/seed1: no Parquet file"):
        gather.by_run([tmp_path / "sft/seed1"])


def test_an_empty_shard_is_no_fault(study, tmp_path):
    good = next(study[1]["traces"][-1].rglob("*.parquet"))
    for shard in (1, 2):
        folder = tmp_path / f"dpo/seed1/{shard}-of-2.parquet"
        tables.write(tables.read(good, "traces")[: 5 * (2 - shard)], folder, "traces")
    assert len(gather.frames([tmp_path / "dpo/seed1"], "traces", ["position"])) == 5
    assert len(gather.scan(gather.files([tmp_path / "dpo/seed1"]), "traces").collect()) == 5


def test_whose_file_it_is():
    assert gather.run_of(Path("results/s/samples/dpo/seed12.parquet")) == ("dpo", 12)
    assert gather.run_of(Path("results/s/traces/grpo/seed1/2-of-4.parquet")) == ("grpo", 1)
    assert gather.run_of(Path("results/s/traces/base/seed0/1-of-1.parquet")) == ("base", None)
    assert gather.run_of(Path("results/s/samples/base/memes/val.parquet")) == ("base", None)
    with pytest.raises(InputError, match="elsewhere.parquet: neither"):
        gather.run_of(Path("results/s/elsewhere.parquet"))


def scored_to_parent(folder: Path, paths: dict, target: Path, methods: tuple[str, ...]) -> dict[str, list[Path]]:
    """The script's inputs, with the texts of `methods` given as those to their parents too."""
    given = {key: paths[key] for key in ("traces", "responses", "runs", "data")}
    given |= {"traces_to_parent": [], "responses_to_parent": []}
    for name in ("traces", "responses"):
        for run in [f"{name}/{method}/seed{seed}" for method in methods for seed in synthetic.SEEDS]:
            kind = pl.col("probe_kind").cast(pl.String).replace("base_sample", "parent_sample")
            frame = tables.read(folder / run / "1-of-1.parquet", name).with_columns(probe_kind=kind)
            given[f"{name}_to_parent"].append(target / "to_parent" / run)
            tables.write(frame, target / "to_parent" / run / "1-of-1.parquet", name)
    return given


def test_a_chained_run_is_measured_against_its_parent_too(study, tmp_path):
    """The same texts given as those to the parent make the same rows, of that reference, beside the rest."""
    given = scored_to_parent(*study, tmp_path, ("dpo",))
    found = launch(tmp_path, "kl", given, {"resamples": 50, "parents": {"dpo": "sft"}})
    assert set(found["reference"]) == {"base", "sft"}
    measures = ["fraction", "seed", "direction", "dataset", "split", "estimator", "span", "statistic", "value", "n"]
    base, parent = (
        found.filter((pl.col("reference") == name) & (pl.col("method") == "dpo") & pl.col("versus").is_null())
        for name in ("base", "sft")
    )
    assert len(base) == len(parent) > 0 and "parent_sample" in parent["probe_kind"]
    assert base.select(measures).sort(measures).equals(parent.select(measures).sort(measures))


@pytest.mark.parametrize("parents", [{"dpo": "a", "sft": "a"}, {"dpo": "a", "sft": "b"}])
def test_only_runs_of_one_parent_are_compared_on_its_texts(study, tmp_path, parents: dict[str, str]):
    """Texts of two parents are two sets of texts, on the same memes: no difference between them is paired."""
    given = scored_to_parent(*study, tmp_path, ("dpo", "sft"))
    script("kl").main(**given, table=tmp_path / "kl.parquet", resamples=5, parents=parents)
    found = tables.read(tmp_path / "kl.parquet", "kl").filter(pl.col("reference") != "base")
    assert set(found.select("method", "reference").rows()) == set(parents.items())
    others = {name for name in found["versus"].drop_nulls() if not name.startswith("seed")}
    assert others == ({"sft"} if len(set(parents.values())) == 1 else set())
