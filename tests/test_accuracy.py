"""The analysis `accuracy`: four prompts by hand, sklearn, a loop bootstrap, the made-up study end to end."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

import synthetic
from memedynamics import accuracy, gather, stats, tables
from memedynamics.errors import InputError
from test_kl import REASONS, launch, script, spoil

LABELS = {"a": 1, "b": 0, "c": 1, "d": 0}
YES, NO, BAD = "yes", "no", "invalid"
# Each prompt's four answers and P(Yes); an invalid answer is one whose header had to be forced.
ANSWERS = {
    "a": ([YES, YES, NO, BAD], [0.9, 0.8, 0.3, 0.6]),  # mean .65
    "b": ([NO, NO, YES, NO], [0.1, 0.2, 0.9, 0.8]),  # mean .5
    "c": ([YES, NO, BAD, BAD], [0.6, 0.5, 0.3, 0.2]),  # mean .4
    "d": ([BAD, BAD, BAD, BAD], [0.1, 0.1, 0.1, 0.1]),  # mean .1
}
RUNS = pl.DataFrame(
    {"method": ["base", "sft", "sft", "dpo"], "seed": [None, 1, 1, 1], "fraction": [0.0, 0.5, 1.0, 1.0], "step": 8},
    schema_overrides={"seed": pl.Int32},
).with_columns(reference=pl.lit("base"))
NOTHING = pl.DataFrame(
    schema={"fraction": pl.Float64, "probe_kind": pl.String, "dataset": pl.String, "split": pl.String}
    | {"id": pl.String, "p_hateful": pl.Float64, "method": pl.String, "seed": pl.Int32}
)


def memes(labels: dict[str, int], split: str = "val", texts: list[str] | None = None) -> pl.DataFrame:
    texts = texts or [f"caption {name}" for name in labels]
    frame = pl.DataFrame({"id": list(labels), "label": list(labels.values()), "text": texts})
    return frame.select(
        dataset=pl.lit("d"), split=pl.lit(split), id="id", label=pl.col("label").cast(pl.Int8), text="text"
    )


def answers(
    given: dict[str, tuple[list[str], list[float]]] = ANSWERS,
    method: str = "sft",
    fraction: float = 1.0,
    labels: dict[str, int] = LABELS,
) -> pl.DataFrame:
    """Samples with their length, as the script hands them over."""
    rows = [
        {"fraction": fraction, "dataset": "d", "split": "val", "id": meme, "length": 10 + i,
         "finish_reason": "length" if (meme, i) == ("a", 3) else "stop", "answer": answer, "format_ok": answer != BAD,
         "correct": answer == (YES if labels[meme] else NO), "p_hateful": p, "forced": answer == BAD}
        for meme, (parsed, scores) in given.items()
        for i, (answer, p) in enumerate(zip(parsed, scores, strict=True))
    ]  # fmt: skip
    kind = "base_sample" if method == "base" else "own_sample"
    frame = pl.DataFrame(rows).with_columns(probe_kind=pl.lit(kind))
    return gather.labelled(frame, method, None if method == "base" else 1)


def analysed(
    samples: pl.DataFrame, responses: pl.DataFrame = NOTHING, resamples: int = 50, prompts: pl.DataFrame | None = None
):
    prompts = memes(LABELS) if prompts is None else prompts
    return accuracy.measure(samples, responses, prompts, RUNS, resamples, "d")


def row(table: pl.DataFrame, statistic: str, **where: object) -> dict:
    null = [name for name, wanted in where.items() if wanted is None]
    found = table.filter(*(pl.col(name).is_null() for name in null), statistic=statistic)
    found = found.filter(**{name: wanted for name, wanted in where.items() if wanted is not None})
    assert len(found) == 1, f"{statistic}: {len(found)} rows"
    return found.row(0, named=True)


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        ("accuracy", 0.375),  # right .5, .75, .25, 0
        ("accuracy_given_parse", 2 / 3),  # right 1.5 of parsed .75 + 1 + .5 + 0 = 2.25
        ("majority_accuracy", 0.5),  # a 2:1 yes; b 3:1 no; c 1:1, mean .4, so no: wrong; d has no vote: wrong
        ("f1", 0.5),  # hits .5 + .25; false claim .25; misses .5 + .75: 1.5/(1.5 + .25 + 1.25)
        ("macro_f1", (0.5 + 1.5 / 3.25) / 2),  # benign: hits .75; false claims .25 + .25; misses .25 + 1
        ("decision_f1", 0.5),  # a .65 and b .5 claimed, c .4 missed: 2/(2 + 1 + 1)
        ("invalid_share", 0.4375),  # .25 + 0 + .5 + 1 over 4
        ("format_share", 0.5625),
        ("cut_share", 1 / 16),
        ("forced_share", 0.4375),
        ("length", 11.5),  # 10, 11, 12, 13
        ("auroc", 0.75),  # .65 and .4 against .5 and .1: all but .4 > .5
        ("auroc_unforced", 1.0),  # a (.9 + .8 + .3)/3, c (.6 + .5)/2, b .5; d has none: both above b
    ],
)
def test_by_hand(statistic: str, expected: float):
    found = row(analysed(answers()), statistic)
    assert found["value"] == pytest.approx(expected) and found["n"] == 4
    assert found["unit"] == ("token" if statistic == "length" else "1")
    assert found["ci_low"] <= found["value"] <= found["ci_high"]


def test_a_tie_goes_by_the_mean_score():
    """One yes, one no: a mean of exactly ½ counts as yes, .4 as no."""
    tied = {"a": ([YES, NO], [0.7, 0.3]), "b": ([YES, NO], [0.5, 0.5]), "c": ([YES, NO], [0.4, 0.4])}
    per = accuracy.per_prompt(answers(tied), memes(LABELS)).sort("id")
    assert per["vote_right"].to_list() == [1, 0, 0] and per["p"].to_list() == pytest.approx([0.5, 0.5, 0.4])


def test_decisions_are_not_the_answers():
    """Every answer of c is no, but its mean P(Yes) is ½: a hit of the decision, a miss of the answers.

    a .9, c .5, b .6 claimed, d .1 not: 2·2/(4 + 1) = .8; no answer says yes but a's: 2/(2 + 1) = ⅔. dpo decides c and
    b as no and answers as sft does: 2/(2 + 1) = ⅔, so its decision is worse by .8 − ⅔ and its answers by nothing.
    """
    given = {"a": ([YES] * 2, [0.9, 0.9]), "b": ([NO] * 2, [0.8, 0.4]), "c": ([NO] * 2, [0.6, 0.4])}
    given["d"] = ([NO] * 2, [0.1, 0.1])
    dpo = {**given, "b": ([NO] * 2, [0.3, 0.4]), "c": ([NO] * 2, [0.5, 0.4])}
    table = analysed(pl.concat([answers(given), answers(dpo, "dpo")]))
    assert row(table, "decision_f1", method="sft")["value"] == pytest.approx(0.8)
    assert row(table, "f1", method="sft")["value"] == pytest.approx(2 / 3)
    assert row(table, "decision_f1_difference", versus="sft")["value"] == pytest.approx(2 / 3 - 0.8)
    assert row(table, "f1_difference", versus="sft")["value"] == 0


def test_one_class_alone_has_no_auroc():
    table = analysed(answers({name: ANSWERS[name] for name in "ac"}))
    found = row(table, "auroc")
    assert (found["value"], found["ci_low"], found["ci_high"]) == (None, None, None)
    assert row(table, "accuracy")["value"] == pytest.approx(0.375)


def test_equal_methods_differ_by_exactly_nothing():
    table = analysed(pl.concat([answers(method=method) for method in ("sft", "dpo", "base")]))
    gaps = table.filter(pl.col("statistic").str.ends_with("_difference"))
    assert gaps.select("method", "versus").unique().sort("method", "versus").rows() == [
        ("dpo", "base"), ("dpo", "sft"), ("sft", "base"),
    ]  # fmt: skip
    assert len(gaps) == 3 * len(accuracy.COMPARED)
    assert gaps.select("value", "ci_low", "ci_high").unique().rows() == [(0, 0, 0)]
    assert table.filter(statistic="mcnemar_p_holm")["value"].to_list() == [1, 1, 1]


def test_differences_and_mcnemar_by_hand():
    """sft's votes are right on a, b; dpo's on b, c, d: 1 pair against 2, p = min(1, 2·(1 + 3)/8) = 1.

    Accuracy: dpo 0, 1, 1, 1, so .75, against .375.
    """
    dpo = answers({name: ([NO] * 4, [0.2] * 4) for name in "abd"} | {"c": ([YES] * 4, [0.9] * 4)}, "dpo")
    table = analysed(pl.concat([answers(), dpo]))
    assert row(table, "accuracy_difference", versus="sft")["value"] == pytest.approx(0.375)
    assert row(table, "only_this_right", versus="sft")["value"] == 2
    assert row(table, "only_versus_right", versus="sft")["value"] == 1
    assert row(table, "mcnemar_p", versus="sft")["value"] == 1


def test_only_common_prompts_are_compared():
    """sft answered a, b, c, d, dpo only a, all right: on a, sft has ½, so the difference is ½ (n = 1)."""
    table = analysed(pl.concat([answers(), answers({"a": ([YES] * 4, [0.9] * 4)}, "dpo")]))
    found = row(table, "accuracy_difference", versus="sft")
    assert (found["value"], found["n"], found["ci_low"], found["ci_high"]) == (0.5, 1, 0.5, 0.5)
    assert row(table, "accuracy", method="sft")["n"] == 4 and row(table, "mcnemar_p", versus="sft")["n"] == 1


def test_mcnemar_only_at_the_end_of_training():
    table = analysed(pl.concat([answers(method="base", fraction=0.0), answers(fraction=0.5), answers(fraction=1.0)]))
    assert row(table, "mcnemar_p")["fraction"] == 1
    assert set(table.filter(statistic="accuracy_difference")["fraction"]) == {0.5, 1.0}


def test_clusters_widen_the_interval():
    """Two captions for 40 memes, one always right, one never: a resample is 0, ½ or 1, and the interval all of it."""
    labels = {f"m{i:02d}": i % 2 for i in range(40)}
    given = {name: ([YES if labels[name] == (i < 20) else NO], [0.5]) for i, name in enumerate(labels)}
    apart = row(analysed(answers(given, labels=labels), prompts=memes(labels)), "accuracy")
    texts = ["one"] * 20 + ["two"] * 20
    joined = row(analysed(answers(given, labels=labels), prompts=memes(labels, texts=texts)), "accuracy")
    assert apart["value"] == joined["value"] == 0.5 and joined["n"] == 40
    assert (joined["ci_low"], joined["ci_high"]) == (0, 1)
    assert 0.25 < apart["ci_low"] < apart["ci_high"] < 0.75


def probes(scores: dict[str, list[float]], split: str, method: str = "sft", kind: str = "base_sample") -> pl.DataFrame:
    rows = [{"id": name, "p_hateful": p} for name, values in scores.items() for p in values]
    frame = pl.DataFrame(rows).select(
        fraction=pl.lit(1.0),
        probe_kind=pl.lit(kind),
        dataset=pl.lit("d"),
        split=pl.lit(split),
        id="id",
        p_hateful="p_hateful",
    )
    return gather.labelled(frame, method, 1)


def test_train_val_gap_by_hand():
    """Sides: a, c are 1, b, d are 0; ½ counts as hateful.

    train: a .9 .5 right, b .4 .6 half, c .2 .6 half, d .1 .1 right: 3/4; means .7 .5 .4 .1: AUROC 3/4.
    val: a .4 .6 half, b .3 .5 half, c .3 .1 wrong, d .2 .4 right: 1/2; means .5 .4 .2 .3: .5 beats both, .2 none: 1/2.
    """
    train = {"a": [0.9, 0.5], "b": [0.4, 0.6], "c": [0.2, 0.6], "d": [0.1, 0.1]}
    val = {"a": [0.4, 0.6], "b": [0.3, 0.5], "c": [0.3, 0.1], "d": [0.2, 0.4]}
    prompts = pl.concat([memes(LABELS, split) for split in ("train", "val")])
    own = probes({"a": [0.0, 0.0]}, "val", kind="own_sample")  # on other texts: not counted
    table = analysed(answers(), pl.concat([probes(train, "train"), probes(val, "val"), own]), prompts=prompts)
    for statistic, split, expected in (
        ("probe_accuracy", "train", 0.75), ("probe_accuracy", "val", 0.5), ("probe_accuracy_gap", "train-val", 0.25),
        ("probe_auroc", "train", 0.75), ("probe_auroc", "val", 0.5), ("probe_auroc_gap", "train-val", 0.25),
    ):  # fmt: skip
        assert row(table, statistic, split=split)["value"] == pytest.approx(expected), statistic


def test_gaps_of_two_methods_are_compared_on_the_same_prompts():
    """sft: train a, d right of a, b, c, d, val a: gap ½ − ¼ = ¼; dpo: train all, val a: 1 − ¼ = ¾; dpo − sft = ½."""
    prompts = pl.concat([memes(LABELS, split) for split in ("train", "val")])
    half = {"a": [0.9], "b": [0.9], "c": [0.1], "d": [0.1]}
    whole = {"a": [0.9], "b": [0.1], "c": [0.9], "d": [0.1]}
    val = {"a": [0.9], "b": [0.9], "c": [0.1], "d": [0.9]}
    dpo = [
        probes(scores, split).with_columns(method=pl.lit("dpo")) for scores, split in ((whole, "train"), (val, "val"))
    ]
    table = analysed(answers(), pl.concat([probes(half, "train"), probes(val, "val"), *dpo]), prompts=prompts)
    (found,) = table.filter(pl.col("statistic") == "probe_accuracy_gap_difference").to_dicts()
    assert (found["method"], found["versus"], found["split"], found["n"]) == ("dpo", "sft", "train-val", 4)
    # Val is the same for both, so it does not show in the difference: a and d of train agree, b and c do not.
    assert found["value"] == pytest.approx(0.5)
    assert 0 <= found["ci_low"] < 0.5 < found["ci_high"] <= 1


def test_captions_of_both_splits_are_resampled_together():
    """The same memes in train and val, with the same scores: the gap is 0 in every resample."""
    prompts = pl.concat([memes(LABELS, split) for split in ("train", "val")])
    scores = {"a": [0.9], "b": [0.8], "c": [0.3], "d": [0.1]}
    table = analysed(answers(), pl.concat([probes(scores, "train"), probes(scores, "val")]), prompts=prompts)
    found = row(table, "probe_accuracy_gap")
    assert (found["value"], found["ci_low"], found["ci_high"]) == (0, 0, 0)
    level = row(table, "probe_accuracy", split="val")
    assert level["ci_low"] < level["ci_high"]


def test_gap_is_that_of_the_trained_dataset_with_both_splits():
    table = analysed(answers(), probes({"a": [0.9]}, "val"))
    assert not table["statistic"].str.ends_with("_gap").any()


def test_row_order_does_not_matter():
    samples = pl.concat([answers(method=method) for method in ("sft", "base")])
    assert analysed(samples).equals(analysed(samples.sample(fraction=1, shuffle=True, seed=0)))


def test_a_study_of_the_base_alone(tmp_path):
    tables.write(analysed(answers(method="base", fraction=0.0)), tmp_path / "accuracy.parquet", "accuracy")
    table = tables.read(tmp_path / "accuracy.parquet", "accuracy")
    assert table["seed"].null_count() == table["versus"].null_count() == len(table) > 0


# The made-up study.
METHODS = ("sft", "grpo")
VAL = {"dataset": "memes", "split": "val", "fraction": 1.0, "seed": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Path]]]:
    folder = tmp_path_factory.mktemp("study")
    return folder, synthetic.write_study(folder, METHODS)


@pytest.fixture(scope="module")
def table(study) -> pl.DataFrame:
    folder, paths = study
    given = {name: paths[name] for name in ("samples", "base", "responses", "runs", "data")}
    return launch(folder, "accuracy", given, {"resamples": 60, "in_domain": "memes"})


@pytest.fixture(scope="module")
def val(study) -> dict[str, pl.DataFrame]:
    """Every run's last answers on val, with label and cluster, in a fixed order."""
    prompts = gather.prompts(study[1]["data"]).filter(dataset="memes", split="val")
    prompts = prompts.with_columns(cluster=pl.Series(stats.clusters(prompts["text"])))
    found = {}
    for path in study[1]["samples"]:
        frame = tables.read(path, "samples").filter(dataset="memes", split="val", fraction=1.0)
        found["/".join(map(str, gather.run_of(path)))] = frame.join(prompts, on=gather.MEME).sort("id", "sample")
    return found


