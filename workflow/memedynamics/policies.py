"""Reference and milestones of one run behind one function, adapters or full weights alike."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel

from memedynamics import adapters, vlm
from memedynamics.config import BaseModelConfig
from memedynamics.milestones import label

Choose = Callable[[str | None], PreTrainedModel]


def load(
    folder: Path,
    base: BaseModelConfig,
    kind: Literal["base", "adapter", "full"],
    milestones: Path | None,
    fractions: Sequence[float],
) -> Choose:
    """A function from a milestone's label (None: π0) to the model, switched to it and ready to be called.

    Adapters all lie in one model and are swapped. Of full weights one milestone at a time lies beside π0: ask for
    them in order. For the base itself every label is π0.
    """
    reference = vlm.load_model(folder, base.dtype, base.attn_implementation)
    if kind == "base":
        return lambda name: reference
    if kind == "full":
        return _whole(reference, base, milestones)
    folders = {label(fraction): milestones / label(fraction) for fraction in fractions}
    model = adapters.load_adapters(reference, folders)

    def choose(name: str | None) -> PreTrainedModel:
        adapters.activate(model, name)
        return model

    return choose


def against_start(
    folder: Path,
    base: BaseModelConfig,
    kind: Literal["adapter", "full"],
    milestones: Path,
    fractions: Sequence[float],
) -> Choose:
    """`load` with the run's own fraction 0, instead of π0, as the reference."""
    start = label(0.0)
    if kind == "full":
        return load(milestones / start, base, kind, milestones, fractions)
    choose = load(folder, base, kind, milestones, [0.0, *fractions])
    return lambda name: choose(start if name is None else name)


def _whole(reference: PreTrainedModel, base: BaseModelConfig, milestones: Path) -> Choose:
    loaded: dict[str, PreTrainedModel] = {}

    def choose(name: str | None) -> PreTrainedModel:
        if name is None:
            return reference
        if name not in loaded:
            loaded.clear()  # before loading: there may be no room for three
            loaded[name] = vlm.load_model(milestones / name, base.dtype, base.attn_implementation)
        return loaded[name]

    return choose
