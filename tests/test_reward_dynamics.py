"""The analysis `rewards`: rollouts and answers by hand, the made-up study end to end, what is missing or unusable."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import synthetic
from memedynamics import figures, gather, reward_dynamics, reward_gaps, reward_history, reward_training, stats, tables
from memedynamics.errors import InputError
from memedynamics.figure_rewards import figure_rewards
from memedynamics.prompts import Prompt

SCRIPTS = Path(__file__).parents[1] / "workflow/scripts"
SIZES = {"grpo": 2}
PROMPT = Prompt(name="p", questions={"q": "?"}, user="{question}", blocks=["think", "answer"])
RULES = {"format": 0.1, "accuracy": 0.9}
RUNS = pl.DataFrame(
    [("base", None, 0.0, 0), ("grpo", 1, 0.0, 0), ("grpo", 1, 0.5, 2), ("grpo", 1, 1.0, 4)],
    schema={"method": pl.String, "seed": pl.Int32, "fraction": pl.Float64, "step": pl.Int64}, orient="row",
).with_columns(reference=pl.lit("base"))  # fmt: skip
PROMPTS = pl.DataFrame(
    [("train", m, i % 2, m) for i, m in enumerate("abcd")] + [("val", m, i % 2, m) for i, m in enumerate("xy")],
    schema={"split": pl.String, "id": pl.String, "label": pl.Int8, "text": pl.String}, orient="row",
).with_columns(dataset=pl.lit("d"))  # fmt: skip


def text(word: str, kept: float) -> str:
    """A response whose answer is `word`, in the strict format or, without its rationale, out of it."""
    return f"{'<think> x </think>' if kept else ''}<answer>{word}</answer>"


def rollouts(drawn: list[tuple[int, str, list[tuple[float, float]]]], learnt: dict | None = None) -> pl.DataFrame:
    """Rows of grpo, seed 1: each of `drawn` is a step, an id, and (format, accuracy) of every completion.

    What is neither right nor well-formed has no answer. `learnt`: what a reward model gives to each (format, accuracy)
    in the rules' place.
    """
    labels = dict(PROMPTS.select("id", "label").rows()) | {"z": 0}
    words = {meme: ("No", "Yes") if label else ("Yes", "No") for meme, label in labels.items()}
    rows = [
        {"method": "grpo", "seed": 1, "step": step, "id": meme, "sample": i,
         "text": text(words[meme][int(a)] if a or f else "Maybe", f),
         "rewards": [("format", f), ("accuracy", a), *([("reward_model", learnt[f, a])] if learnt else [])],
         "reward": learnt[f, a] if learnt else 0.1 * f + 0.9 * a, "advantage": 0.5 - i}
        for step, meme, group in drawn for i, (f, a) in enumerate(group)
    ]  # fmt: skip
    kinds = {"seed": pa.int32(), "sample": pa.int16(), "rewards": pa.map_(pa.string(), pa.float64())}
    columns = {name: pa.array([row[name] for row in rows], kinds.get(name)) for name in rows[0]}
    return reward_training.graded(pl.from_arrow(pa.table(columns)), PROMPT, RULES)


GOOD, WRONG, BAD = (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)
DRAWN = [(1, "a", [GOOD, WRONG]), (1, "b", [GOOD, GOOD]), (2, "a", [WRONG, BAD]), (3, "c", [BAD, BAD])]


def placed(drawn: list = DRAWN) -> pl.DataFrame:
    return reward_training.placed(reward_training.groups(rollouts(drawn), SIZES), PROMPTS, RUNS, "d")


def base(rewards: dict[str, list[float]]) -> pl.DataFrame:
    """Base samples of train memes with these rewards."""
    rows = [("d", "train", meme, i, r) for meme, values in rewards.items() for i, r in enumerate(values)]
    return pl.DataFrame(rows, schema=["dataset", "split", "id", "sample", "reward"], orient="row")


BASE = base({"a": [1, 0.1, 1], "b": [1, 1, 1], "c": [0.1, 0.1, 0.0], "d": [1, 0.1, 0.0]})


def pick(rows: list[dict], **where: object) -> dict:
    (found,) = [row for row in rows if all(row.get(k) == v for k, v in where.items())]
    return found


def test_groups_by_hand():
    """a, step 1: rewards 1 and .1: mean .55, std .9/√2. b: equal. a, step 2: .1 and 0. c: equal."""
    found = reward_training.groups(rollouts(DRAWN), SIZES)
    assert found["reward"].to_list() == pytest.approx([0.55, 1, 0.05, 0])
    assert found["reward_std_within"].to_list() == pytest.approx([0.9 / 2**0.5, 0, 0.1 / 2**0.5, 0])
    assert found["zero_share"].to_list() == [0, 1, 0, 1]
    assert found["rewards/accuracy/mean"].to_list() == [0.5, 1, 0, 0]
    assert found["rewards/format/mean"].to_list() == [1, 1, 0.5, 0]
    assert found["advantage_abs"].to_list() == [0.5] * 4
    assert found["rules_reward"].to_list() == found["reward"].to_list()
    # a and c are benign: right is no, WRONG yes, BAD no answer at all; b is hateful.
    assert found.select("yes", "no", "format_ok").rows() == [(0.5, 0.5, 1), (1, 0, 1), (0.5, 0, 0.5), (0, 0, 0)]


def test_the_same_prompt_twice_in_a_step_is_two_groups():
    found = reward_training.groups(rollouts([(1, "a", [GOOD, BAD]), (1, "a", [GOOD, GOOD])]), SIZES)
    assert found["zero_share"].to_list() == [0, 1]


def test_rewards_that_differ_by_rounding_are_equal():
    """Eight float32 rewards of .9 deviate from their mean by 6e-8, which TRL's comparison with 1e-8 calls a spread."""
    values = np.full(8, 0.9, np.float32)
    deviation = np.sqrt(((values - values.mean(dtype=np.float32)) ** 2).sum() / 7)
    assert values.max() - values.min() < reward_training.SAME and deviation < reward_training.SAME
    right_but_bad = [(0.0, 1.0)] * 2
    assert reward_training.groups(rollouts([(1, "a", right_but_bad)]), SIZES)["zero_share"].to_list() == [1]


