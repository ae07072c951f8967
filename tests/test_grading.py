"""Grades of drawn responses, by hand; grading draws nothing and needs no model."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from memedynamics import tables
from memedynamics.errors import InputError
from memedynamics.grading import graded
from memedynamics.prompts import load_prompt

ROOT = Path(__file__).parents[1]
PROMPT = load_prompt(ROOT / "config/prompts/think_answer.yaml")
TEXTS = ["<think>a</think><answer>Yes</answer>", "<think>a</think><answer>No</answer>", "<answer>Yes</answer>", "Yes"]


def length_of_caption(completions, text, **columns):
    """One of the user's own rewards."""
    return [float(len(caption)) for caption in text]


def drawn(ids=("a", "a", "a", "a")):
    return pl.DataFrame(
        {
            "study": "s", "fraction": 0.0, "dataset": "memes", "split": "val", "id": list(ids),
            "sample": pl.Series(range(4), dtype=pl.Int16), "token_ids": [[1, 2]] * 4, "text": TEXTS,
            "tokens": "drawn", "finish_reason": "stop", "logp": -1.0, "p_hateful": 0.5, "label_mass": 1.0,
            "forced": False,
        }
    )  # fmt: skip


def memes(label):
    return pl.DataFrame({"dataset": "memes", "split": "val", "id": "a", "label": label, "text": "four"})


@pytest.mark.parametrize(
    ("label", "correct", "reward"),
    [(1, [True, False, True, False], [1.0, 0.1, 0.9, 0.0]), (0, [False, True, False, False], [0.1, 1.0, 0.0, 0.0])],
)
def test_grades_of_four_responses(label, correct, reward):
    """Weights .1 format and .9 accuracy: well-formed and right 1, right alone .9, well-formed alone .1, neither 0."""
    found = graded(drawn(), memes(label), {"format": 0.1, "accuracy": 0.9}, PROMPT)
    assert found["answer"].to_list() == ["yes", "no", "yes", "invalid"]
    assert found["format_ok"].to_list() == [True, True, False, False]
    assert found["correct"].to_list() == correct
    assert found["reward"].to_list() == pytest.approx(reward)
    assert len(tables.conform(found, "samples")) == 4


def test_own_rewards_see_the_meme():
    found = graded(drawn(), memes(1), {"test_grading.length_of_caption": 0.5}, PROMPT)
    assert found["reward"].to_list() == [2.0] * 4


def test_a_response_without_its_meme_is_refused():
    with pytest.raises(InputError, match=r"no row for 1 answered memes \(memes/val/b is the first\)"):
        graded(drawn(["a", "a", "b", "a"]), memes(1), {"accuracy": 1.0}, PROMPT)


def test_grading_never_imports_torch():
    code = "import sys, memedynamics.grading; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "workflow")})
