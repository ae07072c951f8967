"""What `looking` found on a batch, as rows of `extract_attention`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from memedynamics.keys import MEME
from memedynamics.perturbations import NATURAL
from memedynamics.segments import SEGMENTS, Placed

if TYPE_CHECKING:
    from memedynamics.answers import Decision
    from memedynamics.looking import Meme

HEADS = ("mean", "max")
SHARES = [f"share_{name}" for name in SEGMENTS]
SINKLESS = [f"sinkless_{name}" for name in SEGMENTS]
TOKENS = [f"tokens_{name}" for name in SEGMENTS]


class Look(NamedTuple):
    """One policy on one perturbation of B memes, L layers; the axis of 2 is mean and maximum over heads."""

    share: np.ndarray  # (L, B, 2, S + 16): segments, then cells
    sinkless: np.ndarray  # (L, B, S)
    sink_share: np.ndarray  # (L, B)
    tv: np.ndarray  # (L, B, 2)
    js: np.ndarray  # (L, B, 2)
    heads: np.ndarray | None  # (L, B, H, S + 16)


class Asked(NamedTuple):
    """Whose rows they are."""

    policy: str  # trained or random
    fraction: float
    perturbation: Sequence[str | None]  # of each meme; None: the meme is left out


def looks(look: Look, place: Placed, memes: Sequence["Meme"], asked: Asked) -> pl.DataFrame:
    """A row a layer and meme for the mean and one for the maximum over heads, and for each head of kept memes."""
    mean, most = ({"head": name, **_shares(look.share[:, :, i])} for i, name in enumerate(HEADS))
    mean |= {name: look.sinkless[..., i] for i, name in enumerate(SINKLESS)} | {"sink_share": look.sink_share}
    frames = []
    for place_of, columns in enumerate((mean, most)):
        columns |= {"tv": look.tv[..., place_of], "js": look.js[..., place_of]}
        frames.append(_frame(columns, place, memes, asked))
    if look.heads is None:
        return pl.concat([frame.drop("cells") for frame in frames], how="diagonal")
    single = [{"head": str(head), **_shares(look.heads[:, :, head])} for head in range(look.heads.shape[2])]
    kept = [_frame(columns, place, memes, asked).filter("kept") for columns in single]
    return pl.concat([*frames, *kept], how="diagonal")


def _shares(share: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of `share` (L, B, S + 16)."""
    return {name: share[..., i] for i, name in enumerate(SHARES)} | {"cells": share[..., len(SEGMENTS) :]}


def _frame(columns: Mapping[str, object], place: Placed, memes: Sequence["Meme"], asked: Asked) -> pl.DataFrame:
    layers = columns["cells"].shape[0]
    counts = np.stack([(place.segment == i).sum(-1) for i in range(len(SEGMENTS))], axis=1)
    values = {
        name: pl.Series(value.reshape(-1, *value.shape[2:])) if isinstance(value, np.ndarray) else pl.lit(value)
        for name, value in columns.items()
    }
    values["cells"] = values["cells"].arr.to_list()
    return (
        pl.concat([_keys(memes, asked)] * layers)
        .with_columns(
            layer=pl.Series(np.repeat(np.arange(layers), len(memes))),
            **{name: pl.Series(np.tile(counts[:, i], layers)) for i, name in enumerate(TOKENS)},
            **values,
        )
        .drop_nulls("perturbation")
    )


def _keys(memes: Sequence["Meme"], asked: Asked) -> pl.DataFrame:
    keys = pl.DataFrame([meme.key for meme in memes], schema=dict.fromkeys(MEME, pl.String), orient="row")
    return keys.with_columns(
        fraction=pl.lit(float(asked.fraction)),
        policy=pl.lit(asked.policy),
        perturbation=pl.Series(asked.perturbation, dtype=pl.String),
        kept=pl.Series([meme.kept for meme in memes]),
    )


def decisions(found: Mapping[str, "Decision"], memes: Sequence["Meme"], asked: Asked) -> pl.DataFrame:
    """A row a meme and text behind the prompt; `label` is that of the meme a natural swap makes."""
    label = [1 - meme.label if name == NATURAL else meme.label for meme, name in zip(memes, asked.perturbation)]  # noqa: B905
    frames = [
        _keys(memes, asked).with_columns(
            after=pl.lit(after),
            label=pl.Series(label),
            log_odds=pl.Series(decision.p_hateful.logit(1e-15).cpu().numpy()),
            label_mass=pl.Series(decision.label_mass.cpu().numpy()),
        )
        for after, decision in found.items()
    ]
    return pl.concat(frames).drop_nulls("perturbation")