def predictions(frame: pl.DataFrame) -> np.ndarray:
    return frame["answer"].replace_strict({"yes": 1, "no": 0, "invalid": 2}).to_numpy()


def test_script_covers_the_study(table):
    levels = table.filter(statistic="accuracy")
    policies = {(m, s) for m in METHODS for s in synthetic.SEEDS}
    expected = {(m, s, f, "memes", "val") for m, s in policies for f in synthetic.FRACTIONS}
    expected |= {(m, s, 1.0, dataset, "test") for m, s in policies for dataset in ("memes", "other")}
    expected |= {("base", None, 0.0, dataset, split) for dataset, split in synthetic.SPLITS}
    assert set(levels.select("method", "seed", "fraction", "dataset", "split").rows()) == expected
    assert set(table.filter(statistic="accuracy_gap")["method"]) == {"base"}
    gaps = table.filter(statistic="probe_accuracy_gap")
    assert set(gaps.select("method", "seed").rows()) == policies | {("base", None)}
    # Policies were made to learn train memes 1.5 times as well.
    assert (gaps.filter(fraction=1.0)["value"] > gaps.filter(method="base")["value"].item()).all()
    keys = ["method", "seed", "fraction", "dataset", "split", "probe_kind", "versus", "statistic"]
    assert table.select(pl.struct(keys).n_unique()).item() == len(table)
    assert (
        table["study"].unique().to_list() == ["synthetic"] and table.filter(fraction=0.5)["step"].unique().item() == 40
    )


