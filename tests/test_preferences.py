"""Which samples make a pair, what becomes of prompts that give none, and the script that writes it all."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from memedynamics import preferences, tables
from memedynamics.errors import InputError
from memedynamics.prompts import load_prompt

ROOT = Path(__file__).parents[1]
PROMPT = load_prompt(ROOT / "config/prompts/think_answer.yaml")
# (correct, format_ok), and what a sample that is so earns at the default weights.
GOOD, WRONG, MALFORMED, HOPELESS = (True, True), (False, True), (True, False), (False, False)
REWARD = {GOOD: 1.0, WRONG: 0.1, MALFORMED: 0.9, HOPELESS: 0.0}


def sampled(**prompts: list[tuple[bool, bool]]) -> pl.DataFrame:
    """Base samples of prompts `id=[outcome of sample 0, 1, …]`."""
    rows = [
        {"dataset": "d", "id": meme, "sample": i, "text": f"{meme}{i}", "correct": outcome[0], "format_ok": outcome[1]}
        | {"reward": REWARD[outcome]}
        for meme, outcomes in prompts.items()
        for i, outcome in enumerate(outcomes)
    ]
    return pl.DataFrame(rows)


def memes(*ids: str) -> pl.DataFrame:
    return pl.DataFrame({"dataset": "d", "id": ids, "label": [1] * len(ids), "text": [f"caption {i}" for i in ids]})


@pytest.mark.parametrize(
    ("outcomes", "paired", "seed"),
    [
        # Wrong but well-formed is rejected by `paired`; the lowest reward, .0 < .1 < .9, by `seed`.
        ([HOPELESS, WRONG, GOOD, GOOD], (2, 1, "wrong_answer"), (2, 0, "bad_format")),
        ([MALFORMED, WRONG, GOOD], (2, 1, "wrong_answer"), (2, 1, "wrong_answer")),
        # No wrong answer: `paired` takes the first badly formed one, `seed` the one that is wrong as well.
        ([GOOD, MALFORMED, HOPELESS], (0, 1, "bad_format"), (0, 2, "bad_format")),
        # Several candidates: the first in sample order.
        ([WRONG, GOOD, WRONG, GOOD], (1, 0, "wrong_answer"), (1, 0, "wrong_answer")),
        ([GOOD, GOOD], "no_rejected", "no_rejected"),
        ([WRONG, MALFORMED], "no_chosen", "no_chosen"),
        ([HOPELESS], "no_chosen", "no_chosen"),
    ],
)
def test_pair(outcomes: list, paired: tuple | str, seed: tuple | str) -> None:
    samples = sampled(a=outcomes)
    assert preferences.pair(samples, "paired") == paired
    assert preferences.pair(samples, "seed") == seed
    assert preferences.pair(samples.reverse(), "paired") == paired


def slow_pair(rows: list[dict], rule: str) -> tuple | str:
    """An independent statement of both rules, one prompt at a time."""
    rows = sorted(rows, key=lambda row: row["sample"])
    chosen = [row for row in rows if row["correct"] and row["format_ok"]]
    if rule == "seed":
        worst = sorted((row for row in rows if row["reward"] < 1), key=lambda row: row["reward"])
    else:
        worst = [row for row in rows if row["format_ok"] and not row["correct"]]
        worst += [row for row in rows if not row["format_ok"]]
    if not chosen or not worst:
        return "no_rejected" if chosen else "no_chosen"
    kind = "wrong_answer" if worst[0]["format_ok"] else "bad_format"
    return chosen[0]["sample"], worst[0]["sample"], kind


@pytest.mark.parametrize("rule", ["paired", "seed"])
def test_against_one_prompt_at_a_time(rule: str) -> None:
    random = np.random.default_rng(0)
    kinds = list(REWARD)
    samples = sampled(
        **{f"m{i}": [kinds[k] for k in random.integers(4, size=random.integers(1, 6))] for i in range(200)}
    )
    shuffled = samples.sample(fraction=1, shuffle=True, seed=1)
    found = {row["id"]: row for row in preferences.outcomes(shuffled, rule).iter_rows(named=True)}
    for (_, meme), rows in samples.group_by("dataset", "id"):
        expected, row = slow_pair(rows.to_dicts(), rule), found[meme]
        if isinstance(expected, str):
            assert row["outcome"] == expected
        else:
            assert (row["chosen_sample"], row["rejected_sample"], row["pair_type"]) == expected
            assert (row["chosen"], row["rejected"]) == (f"{meme}{expected[0]}", f"{meme}{expected[1]}")


def test_own_weights_never_reject_what_is_good() -> None:
    """With a user's reward a good sample may earn less than 1, even less than a bad one."""
    samples = sampled(a=[GOOD, GOOD, WRONG]).with_columns(reward=pl.Series([0.9, 0.2, 0.5]))
    assert preferences.pair(samples, "seed") == (0, 2, "wrong_answer")


