"""Mean and variance of gradients that come in batches and are never kept, and sketches of them that are.

1. Moments are Welford's, a batch at a time (Chan, Golub & LeVeque 1983): no difference of large sums.
2. A sketch of `SIZE` numbers stands for a gradient of millions: every coordinate gets a random sign and is added to one
   of SIZE sums (CountSketch; Charikar, Chen & Farach-Colton 2002). Inner products of sketches are unbiased for those
   of the gradients, with a standard error of about √(2/SIZE) of the product of norms; signs depend on the layer's name
   alone, so sketches of all samples, splits and policies compare, and those of several layers add up.
3. Intervals of what is no function of inner products (ratios entry by entry) come from a delete-group jackknife: the
   samples lie in GROUPS groups, and SOME of a layer's entries, drawn once, have their moments by group as well. Of a
   larger layer the spread is that of fewer entries, so it is too wide rather than too narrow. In memory this is 2 ×
   GROUPS × SOME numbers a layer and policy: 64 MB of a model with 200 layers, where the moments themselves have 180.
"""

import functools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SIZE = 512
GROUPS, SOME = 10, 2**12
FEWEST = 3  # groups of a jackknife


class Moments(NamedTuple):
    """Of n samples, element-wise."""

    n: int
    mean: Tensor
    squares: Tensor  # sum of squared deviations from the mean


Layers = dict[tuple[str, int | None], Moments]  # of a layer's all samples (None), and of SOME entries by group
States = dict[float, Layers]  # by fraction


class Strength(NamedTuple):
    """A layer's gradients in four numbers, over its `parameters` coordinates."""

    mean_sq: float  # Σ ḡ²
    var: float  # Σ s², s² the sample variance (n − 1)
    ratio: float  # mean of ḡ²/s² over the coordinates that vary, s² > 0; NaN where there are none
    parameters: int
    varying: int  # coordinates with s² > 0, which `ratio` is the mean of


def moments(samples: Tensor) -> Moments:
    """Moments of `samples` (n, …)."""
    mean = samples.mean(0)
    return Moments(len(samples), mean, (samples - mean).square().sum(0))


def merged(one: Moments | None, other: Moments) -> Moments:
    """Moments of both sets of samples together; None is the empty set."""
    if one is None:
        return other
    n, gap = one.n + other.n, other.mean - one.mean
    squares = one.squares + other.squares + gap.square() * (one.n * other.n / n)
    return Moments(n, one.mean + gap * (other.n / n), squares)


class Gradients:
    """The moments by layer and the samples' sketches (n, SIZE) of one batch: a `per_sample.Consumer`.

    `groups` are the samples' own, numbers below GROUPS.
    """

    def __init__(self, groups: Sequence[int]) -> None:
        self.groups = torch.tensor(groups)
        self.moments: Layers = {}
        self.sketches: Tensor | None = None

    def __call__(self, name: str, gradients: Tensor) -> None:
        """Take in a layer's per-sample gradients (n, out, in)."""
        self.moments[name, None] = moments(gradients)
        some = gradients.flatten(1)
        some = some[:, _some(name, some.shape[1], some.device)]
        for group in self.groups.unique().tolist():
            self.moments[name, group] = moments(some[(self.groups == group).to(some.device)])
        drawn = sketch(gradients, name)
        self.sketches = drawn if self.sketches is None else self.sketches + drawn


def join(states: States, batch: States) -> None:
    """Take a batch's moments into `states`."""
    for fraction, layers in batch.items():
        known = states.setdefault(fraction, {})
        known |= {name: merged(known.get(name), found) for name, found in layers.items()}


def strength(found: Moments) -> Strength:
    """The numbers that signal and noise of a layer are made of; needs two samples or more."""
    mean_sq, var = found.mean.double().square(), found.squares.double() / (found.n - 1)
    alive = var > 0
    ratio = (mean_sq[alive] / var[alive]).mean().item()
    return Strength(mean_sq.sum().item(), var.sum().item(), ratio, var.numel(), int(alive.sum()))


def without_each(layers: Layers, name: str) -> list[Strength]:
    """The strengths of a layer's SOME entries with one group left out, group by group.

    Empty where there are under FEWEST groups, or leaving one out leaves no signal or no variance.
    """
    groups = [
        found
        for (layer, group), found in sorted(layers.items(), key=lambda item: str(item[0]))
        if layer == name and group is not None
    ]
    if len(groups) < FEWEST:
        return []
    rest = [[one for one in groups if one is not left] for left in groups]
    found = [strength(functools.reduce(merged, some)) for some in rest]
    return found if all(one.ratio > 0 for one in found) else []


def sketch(gradients: Tensor, name: str) -> Tensor:
    """Sketches (n, SIZE) of `gradients` (n, …) of the layer `name`."""
    flat = gradients.flatten(1)
    signed = flat * _signs(name, flat.shape[1], flat.device)
    return functional.pad(signed, (0, -flat.shape[1] % SIZE)).view(len(flat), -1, SIZE).sum(1)


@functools.cache
def _some(name: str, count: int, device: torch.device) -> Tensor:
    """Which SOME of `count` entries, as numbers; all where there are no more."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randperm(count, generator=generator)[:SOME].to(device)


@functools.cache
def _signs(name: str, count: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return (torch.randint(2, (count,), generator=generator, dtype=torch.int8) * 2 - 1).to(device)
