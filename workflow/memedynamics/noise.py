"""Counter-based random numbers: what a response is drawn with depends on which response it is, on nothing else.

So a batch can be redone alone, in any order and on any number of shards. Policies of one study share the numbers:
their samples differ because they do (common random numbers), which narrows paired comparisons.
"""

import hashlib
import json

import numpy as np


def uniforms(seed: int, dataset: str, split: str, id: str, sample: int, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) for response tokens 0 … count-1: float64 (count,).

    Philox (Salmon et al., SC 2011) keyed by BLAKE2b of the response's name; number t is the same for every `count`.
    """
    key = _key(seed, dataset, split, id, sample)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


def seed_of(seed: int, dataset: str, split: str, id: str, sample: int) -> int:
    """The seed, in [0, 2³¹), with which another engine is asked for this response."""
    return _key(seed, dataset, split, id, sample) >> 97


def _key(*name: int | str) -> int:
    """128 bits that depend on the response's name alone."""
    return int.from_bytes(hashlib.blake2b(json.dumps(name).encode(), digest_size=16).digest(), "little")
