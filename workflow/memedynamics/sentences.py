"""What an analysis' table shows, in one to three plain sentences computed from its numbers.

Sentences are plain text and hold users' own names: whoever writes them into HTML or LaTeX escapes them.
"""

from collections.abc import Callable

import polars as pl

from memedynamics import inside_sentences, other_sentences, policy_sentences
from memedynamics.few_clusters import with_most
from memedynamics.generic_sentences import generic_sentences

OWN: dict[str, Callable[[pl.DataFrame], list[str]]] = {
    "accuracy": policy_sentences.accuracy,
    "kl": policy_sentences.kl,
    "likelihood": policy_sentences.likelihood,
    "rewards": policy_sentences.rewards,
    "spectrum": inside_sentences.spectrum,
    "sharpe": inside_sentences.sharpe,
    "attention": inside_sentences.attention,
    "entropy": inside_sentences.entropy,
    "gradients": other_sentences.gradients,
    "judgement": other_sentences.judgement,
    "merge_path": other_sentences.merge_path,
    "parity": other_sentences.parity,
    "summary": other_sentences.summary,
}


def sentences(name: str, frame: pl.DataFrame, summary: pl.DataFrame | None = None) -> list[str]:
    """One to three sentences on `frame`, the table of the analysis `name`: values, 95 % intervals, n, seeds.

    `summary`, the table of that name, knows where an analysis has too few clusters for claims (see `few_clusters`).
    An analysis without sentences of its own, as one that a user added, is told of by its rows alone.
    """
    frame = with_most(frame, summary)
    found = [text for text in OWN[name](frame) if text] if name in OWN else []
    return found or generic_sentences(frame)