def test_script_equals_sklearn(table, val):
    for method in METHODS:
        frame = val[f"{method}/2"]
        truth, claimed = frame["label"].to_numpy(), predictions(frame)
        per = frame.group_by("id", maintain_order=True).agg(pl.col("label").first(), pl.col("p_hateful").mean())
        own = frame.filter(~pl.col("forced")).group_by("id").agg(pl.col("label").first(), pl.col("p_hateful").mean())
        for statistic, expected in {
            "accuracy": accuracy_score(truth, claimed),
            "f1": f1_score(truth, claimed, labels=[1], average="macro"),
            "macro_f1": f1_score(truth, claimed, labels=[0, 1], average="macro"),
            "decision_f1": f1_score(per["label"], (per["p_hateful"] >= 0.5).cast(pl.Int8)),
            "auroc": roc_auc_score(per["label"], per["p_hateful"]),
            "auroc_unforced": roc_auc_score(own["label"], own["p_hateful"]),
        }.items():
            assert row(table, statistic, method=method, versus=None, **VAL)["value"] == pytest.approx(expected), (
                statistic
            )


def test_script_intervals_equal_a_loop_with_sklearn(table, val):
    """F1, AUROC and their paired differences, resample by resample over written-out responses."""
    frames = [val[f"{method}/2"] for method in METHODS]
    first = frames[0]
    weights = stats.resample_weights(first["cluster"].max() + 1, 60, "memes/val")
    of_cluster = first.with_row_index().group_by("cluster").agg("index").sort("cluster")["index"].to_list()
    claims = [predictions(frame) for frame in frames]
    means = [frame["p_hateful"].to_numpy().reshape(-1, synthetic.SAMPLES).mean(axis=1) for frame in frames]
    truth, found = first["label"].to_numpy(), {"f1": [], "auroc": []}
    for counts in weights:
        drawn = np.array([i for c, k in enumerate(counts) for _ in range(int(k)) for i in of_cluster[c]])
        memes_drawn = drawn[drawn % synthetic.SAMPLES == 0] // synthetic.SAMPLES
        labels = truth[:: synthetic.SAMPLES][memes_drawn]
        found["f1"].append([f1_score(truth[drawn], c[drawn], labels=[1], average="macro") for c in claims])
        found["auroc"].append([roc_auc_score(labels, mean[memes_drawn]) for mean in means])
    for statistic, replicates in found.items():
        sft, grpo = np.array(replicates).T
        for name, method, versus, values in (
            (statistic, "sft", None, sft),
            (statistic, "grpo", None, grpo),
            (f"{statistic}_difference", "grpo", "sft", grpo - sft),
        ):
            got = row(table, name, method=method, versus=versus, **VAL)
            expected = np.quantile(values, [0.025, 0.975])
            assert [got["ci_low"], got["ci_high"]] == pytest.approx(expected, rel=1e-8), name


