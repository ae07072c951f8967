"""Which linear layers of the text decoder are adapted: named presets, or a regular expression.

1. A layer is known by its place in the decoder, `layers.0.self_attn.q_proj`: what stands before it differs between
   model families, and between a weight file and the model made of it.
2. Vision tower, projector and output head have no place here: callers give names of the text decoder alone.
"""

import difflib
import re
from collections.abc import Sequence

from memedynamics.errors import InputError

# qv_high: query and value of the upper half of the layers.
PRESETS = {
    "all": r".*",
    "attention": r".*attn[^.]*\.[^.]+",
    "mlp": r"(?!.*attn[^.]*\.[^.]+$).*",
    "qv": r".*\.[qv]_proj",
    "qv_high": r".*\.[qv]_proj",
}
# What (IA)³ rescales at its input: the activation inside the feed-forward block.
FEEDFORWARD = r".*\.down_proj"
PLACE = re.compile(r"(?:^|\.)(layers\.(\d+)\..*)$")


def check(layers: str) -> None:
    """Raise InputError where `layers` is no preset and cannot be a regular expression of whole names either."""
    if layers in PRESETS:
        return
    # Every name holds dots, so a bare word matches none.
    if re.fullmatch(r"[\w-]*", layers):
        raise InputError(f"adapter.layers: no preset {layers!r}; {_nearest(layers)}")
    try:
        re.compile(layers)
    except re.error as error:
        raise InputError(f"adapter.layers: {layers!r} is no regular expression ({error}); {_nearest(layers)}") from None


def chosen(names: Sequence[str], layers: str) -> list[str]:
    """Those of `names` (all linear layers of a text decoder) that the preset or regular expression `layers` means.

    Raises InputError where it means none.
    """
    check(layers)
    pattern = re.compile(PRESETS.get(layers, layers))
    found = [name for name in names if pattern.fullmatch(place(name))]
    if layers == "qv_high":
        half = (1 + max(map(depth, names))) / 2
        found = [name for name in found if depth(name) >= half]
    if not found:
        raise InputError(
            f"adapter.layers: {layers!r} matches no linear layer of the text decoder, such as {place(names[0])}; "
            f"{_nearest(layers)}"
        )
    return found


def place(name: str) -> str:
    """`name` from the decoder's `layers.` on."""
    found = PLACE.search(name)
    return found[1] if found else name


def depth(name: str) -> int:
    """Number of the decoder layer that `name` lies in; -1 outside."""
    found = PLACE.search(name)
    return int(found[2]) if found else -1


def _nearest(layers: str) -> str:
    near = difflib.get_close_matches(layers, PRESETS, n=1, cutoff=0.0)[0]
    return f"the nearest of {', '.join(PRESETS)} is {near}"
