"""Every measure of one module's update: the rows of `extract_spectrum`, and the bases that runs are compared by."""

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from memedynamics import deltas, intruders, subspaces, weights
from memedynamics.config import Spectrum
from memedynamics.deltas import FullMilestone, Milestone
from memedynamics.intruders import Base
from memedynamics.schemas import SCHEMAS
from memedynamics.spectra import Factors, Svd, Update, shape, svd
from memedynamics.spectrum_bases import SIDES, key

KEPT = 64  # leading directions and singular values that are kept of an update
TRAINED, RANDOM = "trained", "random"
NO_UPDATE = "prompt tuning has no weight update"
NO_ADAPTER = "full weights have no adapter whose A could drift"
NO_START = "drift of A, whose initial value is not known"


class Module(NamedTuple):
    """A module of the base: its name, weight (out, in), decomposition and Frobenius norm."""

    name: str
    weight: torch.Tensor
    base: Base
    frobenius: float


def measure(
    module: Module,
    milestones: Mapping[float, Milestone],
    start: Milestone | None,
    settings: Spectrum,
    run: str,
) -> tuple[list[dict[str, object]], dict[str, np.ndarray]]:
    """Rows of `extract_spectrum` of one module at all `milestones`, and the bases of the last one.

    `start` is the adapter before training, where it is known. Beside the last milestone stands its control, a random
    update of the same norm and largest rank, a LoRA's over the same initial A; `run` is what its numbers are drawn by.
    """
    first = start.rows(module.name) if start else None
    rows, kept, final = [], {}, max(milestones)
    for fraction, milestone in milestones.items():
        updates = {TRAINED: milestone.update(module.name, module.weight)}
        if fraction == final:
            updates[RANDOM] = deltas.random_like(updates[TRAINED], first, _number(run, module.name))
        moved = drift(first, milestone.rows(module.name))
        for name, update in updates.items():
            found = svd(update)
            keys = {"fraction": fraction, "update": name, "module": module.name, "missing": why(milestone, first)}
            keys |= {"rank": min(milestone.rank(module.name) or math.inf, *module.weight.shape)}
            rows.append(
                {**keys, **measures(module, update, found, settings), "drift": moved if name == TRAINED else None}
            )
            kept |= bases(found, name, module.name) if fraction == final else {}
    return rows, kept


def start_of(folder: Path, record: Mapping[str, object]) -> Milestone | None:
    """The adapter before training; None for full weights, and where it was trained elsewhere: its start is unknown."""
    known = record["kind"] == "adapter" and record["steps"]["1"] is not None
    return deltas.open_milestone(folder, "adapter") if known else None


def why(milestone: Milestone, start: torch.Tensor | None) -> str | None:
    """Why a module of `milestone`, whose initial A is `start`, has no drift; None where it has."""
    if start is not None:
        return None
    return NO_ADAPTER if isinstance(milestone, FullMilestone) else NO_START


def nothing(fractions: Sequence[float]) -> pl.DataFrame:
    """The rows of a run that updates no weight: why, at each milestone."""
    empty = dict.fromkeys(SCHEMAS["extract_spectrum"].names)
    del empty["study"]
    empty |= {"update": TRAINED, "missing": NO_UPDATE}
    return pl.DataFrame([{**empty, "fraction": fraction} for fraction in fractions])


def _number(run: str, module: str) -> int:
    return zlib.crc32(f"{run}/{module}".encode())


def measures(module: Module, update: Update, found: Svd, settings: Spectrum) -> dict[str, object]:
    """All measures of `update`, whose decomposition is `found`, by the names of `extract_spectrum`."""
    moved = intruders.move(module.base, module.weight, update, settings.top)
    turned, angle = intruders.rotation(moved.cosines)
    single, half = unchanged(module.weight, update)
    size = deltas.norm(update)
    return {
        "layer": weights.layer(module.name),
        "kind": weights.kind(module.name),
        "frobenius": size,
        "relative_frobenius": size / module.frobenius,
        "relative_spectral": float(found.values[0] / module.base.values[0]) if len(found.values) else 0.0,
        **shape(found.values),
        "singular_values": found.values[:KEPT].tolist(),
        "spectral_shift": intruders.spectral_shift(module.base.values, moved.values),
        "rotation": turned,
        "largest_angle": angle,
        "intruders": intruders.count_intruders(moved.cosines, settings.epsilon),
        "unchanged_float32": single,
        "unchanged_bfloat16": half,
    }


def unchanged(weight: torch.Tensor, update: Update) -> tuple[float, float]:
    """Share of entries of W0 + ΔW equal to W0's: in float32, and after both are rounded to bfloat16."""
    before = weight.float()
    after = before + (update.dense(torch.float32) if isinstance(update, Factors) else update.float())
    same = [(a == b).float().mean().item() for a, b in ((after, before), (after.bfloat16(), before.bfloat16()))]
    return same[0], same[1]


def drift(start: torch.Tensor | None, rows: torch.Tensor | None) -> float | None:
    """Drift of A's row space from that of `start`, the run's initial A (`subspaces.drift`); None without either."""
    if start is None or rows is None:
        return None
    return subspaces.drift(*(part.double().cpu().numpy() for part in (start, rows)))


def bases(found: Svd, update: str, module: str) -> dict[str, np.ndarray]:
    """The leading KEPT left (out, k) and right (in, k) singular vectors, float16, by their names on disk."""
    sides = zip(SIDES, (found.left, found.right), strict=True)
    return {key(update, side, module): v[:, :KEPT].half().cpu().contiguous().numpy() for side, v in sides}