def test_means_over_steps_windows_and_the_run():
    """Windows end at steps 2 and 4: a, b, a and c. Shares of zero groups: step 1 ½, first window ⅓, run ½."""
    rows = reward_training.rows(reward_training.with_forecast(placed(), BASE, SIZES, "d")[0], 50)
    share = {"statistic": "zero_share", "source": "rollouts"}
    assert pick(rows, over="step", fraction=0.25, **share)["value"] == 0.5
    assert pick(rows, over="window", fraction=0.5, **share)["value"] == pytest.approx(1 / 3)
    assert pick(rows, over="window", fraction=1.0, **share)["value"] == 1
    # b, all of whose base samples agree, has the highest forecast: the last quarter is b alone.
    assert pick(rows, over="quarter4", **share)["value"] == 1
    assert pick(rows, over="quarter4", statistic="zero_share_unbiased")["value"] == 1
    assert sum(pick(rows, over=f"quarter{i}", **share)["n"] for i in (1, 2, 3, 4)) == 4
    whole = pick(rows, over="run", **share)
    assert whole["value"] == 0.5 and whole["n"] == 3
    assert whole["ci_low"] < 0.5 < whole["ci_high"]


def test_interval_equals_a_loop_over_clusters():
    """Run: a's two groups are one cluster; b and c one each. Every resample is written out."""
    row = pick(reward_training.rows(
        reward_training.with_forecast(placed(), BASE, SIZES, "d")[0], 40
    ), over="run", statistic="reward", source="rollouts")  # fmt: skip
    by_cluster = [[0.55, 0.05], [1.0], [0.0]]
    weights = stats.resample_weights(3, 40, "groups")
    means = [np.mean([x for k, values in zip(w, by_cluster, strict=True) for x in values * int(k)]) for w in weights]
    assert [row["ci_low"], row["ci_high"]] == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_forecast_is_about_the_prompts_that_were_drawn():
    """G = 2, K = 3. a: 2 and 1 of 3 agree: 1 of 3 pairs; b: 1; c: 1 of 3; plug-in a: 5/9. Run draws a, b, a, c."""
    found, ahead = reward_training.with_forecast(placed(), BASE, SIZES, "d")
    rows = reward_training.rows(found, 20)
    run = {"over": "run", "source": "forecast"}
    assert pick(rows, statistic="zero_share_unbiased", **run)["value"] == pytest.approx((1 / 3 + 1 + 1 / 3 + 1 / 3) / 4)
    assert pick(rows, statistic="zero_share_plug_in", **run)["value"] == pytest.approx((5 / 9 + 1 + 5 / 9 + 5 / 9) / 4)
    error = pick(rows, statistic="observed_minus_posterior", **run)["value"]
    assert error == pytest.approx(0.5 - pick(rows, statistic="zero_share_posterior", **run)["value"])
    pairs = pl.DataFrame({"dataset": "d", "id": ["a", "d"]})
    before = reward_training.ahead_rows(ahead, pairs, PROMPTS, 20)
    name = {"statistic": "zero_share_unbiased"}
    # d's three rewards all differ: 0.
    assert pick(before, over="split", **name)["value"] == pytest.approx((1 / 3 + 1 + 1 / 3 + 0) / 4)
    assert pick(before, over="paired", **name)["value"] == pytest.approx(1 / 6)


