"""What happened to each meme in each run, as bits: what the memes browser filters by.

1. Right, or well-formed, is a meme whose answers are so for the most part: more than half of the K. A tie is not.
2. A run is compared with its peers: of every other method the run of the same seed, or all of its runs where it has
   none of that seed (trained elsewhere).
3. Milestones are told apart: a run is compared with its peers at the same one.
4. Broken and fixed are against the base's own answers to the same meme.
"""

from collections.abc import Sequence

import numpy as np

RIGHT, WELL_FORMED, FIXED_ALONE, BROKEN, FORMAT_LOST, DISAGREES = (1 << bit for bit in range(6))
UNANSWERED, FIRST = " ", 48  # a flag is written as the character of code FIRST + its bits

Run = tuple[str, int | None]
Policy = tuple[str, int | None, float]  # a run at a milestone, the fraction of its training


def flags(policies: Sequence[Policy], right: np.ndarray, well_formed: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """The bits of every policy and meme, (R, M) uint8; 0 where a policy has not answered.

    `policies`: the base first. `right`, `well_formed`, `answered`: (R, M) bool, whether most answers are right, most
    are well-formed, and whether there are any.
    """
    found = np.zeros(right.shape, np.uint8)
    for row in range(len(policies)):
        others = peers(policies, row) if row else []
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


def peers(policies: Sequence[Policy], row: int) -> list[int]:
    """The rows that `policies[row]` is compared with; the base is none of them."""
    method, seed, fraction = policies[row]
    others = [
        (place, name, other)
        for place, (name, other, at) in enumerate(policies)
        if place and name != method and at == fraction
    ]
    same = {name for _, name, other in others if other == seed and seed is not None}
    return [place for place, name, other in others if other == seed or name not in same]


def written(bits: np.ndarray, answered: np.ndarray) -> str:
    """One policy's bits (M,) as a character a meme, UNANSWERED where it has no answer."""
    return "".join(chr(FIRST + bit) if has else UNANSWERED for bit, has in zip(bits.tolist(), answered, strict=True))
