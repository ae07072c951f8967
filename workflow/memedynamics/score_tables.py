"""What scoring measured on a batch, as rows of `traces` and `responses`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

MEME = ["dataset", "split", "id"]
KEYS = ["probe_kind", *MEME, "sample"]


class Measured(NamedTuple):
    """One policy on the N distinct texts of a batch, P positions in all."""

    positions: dict[str, np.ndarray]  # each (P,): logp, ref_logp, kl_forward, kl_reverse, entropy, acceptance, rank
    p_hateful: np.ndarray  # (N,)
    label_mass: np.ndarray  # (N,)
    ref_p_hateful: np.ndarray  # (N,)
    sums: np.ndarray  # (N, d): last-layer states that predict the response, summed


class Layout(NamedTuple):
    """Which texts and positions a batch's rows stand for; equal for all policies."""

    rows: pl.DataFrame  # (R,): KEYS, chosen_sample, rejected_sample (empty where the prompt gives no pair)
    of_row: np.ndarray  # (R,): each row's text
    lengths: np.ndarray  # (N,): positions of each text, at least 1
    token_id: np.ndarray  # (P,)
    span: np.ndarray  # (P,)
    forced: np.ndarray  # (N,)


def traces(layout: Layout, measured: Sequence[Measured], fractions: Sequence[float]) -> pl.DataFrame:
    """One row a fraction, row and position, in that order."""
    lengths = layout.lengths[layout.of_row]
    starts = (np.cumsum(layout.lengths) - layout.lengths)[layout.of_row]
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    at = np.repeat(starts, lengths) + position
    keys = layout.rows.select(KEYS)[np.repeat(np.arange(len(lengths)), lengths)].with_columns(
        position=pl.Series(position), token_id=pl.Series(layout.token_id[at]), span=pl.Series(layout.span[at])
    )
    return pl.concat(
        keys.with_columns(
            pl.lit(fraction).alias("fraction"),
            *(pl.Series(name, values[at]) for name, values in found.positions.items()),
        )
        for fraction, found in zip(fractions, measured, strict=True)
    )


def responses(layout: Layout, measured: Sequence[Measured], fractions: Sequence[float]) -> pl.DataFrame:
    """One row a fraction and row, in that order; sums over the response's positions in float64."""
    starts, of_row = np.cumsum(layout.lengths) - layout.lengths, layout.of_row
    keys = layout.rows.select(KEYS).with_columns(
        num_tokens=pl.Series(layout.lengths[of_row]), forced=pl.Series(layout.forced[of_row])
    )
    columns = ("logp", "ref_logp", "kl_forward", "kl_reverse")
    return pl.concat(
        keys.with_columns(
            pl.lit(fraction).alias("fraction"),
            *(pl.Series(c, np.add.reduceat(found.positions[c].astype(float), starts)[of_row]) for c in columns),
            *(pl.Series(c, getattr(found, c)[of_row]) for c in ("p_hateful", "label_mass", "ref_p_hateful")),
            ches=_ches(layout, found.sums),
            ches_normalised=_ches(layout, found.sums / layout.lengths[:, None]),
        )
        for fraction, found in zip(fractions, measured, strict=True)
    )


def _ches(layout: Layout, sums: np.ndarray) -> pl.Series:
    """⟨S+, S−⟩ − ‖S+‖² on the chosen response of a pair, empty elsewhere (Razin et al. 2410.08847, definition 2).

    With sums divided by their number of tokens it is the paper's length-normalised score.
    """
    places = {row: place for place, row in enumerate(layout.rows.select(KEYS).iter_rows())}
    values: list[float | None] = [None] * len(places)
    pairs = layout.rows.select(*KEYS, "chosen_sample", "rejected_sample").iter_rows()
    for place, (*prompt, sample, chosen, rejected) in enumerate(pairs):
        if sample == chosen:
            plus = sums[layout.of_row[place]]
            minus = sums[layout.of_row[places[(*prompt, rejected)]]]
            values[place] = float(plus @ minus - plus @ plus)
    return pl.Series(values, dtype=pl.Float64)
