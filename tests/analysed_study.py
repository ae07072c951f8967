"""The made-up study of `synthetic`, analysed by the rules' own scripts: what figures and the closing table read."""

import importlib.util
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import synthetic
from memedynamics import gather, summary, tables

SCRIPTS = Path(__file__).parents[1] / "workflow/scripts"


def script(name: str) -> ModuleType:
    """The module workflow/scripts/`name`.py."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder: Path, resamples: int = 100) -> Path:
    """Write the analyses accuracy, kl and, of these two alone, summary under `folder`; returns it."""
    paths = synthetic.write_study(folder)
    runs, data = paths["runs"], paths["data"]
    with patch.dict(tables.provenance, {"study": "synthetic"}):
        script("accuracy").main(
            paths["samples"], paths["base"], paths["responses"], runs, data,
            table=folder / "analyses/accuracy.parquet", resamples=resamples, in_domain="memes",
        )  # fmt: skip
        script("kl").main(
            paths["traces"], paths["responses"], runs, data,
            table=folder / "analyses/kl.parquet", resamples=resamples,
        )  # fmt: skip
        made = {name: tables.read(folder / f"analyses/{name}.parquet", name) for name in ("accuracy", "kl")}
        kinds = {method: method for method in synthetic.METHODS}
        frame = summary.measure(made, {}, [], gather.prompts(data), gather.milestones(runs), kinds, "memes")
        tables.write(frame, folder / "analyses/summary.parquet", "summary")
    return folder
