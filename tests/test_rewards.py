"""The grader's known answers, hostile ones included, and the user's own rewards."""

import importlib
import time
from pathlib import Path

import pytest

from memedynamics import rewards
from memedynamics.errors import InputError
from memedynamics.prompts import Prompt, load_prompt

PROMPTS = Path(__file__).parents[1] / "config/prompts"
GOOD = "<think> a cat </think><answer> Yes </answer>"


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    return load_prompt(PROMPTS / "think_answer.yaml")


@pytest.mark.parametrize(
    ("text", "answer", "format_ok"),
    [
        (GOOD, "yes", True),
        ("\n <think>\na\n</think>\n\n<answer>no.</answer>\n", "no", True),
        ("<think></think><answer>YES</answer>", "yes", True),
        ("<think> 1 < 2, <b>bold</b> </think><answer>**No**</answer>", "no", True),
        # Well-formed, but no answer can be read.
        ("<think> a </think><answer> Yes and No </answer>", "invalid", True),
        ("<think> a </think><answer> Yes, it is </answer>", "invalid", True),
        ("<think> a </think><answer> Yesterday </answer>", "invalid", True),
        ("<think> a </think><answer></answer>", "invalid", True),
        ("<think> a </think><answer><b>Yes</b></answer>", "invalid", True),
        # An answer can be read although the format is broken: parse rate is not format rate.
        ("<answer> Yes </answer>", "yes", False),
        ("<think> a <answer> Yes </answer>", "yes", False),
        ("a </think><answer> Yes </answer>", "yes", False),
        ("<answer> No </answer><think> a </think>", "no", False),
        (f"Sure! {GOOD}", "yes", False),
        (f"{GOOD} I hope this helps.", "yes", False),
        ("<think> a </think> so <answer> Yes </answer>", "yes", False),
        ("<think> a </think><think> b </think><answer> Yes </answer>", "yes", False),
        # Hostile.
        ("", "invalid", False),
        (" \n ", "invalid", False),
        ("Yes", "invalid", False),
        (GOOD * 2, "invalid", False),
        ("<think> a </think><answer> Yes </answer><answer> No </answer>", "invalid", False),
        ("<think> a </think><answer><answer> Yes </answer></answer>", "invalid", False),
        ("<think> a <answer> Yes </answer></think>", "invalid", False),
        ("<think> a <answer> Yes </answer> b </think><answer>", "invalid", False),
        ("<answer> a <think> b </answer></think>", "invalid", False),
        ("<answer><think> Yes </think></answer>", "invalid", False),
        ("<think> a </think></answer> Yes <answer>", "invalid", False),
        ("<think> a </think><answer> Yes", "invalid", False),
        ("<think> a </think>< answer > Yes </ answer >", "invalid", False),
        ("<THINK> a </THINK><ANSWER> Yes </ANSWER>", "invalid", False),
        ("\x00\ud800<think>", "invalid", False),
    ],
)
def test_known_answers(prompt: Prompt, text: str, answer: str, format_ok: bool) -> None:
    assert rewards.grade(text, 1, prompt) == (answer, format_ok, answer == "yes")
    assert rewards.grade(text, 0, prompt) == (answer, format_ok, answer == "no")


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * 14_000,
        "<answer>" + " ." * 50_000 + "</answer>",
        "<think>" + "<" * 100_000 + "</think><answer>Yes</answer>",
        "<think>" + "</answer><answer>" * 6_000,
        "a" * 100_000,
    ],
)
def test_hundred_kilobytes_take_milliseconds(prompt: Prompt, text: str) -> None:
    start = time.perf_counter()
    rewards.grade(text, 1, prompt)
    assert time.perf_counter() - start < 0.05


def test_every_block_of_the_scheme_is_required() -> None:
    prompt = load_prompt(PROMPTS / "structured.yaml")
    good = "".join(f"<{block}> a </{block}>\n" for block in prompt.blocks[:-1]) + "<answer> No </answer>"
    assert rewards.grade(good, 0, prompt) == ("no", True, True)
    for block in prompt.blocks[:-1]:
        missing = good.replace(f"<{block}> a </{block}>", "")
        assert rewards.grade(missing, 0, prompt) == ("no", False, True)


def test_answer_only_and_labels_of_several_words() -> None:
    prompt = load_prompt(PROMPTS / "answer_only.yaml")
    assert rewards.grade(" <answer> yes! </answer> ", 1, prompt) == ("yes", True, True)
    assert rewards.grade("Hm. <answer> yes! </answer> ", 1, prompt) == ("yes", False, True)
    worded = prompt.model_copy(update={"labels": {"yes": "Hateful", "no": "Not hateful"}})
    assert rewards.answer("<answer> NOT hateful. </answer>", worded) == "no"
    assert rewards.answer("<answer> hateful </answer>", worded) == "yes"