def test_groups_larger_than_the_samples_have_no_unbiased_forecast():
    drawn = [(1, "a", [GOOD, WRONG, BAD, GOOD])]
    found = reward_training.placed(reward_training.groups(rollouts(drawn), {"grpo": 4}), PROMPTS, RUNS, "d")
    rows = reward_training.rows(reward_training.with_forecast(found, BASE, {"grpo": 4}, "d")[0], 20)
    row = pick(rows, statistic="zero_share_unbiased", over="run")
    assert np.isnan(row["value"]) and "fewer base samples" in row["missing"]
    assert pick(rows, statistic="zero_share_plug_in", over="run")["missing"] is None


@pytest.mark.parametrize("every", [1, 2])
def test_history_is_checked_against_the_rollouts(every: int):
    """Mean rewards of the steps .775, .05, 0; logged every second step: (.55 + 1 + .05)/3 at 2, then 0 at 4."""
    steps = {1: {1: 0.775, 2: 0.05, 3: 0.0}, 2: {2: 1.6 / 3, 4: 0.0}}[every]
    history = pl.DataFrame({"step": list(steps), "value": list(steps.values())}).with_columns(
        method=pl.lit("grpo"), seed=pl.lit(1, pl.Int32), metric=pl.lit("reward")
    )
    agreed = pick(reward_history.check_rows(history, placed()), statistic="reward")
    assert agreed["value"] == pytest.approx(0, abs=1e-12) and agreed["n"] == len(steps)
    moved = history.with_columns(pl.col("value") + pl.when(pl.col("step") == 2).then(0.2).otherwise(0.1))
    assert pick(reward_history.check_rows(moved, placed()), statistic="reward")["value"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [([(1, "a", [GOOD])], "group of 1 completions to 'a'"), ([(1, "z", [GOOD, BAD])], "'z' is no train meme of d")],
)
def test_rollouts_that_do_not_fit_are_named(drawn: list, said: str):
    with pytest.raises(InputError, match=said):
        placed(drawn)


def answers(rows: list[tuple]) -> pl.DataFrame:
    """Samples from (method, fraction, split, id, [(answer, format_ok, correct)])."""
    found = [
        {"method": method, "seed": None if method == "base" else 1, "fraction": fraction, "dataset": "d",
         "split": split, "id": meme, "answer": answer, "format_ok": ok, "correct": right,
         "reward": 0.1 * ok + 0.9 * right, "finish_reason": "stop", "p_hateful": 0.5, "forced": False, "length": 4,
         "probe_kind": "base_sample" if method == "base" else "own_sample"}
        for method, fraction, split, meme, given in rows for answer, ok, right in given
    ]  # fmt: skip
    return pl.DataFrame(found, schema_overrides={"seed": pl.Int32})


YES, LOOSE, NONE = ("yes", True, True), ("yes", False, True), ("invalid", False, False)


def level(table: pl.DataFrame, **where: object) -> float:
    for column, value in where.items():
        table = table.filter(pl.col(column).is_null() if value is None else pl.col(column) == value)
    assert len(table) == 1, table
    return table["value"].item()


