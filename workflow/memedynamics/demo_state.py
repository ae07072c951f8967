"""What the demo model's training has reached, on disk, so that a killed one goes on and ends with the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import torch


def keep(parts: dict[str, Any], rng: np.random.Generator, step: int, file: Path) -> None:
    """Write the states of `parts` and of both random generators after `step` steps to `file`, whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    states = {name: part.state_dict() for name, part in parts.items()}
    drawn = {"torch": torch.get_rng_state(), "numpy": rng.bit_generator.state}
    torch.save({"parts": states, "step": step, **drawn}, partial)
    partial.replace(file)


def restore(parts: dict[str, Any], rng: np.random.Generator, file: Path) -> int:
    """Put what `keep` wrote back, and return its step; 0 where there is no such file."""
    if not file.exists():
        return 0
    state = torch.load(file, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    torch.set_rng_state(state["torch"])
    rng.bit_generator.state = state["numpy"]
    return state["step"]
