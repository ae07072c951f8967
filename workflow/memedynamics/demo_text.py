"""What the embedded demo's model is taught to say about a pictogram: in every prompt's blocks, and imperfectly.

A target is sound, or one of two things is wrong with it: its answer (a slip after a right rationale, or a rationale
that misreads the meme), or its format. The model learns to make these mistakes as often as it is shown them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from memedynamics.config import DemoTraining
from memedynamics.pictogram_shapes import HARMS, WELCOMES
from memedynamics.pictograms import Scene, lines
from memedynamics.prompts import Prompt

SEES = ("the picture shows", "i see", "there is")
HEARS = ("the caption", "it")
CHEERED = ("cheers", "approves")
SCOLDED = ("scolds", "objects")
# Words without a stance, put round captions so that an unknown word does not throw the model off.
FILLERS = tuple(
    "when then here there my your our the every some look wow friends today again only one of in on at by for from "
    "year day week street house town people everyone nobody says said asked about around oh do please such all".split()
)


def varied(meant: Scene, rng: np.random.Generator) -> str:
    """A caption of `meant` with up to three fillers before its first line and up to four in place of its second."""
    first, second = lines(meant, "plain")
    before, behind = (rng.choice(FILLERS, rng.integers(most)).tolist() for most in (4, 5))
    return " ".join([*before, first, *(behind if rng.random() < 0.7 else [second])]).strip()


@dataclass(frozen=True)
class Reading:
    """What a response says about a meme: what was done to whom, whether the caption approves, and the answer."""

    group: str
    act: str
    cheers: bool
    hateful: bool

    @property
    def harm(self) -> bool:
        """Whether the act read harms the group."""
        return self.act in HARMS


def target(meant: Scene, prompt: Prompt, settings: DemoTraining, rng: np.random.Generator) -> str:
    """One training target for the meme `meant` in the format of `prompt`, drawn by `rng`."""
    reading = Reading(meant.group, meant.act, meant.cheers, bool(meant.label))
    if rng.random() < settings.wrong:
        reading = _mistaken(reading, rng)
    blocks = [(name, _content(name, reading, prompt, rng)) for name in prompt.blocks]
    if rng.random() < settings.malformed:
        return BREAKS[rng.integers(len(BREAKS))](blocks)
    return _joined(blocks)


def _mistaken(right: Reading, rng: np.random.Generator) -> Reading:
    """A reading that ends in the wrong answer: a slip at the end, or another act or stance read."""
    wrong = not right.hateful
    slip = rng.integers(3)
    if slip == 0:
        return replace(right, hateful=wrong)
    if slip == 1:
        return replace(right, cheers=not right.cheers, hateful=wrong)
    others = list(WELCOMES if right.harm else HARMS)
    return replace(right, act=others[rng.integers(len(others))], hateful=wrong)


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[rng.integers(len(words))]


def _content(block: str, read: Reading, prompt: Prompt, rng: np.random.Generator) -> str:
    """The words of one block; a block of unknown name holds the whole rationale."""
    stance = _pick(CHEERED if read.cheers else SCOLDED, rng)
    sight = f"{_pick(SEES, rng)} {read.group.lower()} and {read.act}"
    verdict = f"{_pick(HEARS, rng)} {stance} at {'harm' if read.harm else 'a welcome'}"
    short = {
        "answer": prompt.labels["yes" if read.hateful else "no"],
        "picture": f"{read.group.lower()} and {read.act}",
        "caption": f"{_pick(HEARS, rng)} {stance}",
        "target": read.group.lower(),
        "think": verdict if "picture" in prompt.blocks else f"{sight} . {verdict} .",
    }
    return short.get(block, f"{sight} . {verdict} .")


Blocks = list[tuple[str, str]]


def _joined(blocks: Blocks) -> str:
    return "".join(f"<{name}> {words} </{name}>" for name, words in blocks)


def _unopened(blocks: Blocks) -> str:
    return f"{blocks[0][1]} </{blocks[0][0]}>" + _joined(blocks[1:])


def _unclosed(blocks: Blocks) -> str:
    return _joined(blocks[:-1]) + f"<{blocks[-1][0]}> {blocks[-1][1]}"


def _unanswered(blocks: Blocks) -> str:
    return _joined(blocks[:-1]) or blocks[-1][1]


def _undecided(blocks: Blocks) -> str:
    return _joined([*blocks[:-1], (blocks[-1][0], "maybe")])


def _chatty(blocks: Blocks) -> str:
    return _joined(blocks) + " hope it helps"


BREAKS: tuple[Callable[[Blocks], str], ...] = (_unopened, _unclosed, _unanswered, _undecided, _chatty)