def test_no_prompt_is_lost() -> None:
    samples = sampled(right=[GOOD, GOOD], wrong=[WRONG, HOPELESS], pair=[WRONG, GOOD], malformed=[MALFORMED] * 2)
    ids = ("wrong", "pair", "malformed", "right")
    pairs, outcomes = preferences.build(samples, memes(*ids), "paired", PROMPT, "harmful")
    assert outcomes.select("id", "outcome", "num_samples", "num_correct", "num_format_ok").rows() == [
        ("wrong", "no_chosen", 2, 0, 1),
        ("pair", "paired", 2, 1, 2),
        ("malformed", "no_chosen", 2, 2, 0),
        ("right", "no_rejected", 2, 2, 2),
    ]
    (row,) = pairs.to_dicts()
    assert row["prompt"].startswith("Is it harmful? Think first")
    assert (row["chosen"], row["rejected"], row["num_correct"]) == ("pair1", "pair0", 1)


def test_a_meme_without_samples_is_an_error() -> None:
    with pytest.raises(InputError, match="samples: none for 1 memes \\(id 'b' is the first\\)"):
        preferences.build(sampled(a=[GOOD, WRONG]), memes("a", "b"), "paired", PROMPT, "hateful")


def test_no_pair_at_all_is_an_error_with_the_counts() -> None:
    samples = sampled(a=[GOOD, GOOD], b=[WRONG, WRONG], c=[HOPELESS, HOPELESS], e=[MALFORMED, MALFORMED])
    message = (
        r"preferences: none of 4 prompts gave a pair: 3 without a correct, well-formed sample "
        r"\(all samples wrong: 2, all badly formed: 2\), 1 with nothing but those; raise sampling\.num_samples"
    )
    with pytest.raises(InputError, match=message):
        preferences.build(samples, memes("a", "b", "c", "e"), "paired", PROMPT, "hateful")


def test_eight_and_a_half_thousand_prompts_take_seconds() -> None:
    """The size of Hateful Memes' train split at K = 8; half a second on a laptop."""
    random, n, k = np.random.default_rng(0), 8500, 8
    ids = [f"{i:05d}" for i in range(n)]
    correct, format_ok = random.random((2, n * k)) < 0.7
    samples = pl.DataFrame(
        {"dataset": "d", "id": np.repeat(ids, k), "sample": np.tile(np.arange(k), n), "text": ["word " * 100] * (n * k)}
        | {"correct": correct, "format_ok": format_ok, "reward": 0.9 * correct + 0.1 * format_ok}
    )
    start = time.perf_counter()
    _, outcomes = preferences.build(samples, memes(*ids), "paired", PROMPT, "hateful")
    assert time.perf_counter() - start < 5
    # P(no good sample) = .51^8 = .0046, P(all good) = .49^8 = .0033: 99.2 % give a pair.
    assert (outcomes["outcome"] == "paired").mean() == pytest.approx(0.992, abs=0.005)


def whole(samples: pl.DataFrame) -> pl.DataFrame:
    """`samples` with what else the schema asks for."""
    return samples.with_columns(
        fraction=0.0, split=pl.lit("train"), token_ids=[1, 2], tokens=pl.lit("drawn"), finish_reason=pl.lit("stop"),
        logp=-1.0, answer=pl.lit("yes"), p_hateful=0.5, label_mass=1.0, forced=False,
    )  # fmt: skip


def build(tmp_path: Path, samples: pl.DataFrame, data: pl.DataFrame) -> subprocess.CompletedProcess:
    """Run the script on tables on disk, as the workflow does."""
    tables.write(whole(samples), tmp_path / "samples.parquet", "samples")
    data = data.with_columns(split=pl.lit("train"), image=pl.concat_str(pl.lit("pictures/"), "id", pl.lit(".png")))
    data = data.with_columns(image_sha256=pl.lit("0"), width=1, height=1, groups=pl.lit([], pl.List(pl.String)))
    tables.write(data, tmp_path / "data.parquet", "data")
    job = {"rule": "build_preferences", "study": "s", "digest": "", "code": "", "threads": 1, "wildcards": {}}
    job |= {"gpu": 0, "work": "work", "root": "results"}
    job["input"] = {"samples": "samples.parquet", "data": "data.parquet"}
    job["output"] = {"preferences": "p.parquet", "outcomes": "o.parquet", "trl": "trl.jsonl", "llamafactory": "lf"}
    job["cfg"] = {"rule": "paired", "prompt": PROMPT.model_dump(), "question": "hateful"}
    script = ROOT / "workflow/scripts/build_preferences.py"
    return subprocess.run(
        [sys.executable, script, json.dumps(job)], cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "workflow")},
        capture_output=True, text=True,
    )  # fmt: skip


def test_script_writes_every_artefact(tmp_path: Path) -> None:
    done = build(tmp_path, sampled(a=[GOOD, WRONG], b=[GOOD, GOOD]), memes("b", "a"))
    assert done.returncode == 0, done.stderr
    assert tables.read(tmp_path / "p.parquet", "preferences").select("study", "id", "chosen").rows() == [
        ("s", "a", "a0")
    ]
    assert tables.read(tmp_path / "o.parquet", "outcomes")["outcome"].to_list() == ["no_rejected", "paired"]
    assert len((tmp_path / "trl.jsonl").read_text().splitlines()) == 1
    assert sorted(path.name for path in (tmp_path / "lf").iterdir()) == [
        "dataset_info.json",
        "preferences.json",
        "sft.json",
    ]


def test_script_without_a_pair_writes_nothing(tmp_path: Path) -> None:
    done = build(tmp_path, sampled(a=[WRONG]), memes("a"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: preferences: none of 1 prompts gave a pair: 1 without a correct")
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.parquet", "results", "samples.parquet"]