def majority_right(frame: pl.DataFrame) -> list[bool]:
    """Prompt by prompt, in words: more yes than no, at a tie the mean score; no answer at all is wrong."""
    right = []
    for i in range(0, len(frame), synthetic.SAMPLES):
        rows = frame[i : i + synthetic.SAMPLES]
        yes, no = (rows["answer"].to_list().count(word) for word in ("yes", "no"))
        hateful = yes > no if yes != no else rows["p_hateful"].mean() >= 0.5
        right.append(bool(yes + no) and hateful == (rows["label"][0] == 1))
    return right


def test_script_mcnemar_equals_the_binomial_test(table, val):
    pairs = list(zip(*(majority_right(val[f"{method}/2"]) for method in METHODS), strict=True))
    sft_only, grpo_only = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    assert sft_only + grpo_only > 0
    where = {"method": "grpo", "versus": "sft", **VAL}
    assert row(table, "only_this_right", **where)["value"] == grpo_only
    assert row(table, "only_versus_right", **where)["value"] == sft_only
    p = scipy.stats.binomtest(sft_only, sft_only + grpo_only).pvalue
    assert row(table, "mcnemar_p", **where)["value"] == pytest.approx(p)


def test_script_holm_is_taken_over_a_dataset_and_split(table):
    """Tests of val: each of four runs with the base, and the methods at each of two seeds: six."""
    keys = ["method", "seed", "versus"]
    val = table.filter(dataset="memes", split="val")
    plain, adjusted = (val.filter(statistic=s).sort(keys)["value"].to_list() for s in ("mcnemar_p", "mcnemar_p_holm"))
    assert len(plain) == len(adjusted) == 6
    running, expected = 0.0, {}
    for rank, i in enumerate(sorted(range(6), key=plain.__getitem__)):
        running = max(running, min(1, (6 - rank) * plain[i]))
        expected[i] = running
    assert adjusted == pytest.approx([expected[i] for i in range(6)])
    assert adjusted != pytest.approx(plain)


# Bad input.
@pytest.mark.parametrize("how", REASONS)
@pytest.mark.parametrize("name", ["samples", "base", "responses", "data"])
def test_unusable_tables_are_named(study, tmp_path, name: str, how: str):
    paths = {key: study[1][key][:2] for key in ("samples", "base", "responses", "runs", "data")}
    good = study[1][name][-1]
    good = next(good.rglob("*.parquet")) if good.is_dir() else good
    below = "base/other/x.parquet" if name == "base" else "dpo/seed1.parquet"
    bad = spoil(good, tmp_path / below, how, "samples" if name == "base" else name)
    paths[name] = [*paths[name], bad]
    with pytest.raises(InputError, match=f"{bad}: .*{REASONS[how]}"):
        script("accuracy").main(**paths, table=tmp_path / "accuracy.parquet", resamples=5, in_domain="memes")
    assert not (tmp_path / "accuracy.parquet").exists()