def measured(
    samples: pl.DataFrame,
    drawn: pl.DataFrame,
    history: pl.DataFrame | None = None,
    runs: pl.DataFrame = RUNS,
    **options: object,
) -> pl.DataFrame:
    empty = pl.DataFrame(schema={"method": pl.String, "seed": pl.Int32, "step": pl.Int64, "metric": pl.String,
                                 "value": pl.Float64})  # fmt: skip
    pairs = pl.DataFrame({"dataset": ["d"], "id": ["a"]})
    history = empty if history is None else history
    return reward_dynamics.measure(samples, history, drawn, pairs, PROMPTS, runs, 30, "d", SIZES, **options)


def test_answers_and_gaps_by_hand():
    """Base on y (hateful): two good, one right but badly formed, one invalid.

    Parse ¾, format ½, accuracy ¾, given a parse 1.
    Rewards 1, 1, .9, 0: std √(((.275)²·2 + .175² + .725²)/3) = .4856.
    GRPO's accuracy: rollouts of the last window (c) 0 on train; val ½ at fraction ½ and 1 at 1, so ¾: gap −¾.
    The base on c: ⅔, on y ¾: its gap −1/12; gained −¾ + 1/12.
    """
    rows = [("base", 0.0, "train", m, [YES, YES, NONE]) for m in "abcd"]
    rows += [("base", 0.0, "val", "y", [YES, YES, LOOSE, NONE])]
    rows += [("grpo", 0.5, "val", "y", [YES, NONE]), ("grpo", 1.0, "val", "y", [YES, YES])]
    table = measured(answers(rows), rollouts(DRAWN))
    val = {"method": "base", "split": "val", "source": "samples"}
    expected = {"parse_share": 0.75, "format_share": 0.5, "accuracy": 0.75, "accuracy_given_parse": 1, "reward": 0.725}
    for name, value in (expected | {"reward_std_within": 0.48563, "length": 4}).items():
        assert level(table, statistic=name, **val) == pytest.approx(value, abs=1e-5)
    policy = {"method": "grpo", "fraction": 1.0, "source": "rollouts", "split": "train-val"}
    assert level(table, statistic="accuracy_gap", **policy) == pytest.approx(-0.75)
    assert level(table, statistic="accuracy_base_gap", **policy) == pytest.approx(2 / 3 - 0.75)
    assert level(table, statistic="accuracy_gained_gap", **policy) == pytest.approx(-0.75 - (2 / 3 - 0.75))
    # The first window starts at the base: val (¾ + ½)/2, train (a, b, a): a's two groups are .25, b 1.
    start = policy | {"fraction": 0.5}
    assert level(table, statistic="accuracy_gap", **start) == pytest.approx((0.25 + 1) / 2 - 0.625)
    assert level(table, statistic="accuracy_gap", **val | {"split": "train-val"}) == pytest.approx(2 / 3 - 0.75)
    difference = {"method": "grpo", "fraction": 0.5, "split": "val", "source": "samples"}
    assert level(table, statistic="reward_difference", **difference) == pytest.approx(0.5 - 0.725)


def gap_samples() -> pl.DataFrame:
    """Base: on train right, right and without an answer; on y (hateful) two of two right. GRPO on y: see the rows."""
    rows = [("base", 0.0, "train", m, [YES, YES, NONE]) for m in "abcd"] + [("base", 0.0, "val", "y", [YES, YES])]
    rows += [("grpo", 0.5, "val", "y", [YES, NONE]), ("grpo", 1.0, "val", "y", [YES, LOOSE])]
    return answers(rows)


