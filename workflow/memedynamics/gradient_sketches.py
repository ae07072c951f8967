"""Inner products between many gradients that do not fit into memory, and the table they are written to.

1. Of each meme and objective the gradient is kept part by part (a part is a LoRA factor of one module). Parts of up to
   EXACT numbers are kept whole. A larger one is count-sketched into WIDTH numbers (Charikar et al. 2002; Weinberger et
   al. 0902.2206): every coordinate is added, with a random sign, to a random place. Inner products stay unbiased, with
   a standard error of at most √(2/WIDTH) = 0.022 of the product of the norms in one part, and less in many together.
2. Chosen over sums by bin and jackknife group because the inner products of all memes give every later question
   (bins, halves, intervals) exactly and without the model: memory is memes × objectives × parts × WIDTH numbers.
3. Over the whole adapter the inner products of all (meme, objective) are written; module by module those of GROUPS sums
   over memes, since all would be 250 times as much. Memes that share a caption are in one group.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from memedynamics.captions import clusters
from memedynamics.objectives import OBJECTIVES

EXACT, WIDTH = 2**14, 2**12
GROUPS = 8
WHOLE = "all"


class Sketch:
    """Gradients (N, `size`) of the part `name` as (N, width), the same way whenever it is asked.

    Place and sign take five bytes a coordinate, and drawing them longer than using them: keep it for a job.
    """

    def __init__(self, name: str, size: int, device: torch.device, exact: int = EXACT, width: int = WIDTH) -> None:
        self.size, self.width = size, size if size <= exact else width
        if self.width < size:
            random = np.random.default_rng([zlib.crc32(name.encode()), size])
            self.place = torch.from_numpy(random.integers(width, size=size)).int().to(device)
            self.sign = torch.from_numpy(random.choice([-1.0, 1.0], size=size)).to(torch.int8).to(device)

    def __call__(self, gradients: Tensor) -> Tensor:
        """`gradients` (N, size) float32, sketched: (N, width)."""
        if self.width == self.size:
            return gradients
        out = gradients.new_zeros(len(gradients), self.width)
        return out.index_add_(1, self.place, gradients * self.sign)


def inner_products(kept: Mapping[str, Tensor], groups: np.ndarray) -> dict[str, np.ndarray]:
    """Inner products by module, and under `WHOLE` of the whole adapter, from sketches (M, O, width) by part.

    A part's name is its module's and the factor's, `<module>/A`. WHOLE: (M·O, M·O); a module: (GROUPS·O, GROUPS·O).
    """
    found: dict[str, np.ndarray] = {}
    for part, sketches in kept.items():
        memes, objectives, width = sketches.shape
        summed = sketches.new_zeros(GROUPS, objectives, width)
        summed.index_add_(0, torch.from_numpy(groups).to(sketches.device), sketches)
        for name, gradients in ((WHOLE, sketches), (part.rpartition("/")[0], summed)):
            flat = gradients.reshape(-1, width)
            found[name] = found.get(name, 0.0) + (flat @ flat.T).double().cpu().numpy()
    return found


def groups_of(captions: Sequence[str]) -> np.ndarray:
    """Group (n,) of each meme, equal captions in one, all groups about equally large."""
    return clusters(captions) % GROUPS


def frame(
    products: Mapping[str, np.ndarray], memes: pl.DataFrame, groups: np.ndarray, fraction: float, parameters: int
) -> pl.DataFrame:
    """Rows of schema `extract_gradients` of one policy; `memes`: dataset, split, id, p (share correct) in order."""
    dataset, split = memes.select("dataset", "split").row(0)
    parts = []
    for module, matrix in products.items():
        whole = module == WHOLE
        count = len(memes) if whole else GROUPS
        place = np.repeat(np.arange(count), len(OBJECTIVES))
        columns = {
            "module": module,
            "id": memes["id"].to_numpy()[place] if whole else np.repeat("", len(place)),
            "place": place,
            "group": groups[place] if whole else place,
            "p": memes["p"].to_numpy()[place] if whole else np.full(len(place), np.nan),
            "objective": list(OBJECTIVES) * count,
            "inner": pl.Series(matrix.astype(np.float32), dtype=pl.List(pl.Float32)),
        }
        parts.append(pl.DataFrame(columns).with_columns(pl.col("p").fill_nan(None)))
    named = {"fraction": fraction, "dataset": dataset, "split": split, "parameters": parameters}
    return pl.concat(parts).with_columns(**{k: pl.lit(v) for k, v in named.items()}, missing=pl.lit(None, pl.String))


def without(memes: pl.DataFrame, fraction: float, reason: str) -> pl.DataFrame:
    """The one row of a policy that has no such gradients, with the `reason`."""
    row = {"fraction": fraction, "module": WHOLE, "id": "", "place": 0, "group": 0, "p": None, "objective": "grpo"}
    row |= {"dataset": memes["dataset"][0], "split": memes["split"][0], "inner": [], "parameters": 0, "missing": reason}
    return pl.DataFrame([row], schema_overrides={"inner": pl.List(pl.Float32), "p": pl.Float64})
