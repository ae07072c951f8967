"""Memes that share a caption are not independent: what samples, splits and resamples them takes them together."""

import re
from collections.abc import Sequence

import numpy as np


def clusters(texts: Sequence[str]) -> np.ndarray:
    """Cluster of each text, (n,) from 0: texts equal up to case and white space share one; empty ones stand alone.

    Accents and punctuation are kept: captions that differ in them are different captions.
    """
    keys = [re.sub(r"\s+", " ", text).strip().casefold() for text in texts]
    known: dict[object, int] = {}
    return np.array([known.setdefault(key or ("empty", i), len(known)) for i, key in enumerate(keys)], dtype=np.int64)
