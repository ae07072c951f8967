"""Parameters that an adapter trains, counted from the headers of a model's weight files: nothing is loaded."""

import re
from math import prod
from pathlib import Path

from memedynamics import layers
from memedynamics.checkpoints import shapes
from memedynamics.methods import Adapter

LAYER = re.compile(r"\.layers\.\d+\..*_proj\.weight$")
NOT_TEXT = re.compile(r"vision|visual|projector|connector|merger")


def trainable_parameters(folder: Path, adapter: Adapter) -> int:
    """Parameters that `adapter` trains on the model in `folder`, by kind.

    LoRA: r (in + out) of every chosen linear layer of the text decoder; DoRA: another out each, the magnitudes; IA³:
    out each, of down_proj in; prompt: tokens × hidden size; prefix: tokens × the keys and values of every layer; full:
    all but the vision tower and the projector.
    """
    known = shapes(folder)
    if adapter.kind == "full":
        return sum(prod(shape) for name, shape in known.items() if not NOT_TEXT.search(name))
    linears = {name.removesuffix(".weight"): shape for name, shape in known.items() if _is_text_linear(name)}
    if adapter.kind == "prompt":
        return adapter.tokens * next(shape[1] for name, shape in known.items() if name.endswith("embed_tokens.weight"))
    if adapter.kind == "prefix":
        return adapter.tokens * sum(shape[0] for name, shape in linears.items() if name.endswith(("k_proj", "v_proj")))
    chosen = {name: linears[name] for name in layers.chosen(list(linears), adapter.layers)}
    if adapter.kind == "ia3":
        return sum(shape[bool(re.fullmatch(layers.FEEDFORWARD, name))] for name, shape in chosen.items())
    magnitudes = sum(out for out, _ in chosen.values()) if adapter.kind == "dora" else 0
    return adapter.r * sum(map(sum, chosen.values())) + magnitudes


def linear_parameters(folder: Path) -> int:
    """Parameters of the text decoder's linear layers: what QLoRA holds in four bits."""
    return sum(prod(shape) for name, shape in shapes(folder).items() if _is_text_linear(name))


def _is_text_linear(name: str) -> bool:
    return bool(LAYER.search(name)) and not NOT_TEXT.search(name)
