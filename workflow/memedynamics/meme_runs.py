"""Whose answers the memes browser shows: the files of each run, in the order of every figure, the base first."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from memedynamics import figures, gather
from memedynamics.meme_flags import Policy, Run
from memedynamics.milestones import label
from memedynamics.report_page import own_seeds

BASE_RUN: Run = (gather.BASE, None)


class Sources(NamedTuple):
    """A run's files; of the base no traces and responses, which are against itself."""

    samples: Sequence[Path]
    traces: Sequence[Path]
    responses: Sequence[Path]
    attention: Sequence[Path]


def sources(**paths: Iterable[Path]) -> dict[Run, Sources]:
    """The files of all runs, by method and seed; `paths`: the fields of `Sources`, files or folders of all runs."""
    found = {name: gather.by_run(given) for name, given in paths.items()}
    order = figures.ordered([method for method, _ in found["samples"]])
    runs = sorted(found["samples"], key=lambda run: (order.index(run[0]), run[1] or 0))
    every = {run: Sources(**{name: of_run.get(run, []) for name, of_run in found.items()}) for run in runs}
    return every | {BASE_RUN: every[BASE_RUN]._replace(traces=[], responses=[])}


def key(method: str, seed: int | None, fraction: float) -> str:
    """A policy's folder of pieces."""
    run = gather.BASE if (method, seed) == BASE_RUN else f"{method}/seed{seed}"
    return f"{run}/{label(fraction)}"


def end(policies: Iterable[Policy]) -> str:
    """The label of the last milestone, which a page shows where no other is chosen."""
    return label(max(fraction for *_, fraction in policies))


def described(policies: Sequence[Policy]) -> list[dict]:
    """Of each policy: `key`, method, the method's name and colour, seed, and the milestone's label.

    The seed is empty where it says nothing: of the base, and of runs trained elsewhere, which stand as seed 0 beside
    methods that have other seeds.
    """
    palette = figures.colours([method for method, *_ in policies])
    own = own_seeds([(method, seed) for method, seed, _ in policies])
    return [
        {
            "key": key(method, seed, fraction),
            "method": method,
            "name": figures.name(method),
            "colour": palette[method],
            "seed": seed if seed in own else None,
            "milestone": label(fraction),
        }
        for method, seed, fraction in policies
    ]
