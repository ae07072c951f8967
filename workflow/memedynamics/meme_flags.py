"""What happened to each meme in each run, as bits: what the memes browser filters by.

1. Right, or well-formed, is a meme whose answers are so for the most part: more than half of the K. A tie is not.
2. A run is compared with its peers: of every other method the run of the same seed, or all of its runs where it has
   none of that seed (trained elsewhere).
3. Broken and fixed are against the base's own answers to the same meme.
"""

from collections.abc import Sequence

import numpy as np

RIGHT, WELL_FORMED, FIXED_ALONE, BROKEN, FORMAT_LOST, DISAGREES = (1 << bit for bit in range(6))
UNANSWERED, FIRST = " ", 48  # a flag is written as the character of code FIRST + its bits

Run = tuple[str, int | None]


def flags(runs: Sequence[Run], right: np.ndarray, well_formed: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """The bits of every run and meme, (R, M) uint8; 0 where a run has not answered.

    `runs`: method and seed, the base first. `right`, `well_formed`, `answered`: (R, M) bool, whether most answers are
    right, most are well-formed, and whether there are any.
    """
    found = np.zeros(right.shape, np.uint8)
    for row in range(len(runs)):
        others = peers(runs, row) if row else []
        better, was_right = right[row] & answered[row], right[0] & answered[0]
        bits = {
            RIGHT: better,
            WELL_FORMED: well_formed[row],
            FIXED_ALONE: better & answered[0] & ~right[0] & ~(right & answered)[others].any(axis=0),
            BROKEN: was_right & ~right[row],
            FORMAT_LOST: answered[0] & well_formed[0] & ~well_formed[row],
            DISAGREES: (answered & (right != right[row]))[others].any(axis=0),
        }
        for bit, holds in bits.items():
            found[row] |= np.where(holds & answered[row], bit, 0).astype(np.uint8)
    found[0] &= RIGHT | WELL_FORMED
    return found


def peers(runs: Sequence[Run], row: int) -> list[int]:
    """The rows that `runs[row]` is compared with; the base is none of them."""
    method, seed = runs[row]
    others = {name for name, _ in runs[1:] if name != method}
    same = {name for name, other in runs[1:] if other == seed} if seed is not None else set()
    return [
        place
        for place, (name, other) in enumerate(runs)
        if place and name in others and (other == seed or name not in same)
    ]


def written(bits: np.ndarray, answered: np.ndarray) -> str:
    """One run's bits (M,) as a character a meme, UNANSWERED where it has no answer."""
    return "".join(chr(FIRST + bit) if has else UNANSWERED for bit, has in zip(bits.tolist(), answered, strict=True))
