"""What SFT learns to say instead of a sampled response."""

from pathlib import Path

import polars as pl
import pytest

from memedynamics.errors import InputError
from memedynamics.prompts import load_prompt
from memedynamics.rewards import format_ok
from memedynamics.targets import sentence, targeted

PROMPTS = Path(__file__).resolve().parents[1] / "config/prompts"
PROMPT = load_prompt(PROMPTS / "think_answer.yaml")
ROWS = pl.DataFrame({"id": ["b", "a"], "label": [1, 0], "chosen": ["sampled", "sampled too"]})
DATA = pl.DataFrame({"id": ["a", "b"], "groups": [["islanders"], ["hill_people", "attack:mocking"]]})


def test_chosen_responses_stay():
    assert targeted(ROWS, DATA, PROMPT, "chosen").equals(ROWS)


def test_the_bare_answer_has_no_rationale():
    assert targeted(ROWS, DATA, PROMPT, "answer")["chosen"].to_list() == [
        "<answer> Yes </answer>", "<answer> No </answer>",
    ]  # fmt: skip


def test_groups_are_named_in_a_well_formed_response():
    """Order is the rows', not the data's: b is hateful and attacks hill people, a is benign."""
    told = targeted(ROWS, DATA, PROMPT, "groups")["chosen"].to_list()
    assert told == [
        "<think> It attacks hill people by mocking. </think><answer> Yes </answer>",
        "<think> It attacks nobody. </think><answer> No </answer>",
    ]
    assert [format_ok(text, PROMPT) for text in told] == [True, True]


@pytest.mark.parametrize("name", ["think_answer", "structured", "think_answer_text"])
def test_every_prompt_with_a_rationale_takes_groups(name):
    prompt = load_prompt(PROMPTS / f"{name}.yaml")
    told = targeted(ROWS, DATA, prompt, "groups")["chosen"].to_list()
    assert all(format_ok(text, prompt) for text in told)


def test_a_hateful_meme_without_groups_attacks_someone():
    assert sentence(1, []) == "It attacks a group."


def test_groups_need_groups_and_a_rationale():
    without = DATA.with_columns(groups=pl.lit([], pl.List(pl.String)))
    with pytest.raises(InputError, match="no hateful training meme names a group"):
        targeted(ROWS, without, PROMPT, "groups")
    with pytest.raises(InputError, match="answer_only has only an answer block"):
        targeted(ROWS, DATA, load_prompt(PROMPTS / "answer_only.yaml"), "groups")
