"""What an analysis' table shows, in one to three plain sentences computed from its numbers.

Sentences are plain text and hold users' own names: whoever writes them into HTML or LaTeX escapes them.
"""

import polars as pl

from memedynamics.generic_sentences import generic_sentences


def sentences(name: str, frame: pl.DataFrame) -> list[str]:
    """One to three sentences on `frame`, the table of the analysis `name`: values, 95 % intervals, n, seeds.

    An analysis without sentences of its own, as one that a user added, is told of by its rows alone.
    """
    return generic_sentences(frame)