def test_every_gap_that_rollouts_allow_by_hand():
    """Last window, two groups on c (benign): right and wrong, both well-formed; twice without an answer.

    Train, over 4: right 1, parsed 2, format 2: accuracy ¼, parse ½, given a parse ½, format ½, reward (1 + .1)/4.
    Val, mean of the two milestones: right (½ + 1)/2 = ¾, parsed ¾, format (½ + ½)/2 = ½, reward (½ + .95)/2 = .725.
    F1: on train no case is hateful and a claim is wrong: 0; on val ¾ hits, ¼ missed: 1.5/1.75.
    """
    table = measured(gap_samples(), rollouts([(3, "c", [GOOD, WRONG]), (4, "c", [BAD, BAD])]))
    policy = {"method": "grpo", "fraction": 1.0, "source": "rollouts", "split": "train-val"}
    expected = {"accuracy": 0.25 - 0.75, "parse_share": 0.5 - 0.75, "accuracy_given_parse": 0.5 - 1}
    expected |= {"format_share": 0.5 - 0.5, "reward": 1.1 / 4 - 0.725, "f1": 0 - 1.5 / 1.75}
    for name, value in expected.items():
        assert level(table, statistic=f"{name}_gap", **policy) == pytest.approx(value), name
    # The base parses ⅔ on c and all on y: −⅓; given a parse it is right on both.
    assert level(table, statistic="parse_share_base_gap", **policy) == pytest.approx(-1 / 3)
    assert level(table, statistic="parse_share_gained_gap", **policy) == pytest.approx(-0.25 + 1 / 3)
    assert level(table, statistic="accuracy_given_parse_gained_gap", **policy) == pytest.approx(-0.5)


def test_every_gap_is_a_number_or_a_reason():
    """Of each statistic of the samples and the share without advantage, for runs with and without groups."""
    asked = {f"{name}_gap" for name in (*reward_dynamics.STATISTICS, "auroc", "zero_share")}
    runs = pl.concat([RUNS, RUNS.filter(method="grpo").with_columns(method=pl.lit("sft"))])
    sft = gap_samples().filter(method="grpo").with_columns(method=pl.lit("sft"))
    table = measured(pl.concat([gap_samples(), sft]), rollouts([(3, "c", [GOOD, WRONG])]), runs=runs)
    gaps = table.filter(source="rollouts", split="train-val", fraction=1.0)
    for method, has in (("sft", set()), ("grpo", {f"{name}_gap" for name in reward_gaps.STATISTICS})):
        rows = gaps.filter(pl.col("statistic").is_in(asked), method=method)
        assert set(rows["statistic"]) == asked and len(rows) == len(asked)
        assert set(rows.drop_nulls("value")["statistic"]) == has
        assert set(rows.drop_nulls("missing")["statistic"]) == asked - has
    assert set(gaps.filter(method="sft")["missing"]) == {reward_gaps.NO_GROUPS}
    reasons = dict(gaps.filter(method="grpo").select("statistic", "missing").drop_nulls().rows())
    assert reasons == {f"{name}_gap": why for name, why in reward_gaps.UNDRAWN.items()}
    tables.conform(table.with_columns(study=pl.lit("s")), "rewards")
    # The figure gives the reason of the one that it draws, once.
    words = " ".join(note.text for note in figure_rewards(table).layout.annotations)
    assert words.count(reward_gaps.NO_GROUPS) == 1 and reward_gaps.NO_TOKENS not in words


LEARNT = {GOOD: -3.0, WRONG: 5.0, BAD: 7.0}


def test_a_run_on_a_learnt_reward_is_compared_by_the_rules():
    """The reward model likes what is wrong. Means of `reward` are its own, −3 and 5; by the rules 1 and .1; the gaps,
    and what is drawn of several runs on one axis, are the same as if the rules had graded.
    """
    drawn = [(3, "c", [GOOD, WRONG])]
    ruled, learnt = (measured(gap_samples(), rollouts(drawn, learnt)) for learnt in (None, LEARNT))
    run = {"source": "rollouts", "over": "run"}
    assert (level(learnt, statistic="reward", **run), level(ruled, statistic="reward", **run)) == (1, 0.55)
    assert level(learnt, statistic="rules_reward", **run) == pytest.approx(0.55)
    gaps = pl.col("statistic").str.ends_with("_gap") & (pl.col("source") == "rollouts")
    assert len(ruled.filter(gaps)) > 15 and learnt.filter(gaps).equals(ruled.filter(gaps))
    assert level(learnt, statistic="reward_gap", fraction=1.0, **run | {"over": "split"}) == pytest.approx(0.55 - 0.725)
    panels = [[list(t.y) for t in figure_rewards(f).data if t.xaxis == "x5"] for f in (ruled, learnt)]
    assert panels[0] == panels[1] and [pytest.approx(0.55)] in panels[1]


