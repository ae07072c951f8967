"""One loaded model on the way between two runs: its weights are W0 + a·ΔA + b·ΔB, written in place.

Every point is written afresh from the stored base and the two updates, in float32 and rounded once: adding to and
taking from half-precision weights would drift. Updates are read anew for each point, so nothing but the model stays in
memory.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from memedynamics import merged_model, merging, vlm
from memedynamics.external import unwrapped
from memedynamics.merge_parents import Parent, read, stored

WAYS = ("linear", "slerp")
STEPS = 10


class Point(NamedTuple):
    """A place between the first run (t = 0) and the second (t = 1), on one way or on both."""

    t: float
    ways: tuple[str, ...]
    first: float  # coefficient of the first run's update
    second: float

    @property
    def key(self) -> str:
        """Its name among part files."""
        return f"{'-'.join(self.ways)}-{self.t:g}"


def points(cosine: float) -> list[Point]:
    """t = 0, 0.1 … 1 on both ways, the ends once; `cosine` of the angle between the two updates."""
    inside = [step / STEPS for step in range(1, STEPS)]
    line = [Point(t, ("linear",), 1 - t, t) for t in inside]
    arc = [Point(t, ("slerp",), *merging.slerp(t, cosine)) for t in inside]
    return [Point(0.0, WAYS, 1.0, 0.0), *line, *arc, Point(1.0, WAYS, 0.0, 1.0)]


class Between:
    """The loaded `model` of the base folder `base`, on the way between two runs."""

    def __init__(self, model: PreTrainedModel, base: Path, first: Parent, second: Parent) -> None:
        self.model, self.stored, self.runs = model, stored(base), (first, second)
        self.parameters = {unwrapped(name): value for name, value in vlm.bare(model).named_parameters()}
        self.cosine = merged_model.inner(base, first, second).cosine

    @torch.no_grad()
    def go(self, point: Point) -> PreTrainedModel:
        """The model at `point`. What neither run changed is never written; a tied head follows its embedding."""
        for bare, (file, name) in self.stored.items():
            if bare in self.parameters:
                tensor = read(file, name)
                updates = [run.update(name, tensor) for run in self.runs]
                if any(update is not None for update in updates):
                    self.parameters[bare].copy_(self._at(point, tensor.float(), updates))
        return self.model

    @staticmethod
    def _at(point: Point, weight: torch.Tensor, updates: list[torch.Tensor | None]) -> torch.Tensor:
        for share, update in zip((point.first, point.second), updates, strict=True):
            # The other run's end is the run itself, to the bit: 0 · ΔW may be −0, and costs time.
            weight = weight if update is None or share == 0 else weight.add_(update, alpha=share)
        return weight
