"""A checkpoint trained elsewhere as a run: checked against the base model, milestones 0 and 1."""

from pathlib import Path

from memedynamics import checksums, external, schemas, sources, tables
from memedynamics.config import ExternalMethod
from memedynamics.job import run


def main(
    model: Path, milestones: Path, history: Path, rollouts: Path, run: Path, method: ExternalMethod, name: str
) -> None:
    """Check the checkpoint of method `name`, lay it out, and write empty tables for what is unknown of its training."""
    folder = sources.locate(method.path, method.revision, f"methods.{name}.path")
    kind = external.kind(folder)
    check = external.check_adapter if kind == "adapter" else external.check_full
    check(folder, model)
    tables.write(schemas.SCHEMAS["history"].empty_table(), history, "history")
    tables.write(schemas.SCHEMAS["rollouts"].empty_table(), rollouts, "rollouts")
    external.lay_out(folder, model, kind, milestones)
    checksums.write_json(run, external.record(folder, kind))


if __name__ == "__main__":
    run(main)
