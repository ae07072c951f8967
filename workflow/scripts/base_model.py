"""The base model as a folder: configuration, processor, weights and base.json, from the hub, a folder, or the demo."""

import shutil
from pathlib import Path

from memedynamics import checkpoints, checksums, sources, tables
from memedynamics.config import BaseModelConfig
from memedynamics.job import run
from memedynamics.prompts import Prompt


def main(
    model: Path,
    source: BaseModelConfig,
    threads: int,
    work: Path,
    train: Path | None = None,
    prompt: Prompt | None = None,
    question: str | None = None,
) -> None:
    """Write the model folder; a demo is trained on the memes in `train`, asked `question`; others are linked."""
    partial = model.with_name(f".{model.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if source.source == "demo":
        from memedynamics.demo_model import build_and_train

        build_and_train(tables.read(train, "data"), prompt, question, source.demo, partial, threads, work)
    else:
        link_checked(sources.locate(source.source, source.revision, "base_model.source"), source, partial)
    checkpoints.check_folder(partial)
    checkpoints.write_manifest(partial, source.source, source.revision)
    checksums.seal_folder(partial)
    shutil.rmtree(model, ignore_errors=True)
    partial.rename(model)


def link_checked(origin: Path, source: BaseModelConfig, folder: Path) -> None:
    """Link the model of `origin` into `folder`, with its processor saved anew under the study's overrides."""
    from memedynamics import processors

    checkpoints.check_folder(origin)
    processor = processors.overridden(origin, source.processor)
    processors.check(processor, origin)
    sources.link(origin, folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    run(main)
