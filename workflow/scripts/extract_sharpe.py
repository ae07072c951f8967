"""One run's decisions taken apart: contributions of features, and the strength of gradients, at every milestone."""

import json
from pathlib import Path

import polars as pl
import torch

from memedynamics import per_sample, policies, probed_memes, tables, vlm
from memedynamics.attributions import Extractor
from memedynamics.config import Adapter, BaseModelConfig, Sharpe
from memedynamics.job import progress, run
from memedynamics.keys import MEME
from memedynamics.milestones import scored
from memedynamics.parts import Parts
from memedynamics.prompts import Prompt

BASE = {"kind": "base", "steps": {"0": 0}}


def main(
    model: Path,
    probes: Path,
    data: list[Path],
    extract: Path,
    signal: Path,
    base: BaseModelConfig,
    prompt: Prompt,
    questions: dict[str, str],
    settings: Sharpe,
    adapter: Adapter,
    fractions: list[float],
    in_domain: str,
    threads: int,
    work: Path,
    milestones: Path | None = None,
    run: Path | None = None,
) -> None:
    """Without `milestones` it is the base, with a fresh `adapter` of the study on it: the same function."""
    torch.set_num_threads(threads)
    record = json.loads(run.read_text()) if run else BASE
    fractions = scored(fractions, record)
    choose = policies.load(model, base, record["kind"], milestones, fractions)
    if not run:
        fresh = per_sample.fresh_adapter(choose(None), adapter)
        choose = lambda _: fresh  # noqa: E731
    extractor = Extractor(choose, vlm.load_processor(model), prompt)
    rows = tables.read_all(data, "data", [*MEME, "label", "image", "text"])
    memes = probed_memes.chosen(tables.read(probes, "probes"), rows, settings.memes, prompt, questions)
    shares = probed_memes.shares(memes, fractions, record["kind"] == "full", settings.batch_size)
    finished = {extract: Parts(work, "extract_sharpe"), signal: Parts(work, "extract_signal")}
    for share in shares:
        if not all(parts.done(share.key) for parts in finished.values()):
            batches = progress(share.batches, f"sharpe {share.dataset}/{share.split}")
            frames = extractor.split(batches, share.fractions, share.checked, signal=share.dataset == in_domain)
            where = {"dataset": pl.lit(share.dataset), "split": pl.lit(share.split)}
            for parts, frame in zip(finished.values(), frames, strict=True):
                parts.write(share.key, frame.with_columns(**where))
    for output, parts in finished.items():
        parts.merge([share.key for share in shares], output)


if __name__ == "__main__":
    run(main)