def test_total_is_the_weighted_sum(prompt: Prompt) -> None:
    """Right and well-formed .1 + .9 = 1; wrong but well-formed .1; right but badly formed .9; neither 0."""
    texts = [GOOD, GOOD, "<answer>Yes</answer>", "?"]
    totals = rewards.total(texts, {"format": 0.1, "accuracy": 0.9}, prompt, label=[1, 0, 1, 0], id=list("abcd"))
    assert totals == pytest.approx([1, 0.1, 0.9, 0])
    assert rewards.total([], {"format": 0.1}, prompt, label=[], id=[]) == []


def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: str) -> dict[str, float]:
    """A user's module `name` in the working directory; the weights that name its function `brevity`."""
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    return {"format": 1.0, f"{name}.brevity": 2.0}


def test_own_reward_by_dotted_path(prompt: Prompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees conversational completions and every column: 1·1 + 2·(1/44 + 1), since GOOD has 44 characters."""
    body = """
def brevity(completions, **columns):
    return [1 / len(c[0]["content"]) + (i == "a") for c, i in zip(completions, columns["id"])]
"""
    weights = own(tmp_path, monkeypatch, "own_brevity", body)
    assert rewards.total([GOOD], weights, prompt, label=[1], id=["a"]) == pytest.approx([1 + 2 * (1 / 44 + 1)])
    functions = rewards.reward_functions(weights, prompt)
    assert [function.__name__ for function in functions] == ["format", "own_brevity.brevity"]


def test_own_rewards_see_the_same_in_training_and_in_sampling(
    prompt: Prompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else TRL passes: a reward that needs more could not grade the samples."""
    body = "seen = []\ndef brevity(completions, **columns):\n    seen.append(columns)\n    return [0.0]\n"
    weights = own(tmp_path, monkeypatch, "own_columns", body)
    columns = {"label": [1], "id": ["a"], "text": ["a caption"]}
    rewards.total([GOOD], weights, prompt, **columns)
    completions = [[{"role": "assistant", "content": GOOD}]]
    of_trl = {"prompts": [[]], "completion_ids": [[1]], "image": [None], "trainer_state": None, "log_metric": print}
    rewards.reward_functions(weights, prompt)[1](completions=completions, **columns, **of_trl)
    assert importlib.import_module("own_columns").seen == [columns, columns]


def test_what_a_reward_raises_is_one_line_that_names_it(
    prompt: Prompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "def brevity(completions, prompts, **columns):\n    return [0.0]\n"
    weights = own(tmp_path, monkeypatch, "own_greedy", body)
    message = r"rewards\.own_greedy\.brevity: raised TypeError: .*'prompts'; it is given completions, id, label, text$"
    with pytest.raises(InputError, match=message):
        rewards.total([GOOD], weights, prompt, label=[1], id=["a"], text=["x"])
    body = "def brevity(completions, **columns):\n    raise OSError('a\\nb')\n"
    weights = own(tmp_path, monkeypatch, "own_lines", body)
    with pytest.raises(InputError, match=r"rewards\.own_lines\.brevity: raised OSError: a b; ") as raised:
        rewards.total([GOOD], weights, prompt, label=[1], id=["a"], text=["x"])
    assert "\n" not in str(raised.value)


def test_unknown_names_are_errors(prompt: Prompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"rewards\.formt: no such reward; use format, accuracy or your own"):
        rewards.reward_functions({"formt": 1.0}, prompt)
    with pytest.raises(InputError, match=r"rewards\.own_absent\.f: cannot import own_absent from .*No module named"):
        rewards.reward_functions({"own_absent.f": 1.0}, prompt)
    weights = own(tmp_path, monkeypatch, "own_constant", "brevity = 3")
    with pytest.raises(InputError, match="own_constant has no function brevity"):
        rewards.reward_functions(weights, prompt)
    weights = own(tmp_path, monkeypatch, "own_broken", "def brevity(:")
    with pytest.raises(InputError, match=r"cannot import own_broken .*SyntaxError"):
        rewards.reward_functions(weights, prompt)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[1.0]", "returned 1 for 2 completions"),
        ("None", "returned NoneType for 2 completions"),
        ("[1.0, float('nan')]", "completion 1 got nan"),
        ("[float('inf'), 0]", "completion 0 got inf"),
        ("[None, 0]", "completion 0 got None"),
        ("['1', 0]", "completion 0 got '1'"),
    ],
)
def test_unusable_values_are_errors(
    prompt: Prompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    name = f"own_{abs(hash(value))}"
    weights = own(tmp_path, monkeypatch, name, f"def brevity(completions, **columns):\n    return {value}\n")
    with pytest.raises(InputError, match=rf"rewards\.{name}\.brevity: {message}"):
        rewards.total([GOOD, GOOD], weights, prompt, label=[1, 1], id=["a", "b"])
