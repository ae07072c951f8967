"""One grader for GRPO's reward, preference building and evaluation.

`format` is strict: exactly the prompt's blocks, in order, each once, nothing else but whitespace. The answer is read
from the answer block alone, so it may be parsed although the rest of the format is broken: parse rate ≠ format rate.
Every check is a linear scan of the text; no regular expression can blow up on what a model writes.
"""

import importlib
import math
import numbers
import os
import string
import sys
from collections.abc import Callable
from typing import NamedTuple

from memedynamics.errors import InputError
from memedynamics.prompts import Prompt

# TRL's signature: f(completions, **columns) -> one number a completion.
Reward = Callable[..., list[float]]
# All that a user's own reward is given beside the completions, in training and in sampling alike; text is the meme's.
COLUMNS = ("id", "label", "text")

# What may stand around the answer's word. Not angle brackets: a tag inside the answer block makes it invalid.
_TRIM = string.whitespace + "".join(sorted(set(string.punctuation) - set("<>"))) + "“”‘’«»…。！？、，"


class Grade(NamedTuple):
    """What one response is worth."""

    answer: str  # yes, no or invalid
    format_ok: bool
    correct: bool


def grade(text: str, label: int, prompt: Prompt) -> Grade:
    """Grade the response `text` to a meme with `label` (1 hateful = yes, 0 benign = no); an invalid answer is wrong."""
    found = answer(text, prompt)
    return Grade(found, format_ok(text, prompt), found == ("yes" if label else "no"))


def format_ok(text: str, prompt: Prompt) -> bool:
    """Whether `text` is exactly the prompt's blocks in order, each once, with nothing but whitespace between them."""
    tags = [tag for block in prompt.blocks for tag in (f"<{block}>", f"</{block}>")]
    if any(text.count(tag) != 1 for tag in tags):
        return False
    cuts = [text.index(tag) for tag in tags]
    outside = [text[: cuts[0]]]
    for i in range(1, len(tags), 2):
        following = cuts[i + 1] if i + 1 < len(cuts) else len(text)
        outside.append(text[cuts[i] + len(tags[i]) : following])
    return cuts == sorted(cuts) and not "".join(outside).strip()


def answer(text: str, prompt: Prompt) -> str:
    """The parsed answer: yes, no, or invalid.

    Valid only when there is one closed answer block, outside the other blocks, that holds exactly one of the prompt's
    label words, whatever the case and the punctuation or whitespace around it.
    """
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return "invalid"
    before, _, rest = text.partition("<answer>")
    inside, closing, after = rest.partition("</answer>")
    if not closing or any(_spans(block, before, after) for block in prompt.blocks):
        return "invalid"
    word = inside.strip().strip(_TRIM).casefold()
    return next((key for key in ("yes", "no") if word == prompt.labels[key].casefold()), "invalid")


def _spans(block: str, before: str, after: str) -> bool:
    """Whether a block opens in `before` and closes in `after`; one that never closes is only a broken format."""
    opens, closes = f"<{block}>", f"</{block}>"
    closed_again = after.find(closes)
    return before.rfind(opens) > before.rfind(closes) and closed_again >= 0 and opens not in after[:closed_again]


def total(texts: list[str], weights: dict[str, float], prompt: Prompt, **columns: list) -> list[float]:
    """The weighted sum of the study's rewards for each response in `texts`.

    `columns` hold one value a response; those in COLUMNS reach the user's own rewards too.
    """
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    rewards = [reward(completions, **columns) for reward in reward_functions(weights, prompt)]
    return [
        sum(weight * value for weight, value in zip(weights.values(), values, strict=True))
        for values in zip(*rewards, strict=True)
    ]


def reward_functions(weights: dict[str, float], prompt: Prompt) -> list[Reward]:
    """The rewards that `weights` names, in its order (so TRL's `reward_weights` is `list(weights.values())`).

    Each takes (completions, **columns) with conversational completions and a column `label`, and carries its name in
    the config as `__name__`, which is what TRL logs. Raises InputError when one cannot be found.
    """
    own = {"format": _format_reward, "accuracy": _accuracy_reward}
    rewards = []
    for name in weights:
        reward = own[name](prompt) if name in own else _checked(name, _imported(name))
        reward.__name__ = name
        rewards.append(reward)
    return rewards


def _format_reward(prompt: Prompt) -> Reward:
    def reward(completions: list, **columns: list) -> list[float]:
        return [float(format_ok(completion[0]["content"], prompt)) for completion in completions]

    return reward


def _accuracy_reward(prompt: Prompt) -> Reward:
    def reward(completions: list, label: list[int], **columns: list) -> list[float]:
        graded = zip(completions, label, strict=True)
        return [float(grade(completion[0]["content"], int(gold), prompt).correct) for completion, gold in graded]

    return reward


def _imported(path: str) -> Reward:
    """The function at dotted `path`, its module found from the working directory first."""
    module, _, function = path.rpartition(".")
    if not module:
        raise InputError(f"rewards.{path}: no such reward; use format, accuracy or your own as module.function")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:  # the user's module runs here: whatever it raises is about that file
        raise InputError(f"rewards.{path}: cannot import {module} from {os.getcwd()}: {error!r}") from error
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found):
        raise InputError(f"rewards.{path}: {module} has no function {function}; define it or correct the path")
    return found


def _checked(name: str, function: Reward) -> Reward:
    """A user's reward that sees COLUMNS only, and fails with its name where it raises or returns something unusable.

    TRL would pass more, such as `prompts`, but a reward that used it could not grade the samples.
    """

    def reward(completions: list, **columns: list) -> list[float]:
        given = {key: columns[key] for key in COLUMNS if key in columns}
        try:
            values = function(completions, **given)
        except Exception as error:  # the user's function runs here: whatever it raises is about that function
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"rewards.{name}: raised {said}; it is given completions, {', '.join(given)}") from error
        if not hasattr(values, "__len__") or len(values) != len(completions):
            count = len(values) if hasattr(values, "__len__") else type(values).__name__
            raise InputError(f"rewards.{name}: returned {count} for {len(completions)} completions; return one each")
        for i, value in enumerate(values):
            if not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise InputError(f"rewards.{name}: completion {i} got {value!r}; return a finite number for each")
        return [float(value) for value in values]

    return reward