def test_rollouts_without_a_rule_of_the_study_are_named():
    frame = rollouts(DRAWN).with_columns(text=pl.lit("x"))
    with pytest.raises(
        InputError, match="rollouts of grpo seed 1, column rewards: not graded by the study's mine.short"
    ):
        reward_training.graded(frame, PROMPT, RULES | {"mine.short": 1.0})


def test_a_learnt_reward_says_what_it_is_worth():
    """As its report has it: no policy's row, on pairs held out of train; and a line below the figure."""
    rows = [("base", 0.0, split, m, [YES, YES]) for split, m in (("train", "a"), ("val", "y"))]
    rows += [("grpo", 1.0, "val", "y", [YES, NONE])]
    report = {"accuracy": 0.6, "ci_low": 0.31, "ci_high": 0.9, "n": 10, "margin": 0.25, "loss": 0.69}
    table = measured(answers(rows), rollouts(DRAWN[:1]), report=report)
    found = table.filter(source="reward_model").select("statistic", "value", "ci_low", "ci_high", "n", "split", "seed")
    assert sorted(found.rows()) == [
        ("reward_model_accuracy", 0.6, 0.31, 0.9, 10, "train", None),
        ("reward_model_margin", 0.25, None, None, 10, "train", None),
    ]
    tables.conform(table.with_columns(study=pl.lit("s")), "rewards")
    words = [" ".join(note.text for note in figure_rewards(t).layout.annotations) for t in (table, table.filter(n=2))]
    assert ["chosen response in 60% [31%, 90%] of 10 pairs" in text for text in words] == [True, False]


# The made-up study.
FIXED = {"prompt": "p", "chosen": "c", "rejected": "r", "chosen_sample": 0, "rejected_sample": 1}
FIXED |= {"pair_type": "wrong_answer", "num_correct": 1}


def write_training(folder: Path, method: str, seed: int) -> tuple[Path, Path]:
    """history and rollouts of a run: 80 steps of 3 groups of 4 for grpo, nothing drawn by the others."""
    rng, rows = np.random.default_rng(seed), []
    for step in range(1, 81) if method == "grpo" else []:
        for meme in rng.integers(60, size=3):
            right, kept = rng.random((2, 4)) < [[0.6], [0.9]]
            rows += [
                (step, f"memes-train-{meme:03d}", i, float(k), float(r))
                for i, (k, r) in enumerate(zip(kept, right, strict=True))
            ]
    names = ["step", "id", "sample", "format", "accuracy"]
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {name: [] for name in names}
    form, right = (np.array(columns.pop(name), float) for name in ("format", "accuracy"))
    by_name = [[("format", f), ("accuracy", a)] for f, a in zip(form, right, strict=True)]
    columns |= {"rewards": pa.array(by_name, pa.map_(pa.string(), pa.float64())), "reward": 0.1 * form + 0.9 * right}
    # Memes with an odd number are hateful.
    odd = [int(meme[-3:]) % 2 == 1 for meme in columns["id"]]
    words = [text("Yes" if o == bool(r) else "No", f) for o, r, f in zip(odd, right, form, strict=True)]
    columns |= {"text": words, "advantage": [0.0] * len(rows), "study": ["synthetic"] * len(rows)}
    columns = {name: pa.array(v, pa.string()) if name in ("id", "text", "study") else v for name, v in columns.items()}
    drawn, history = (
        folder / f"runs/{method}/seed{seed}/rollouts.parquet",
        folder / f"runs/{method}/seed{seed}/history.parquet",
    )
    tables.write(pa.table(columns), drawn, "rollouts")
    logged = [(step, "loss", 0.5) for step in range(1, 81)]
    if rows:
        frame = pl.DataFrame({"step": columns["step"], "reward": columns["reward"]})
        logged += [(s, "reward", r) for s, r in frame.group_by("step").mean().sort("step").rows()]
    log = pl.DataFrame(logged, schema=["step", "metric", "value"], orient="row").with_columns(study=pl.lit("synthetic"))
    tables.write(log, history, "history")
    return history, drawn


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("study")
    paths: dict[str, object] = dict(synthetic.write_study(folder, ("sft", "grpo")))
    written = [write_training(folder, method, seed) for method in ("sft", "grpo") for seed in synthetic.SEEDS]
    paths["histories"], paths["rollouts"] = (list(side) for side in zip(*written, strict=True))
    pairs = pl.DataFrame({"dataset": "memes", "id": [f"memes-train-{i:03d}" for i in range(0, 60, 2)]})
    pairs = pairs.with_columns(pl.lit(v).alias(k) for k, v in (FIXED | {"study": "synthetic"}).items())
    paths["preferences"] = folder / "preferences.parquet"
    tables.write(pairs, paths["preferences"], "preferences")
    return folder, {name: paths[name] for name in INPUTS}


