"""One run's weight updates at every milestone, module by module: their spectra, and the final ones' bases."""

import json
from pathlib import Path

import polars as pl
import torch

from memedynamics import base_svds, deltas, module_spectra, spectrum_bases, tables
from memedynamics.config import Spectrum
from memedynamics.job import progress, run
from memedynamics.milestones import label, scored
from memedynamics.parts import Parts
from memedynamics.weights import Weights


def main(
    model: Path,
    milestones: Path,
    run: Path,
    svd: Path,
    extract: Path,
    bases: Path,
    fractions: list[float],
    settings: Spectrum,
    method: str,
    seed: int,
    threads: int,
    work: Path,
) -> None:
    """Write `extract` and `bases` of the run in `milestones`; `svd` is what base_svd wrote of `model`."""
    torch.set_num_threads(threads)
    record = json.loads(run.read_text())
    fractions = scored(fractions, record)
    folders = {fraction: milestones / label(fraction) for fraction in fractions}
    opened = {fraction: deltas.open_milestone(folder, record["kind"]) for fraction, folder in folders.items()}
    if None in opened.values():
        tables.write(module_spectra.nothing(fractions), extract, "extract_spectrum")
        spectrum_bases.write({}, bases)
        return
    start = module_spectra.start_of(milestones / label(0), record)
    modules = opened[fractions[-1]].modules(base_svds.modules(svd))
    weights, rows, vectors = Weights(model), Parts(work, "extract_spectrum"), work / "bases"
    for name in progress(modules, f"spectrum of {method}"):
        if not rows.done(name):
            module = module_spectra.Module(name, weights(name), *base_svds.read(svd, name))
            found, kept = module_spectra.measure(module, opened, start, settings, f"{method}/{seed}")
            spectrum_bases.write(kept, vectors / f"{name}.safetensors")
            rows.write(name, pl.DataFrame(found, infer_schema_length=None))
    spectrum_bases.merge([vectors / f"{name}.safetensors" for name in modules], bases)
    rows.merge(modules, extract)


if __name__ == "__main__":
    run(main)
