"""Two runs of one seed and the models between them: decision and forward KL on base samples, point by point."""

from pathlib import Path

import polars as pl
import torch

from memedynamics import merge_path_texts, tables, vlm
from memedynamics.batching import cut
from memedynamics.config import BaseModelConfig, Scoring
from memedynamics.job import progress, run
from memedynamics.keys import MEME
from memedynamics.merge_parents import open_parent
from memedynamics.merge_path_model import Between, points
from memedynamics.merge_path_scores import PathScorer
from memedynamics.parts import Parts
from memedynamics.prompts import Prompt


def main(
    model: Path,
    first: Path,
    first_run: Path,
    second: Path,
    second_run: Path,
    probes: Path,
    data: list[Path],
    extract: Path,
    base: BaseModelConfig,
    prompt: Prompt,
    questions: dict[str, str],
    scoring: Scoring,
    memes: int,
    in_domain: str,
    threads: int,
    work: Path,
) -> None:
    """From the end of the run in `first` (milestones) to that in `second`, on `memes` of the probed val memes."""
    torch.set_num_threads(threads)
    runs = [open_parent(first, first_run, model), open_parent(second, second_run, model)]
    rows = tables.read_all(data, "data", [*MEME, "label", "image", "text"])
    chosen = merge_path_texts.chosen(tables.read(probes, "probes"), rows, in_domain, memes, prompt, questions)
    loaded = vlm.load_model(model, base.dtype, base.attn_implementation)
    scorer = PathScorer(loaded, vlm.load_processor(model), prompt, scoring.chunk)
    batches = [scorer.know(some) for some in progress(cut(chosen, scoring.batch_size), "merge path: base")]
    between, parts = Between(loaded, model, *runs), Parts(work, "extract_merge_path")
    path = points(between.cosine)
    for point in progress(path, "merge path"):
        if not parts.done(point.key):
            between.go(point)
            found = pl.concat([scorer.score(batch) for batch in batches]).with_columns(t=pl.lit(point.t))
            parts.write(point.key, pl.concat([found.with_columns(way=pl.lit(way)) for way in point.ways]))
    parts.merge([point.key for point in path], extract)


if __name__ == "__main__":
    run(main)