INPUTS = ("samples", "base", "histories", "rollouts", "runs", "data", "preferences")
CFG = {"resamples": 50, "in_domain": "memes", "groups": {"grpo": 4}, "prompt": PROMPT.model_dump(), "rewards": RULES}


def launch(folder: Path, paths: dict, cfg: dict) -> subprocess.CompletedProcess:
    """Run the script as the workflow does, in a process that fails if it imports torch."""
    given = {k: [str(p) for p in v] if isinstance(v, list) else str(v) for k, v in paths.items()}
    job = {"rule": "rewards", "root": str(folder), "study": "synthetic", "digest": "", "code": "", "threads": 1}
    job |= {"gpu": 0, "work": str(folder / "work"), "wildcards": {}, "input": {}, "cfg": given | cfg}
    job["output"] = {"table": str(folder / "analyses/rewards.parquet")}
    code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__'); sys.exit('torch' in sys.modules)"
    return subprocess.run(
        [sys.executable, "-c", code, SCRIPTS / "rewards.py", json.dumps(job)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def table(study) -> pl.DataFrame:
    folder, paths = study
    done = launch(folder, paths, CFG)
    assert done.returncode == 0, done.stderr or "torch was imported"
    return tables.read(folder / "analyses/rewards.parquet", "rewards")


def test_script_covers_samples_and_training(table):
    keys = ["method", "seed", "fraction", "step", "dataset", "split", "source", "over", "statistic"]
    assert table.select(pl.struct(keys).is_duplicated().any()).item() is False
    assert set(table["source"]) == {"samples", "rollouts", "forecast", "history", "check"}
    own = table.filter(source="samples", statistic="reward", split="val")
    runs = {(m, s, f) for m in ("sft", "grpo") for s in synthetic.SEEDS for f in synthetic.FRACTIONS}
    assert set(own.select("method", "seed", "fraction").rows()) == runs | {("base", None, 0.0)}
    steps = table.filter(source="rollouts", over="step", statistic="reward", seed=1)
    assert steps["step"].to_list() == list(range(1, 81))
    assert steps["fraction"].to_list() == pytest.approx([step / 80 for step in range(1, 81)])
    assert (table.filter(source="check", statistic="reward")["value"] < 1e-12).all()
    loss = table.filter(source="history", statistic="loss")
    assert set(loss["method"]) == {"sft", "grpo"} and len(loss) == 4 * 80
    inside = (pl.col("ci_low") <= pl.col("value") + 1e-12) & (pl.col("value") <= pl.col("ci_high") + 1e-12)
    assert table.drop_nulls("ci_low").select(inside.mean()).item() > 0.99


def test_script_repeats_the_analysis_accuracy(table, study):
    """The statistics both have are the same numbers."""
    samples = tables.read(study[1]["samples"][2], "samples").filter(dataset="memes", split="val", fraction=1.0)
    where = {"method": "grpo", "seed": 1, "fraction": 1.0, "dataset": "memes", "split": "val", "source": "samples"}
    for name, column in (("accuracy", "correct"), ("format_share", "format_ok"), ("reward", "reward")):
        assert level(table, statistic=name, **where) == pytest.approx(samples[column].cast(pl.Float64).mean())
    valid = (samples["answer"] != "invalid").mean()
    assert level(table, statistic="parse_share", **where) == pytest.approx(valid)
    std = samples.group_by("id").agg(pl.col("reward").std())["reward"].mean()
    assert level(table, statistic="reward_std_within", **where) == pytest.approx(std)


def test_a_method_without_groups_changes_no_colour(table):
    """Panels on groups show `zeta` alone, the second of two names in the key above them."""
    names = pl.col("method").cast(pl.String).replace({"sft": "alpha", "grpo": "zeta"})
    figure = figure_rewards(table.with_columns(method=names))
    drawn = {t.marker.color for t in figure.data if t.xaxis in ("x5", "x6", "x7", "x8") and t.marker.color}
    assert drawn == {figures.FURTHER[1]}


def test_a_run_that_starts_elsewhere_is_not_joined_to_the_base(table):
    """Its own answers at fraction 0 say so; what it drew is not known there."""
    start = table.filter(method="grpo", source="samples", fraction=1.0).with_columns(fraction=pl.lit(0.0))
    begun = [figure_rewards(table), figure_rewards(pl.concat([table, start]))]
    lines = [[len(t.x) for t in f.data if t.xaxis in ("x6", "x8") and t.mode == "lines+markers"] for f in begun]
    assert lines == [[len(synthetic.FRACTIONS) + 1] * 4, [len(synthetic.FRACTIONS)] * 4]


def test_figure_has_what_the_table_has(table):
    """Four panels on answers; on groups four more, which a study without them leaves out."""
    whole = figure_rewards(table)
    alone = figure_rewards(table.filter(pl.col("method") != "grpo"))
    letters = [[a.text[3] for a in f.layout.annotations if a.text.startswith("<b>") and a.text[4:8] == "</b>"]
               for f in (whole, alone)]  # fmt: skip
    assert letters == [list("abcdefgh"), list("abcd")]
    val = table.filter(source="samples", statistic="reward", split="val", method="grpo", seed=2).sort("fraction")
    assert any(list(trace.y or [])[1:] == val["value"].to_list() for trace in whole.data)


def test_runs_without_rollouts_say_so(table):
    lacking = table.drop_nulls("missing")
    sft = lacking.filter(method="sft")
    assert {"zero_share", "reward_gap", "accuracy_gap", "format_share_gap"} < set(sft["statistic"])
    assert sft["missing"].unique().to_list() == [reward_gaps.NO_GROUPS]
    assert set(lacking.filter(method="grpo")["statistic"]) == {f"{name}_gap" for name in reward_gaps.UNDRAWN}


def test_a_study_without_groups(study, tmp_path):
    """SFT alone: history and rollouts tables are there, the latter without rows."""
    paths = {k: [p for p in v if "grpo" not in str(p)] if isinstance(v, list) else v for k, v in study[1].items()}
    done = launch(tmp_path, paths, CFG | {"groups": {}})
    assert done.returncode == 0, done.stderr
    found = tables.read(tmp_path / "analyses/rewards.parquet", "rewards")
    assert set(found["source"]) == {"samples", "rollouts", "history"}
    assert found.filter(source="rollouts")["value"].null_count() == len(found.filter(source="rollouts"))


@pytest.mark.parametrize("name", ["histories", "rollouts"])
def test_numbers_that_are_not_finite_are_named(study, tmp_path, name: str):
    schema, column = {"histories": ("history", "value"), "rollouts": ("rollouts", "reward")}[name]
    good = study[1][name][-1]
    bad = tmp_path / "grpo/seed9" / good.name
    spoiled = tables.read(good, schema).with_columns(pl.lit(float("nan")).alias(column))
    tables.write(spoiled, bad, schema)
    done = launch(tmp_path, study[1] | {name: [bad]}, CFG)
    assert done.returncode == 1 and f"{bad}, column {column}" in done.stderr


def test_step_and_window_shares_agree_with_a_count(table, study):
    """All groups of grpo, seed 1, counted anew from the file."""
    frame = tables.read(study[1]["rollouts"][2], "rollouts")
    assert gather.run_of(study[1]["rollouts"][2]) == ("grpo", 1)
    values = frame["reward"].to_numpy().reshape(-1, 4)
    steps = frame["step"].to_numpy().reshape(-1, 4)[:, 0]
    same = (np.ptp(values, axis=1) < 1e-6).astype(float)
    where = {"method": "grpo", "seed": 1, "statistic": "zero_share", "source": "rollouts"}
    assert level(table, over="run", **where) == pytest.approx(same.mean())
    window = (steps > 40) & (steps <= 80)
    assert level(table, over="window", fraction=1.0, **where) == pytest.approx(same[window].mean())
    assert level(table, over="step", step=7, **where) == pytest.approx(same[steps == 7].mean())
