"""The made-up study of `analysed_study` with its report; texts that come from outside are hostile throughout."""

import json
from pathlib import Path
from unittest.mock import patch

import polars as pl
import yaml

import analysed_study
from analysed_study import script
from memedynamics import report_page, schemas, study, tables

EVIL = ("<script>document.title='owned'</script>", '"><img src=x onerror="document.title=\'owned\'">')
NAMES = ("accuracy", "kl", "summary", "length")
DEMO = Path(__file__).parents[1] / "config/demo.yaml"


def write(folder: Path) -> Path:
    """Write the study's analyses, figures and report under `folder`; returns the report's folder."""
    analysed_study.write(folder, resamples=20)
    with patch.dict(tables.provenance, {"study": "synthetic", "commit": EVIL[0], "code": "0" * 16, "config": EVIL[1]}):
        _hostile(folder / "analyses/accuracy.parquet", "accuracy")
        for name in ("accuracy", "kl", "summary"):
            table, figure = folder / f"analyses/{name}.parquet", folder / f"figures/{name}.html"
            script(f"figure_{name}").main(table, figure, [f"methods are not matched: {EVIL[0]}"])
        _user_s_own(folder)
        _data(folder / "data/memes")
        _benchmarks(folder / "benchmarks")
        report(folder, settings())
    return folder / "report"


def report(folder: Path, told: dict, names: tuple[str, ...] = NAMES) -> None:
    """Make the report of the study in `folder` by its rules' scripts."""
    out = folder / "report"
    script("report_shell").main([out / f"assets/{name}" for name in ("style.css", "load.js", "filters.js")])
    analyses = [folder / f"analyses/{name}.parquet" for name in names]
    drawn = [folder / f"figures/{name}.json" for name in names]
    script("report_index").main(
        analyses=analyses, drawn=drawn,
        quality=[folder / "data/memes/quality.parquet"], rejected=[folder / "data/memes/rejected.parquet"],
        runs=sorted(folder.glob("runs/*/seed*/run.json")), root=folder, study=told,
        notes=[f"methods are not matched: {EVIL[0]}"], pages=[report_page.Page("index.html", "Summary")],
        page=out / "index.html", assets=out / "assets/index", downloads=out / "tables",
    )  # fmt: skip


def settings() -> dict:
    """The study file, its free texts hostile."""
    raw = yaml.safe_load(DEMO.read_text())
    raw |= {"study": "synthetic", "in_domain": "memes", "out_of_domain": ["other"]}
    raw["datasets"] = dict(zip(("memes", "other"), raw["datasets"].values(), strict=True))
    raw["methods"] = {name: raw["methods"][name] for name in ("sft", "dpo", "grpo")}
    raw["milestones"] = [0, 0.25, 0.5, 1]
    told = study.plain(study.load_study(raw))
    told["base_model"]["source"], told["datasets"]["memes"]["root"] = EVIL
    return told


def _hostile(path: Path, name: str) -> None:
    frame = tables.read(path, name)
    first = pl.int_range(pl.len()) == 0
    missing = pl.when(first).then(pl.lit(EVIL[0])).otherwise("missing")
    tables.write(
        frame.with_columns(missing=missing, unit=pl.when(first).then(pl.lit(EVIL[1])).otherwise("unit")), path, name
    )


def _user_s_own(folder: Path) -> None:
    """An analysis that a user added, with a figure that is not made of panels."""
    schemas.SCHEMAS["length"] = schemas.analysis_schema(schemas.field("kind", schemas.CATEGORY, EVIL[0], EVIL[1]))
    frame = tables.read(folder / "analyses/kl.parquet", "kl").head(30)
    frame = frame.select(set(frame.columns) & set(schemas.analysis_schema().names)).with_columns(kind=pl.lit(EVIL[0]))
    tables.write(frame.with_columns(kind=pl.Series([*EVIL] * 15)), folder / "analyses/length.parquet", "length")
    drawing = {"data": [{"type": "pie", "values": [1, 2], "labels": list(EVIL)}], "layout": {"height": 300}}
    (folder / "figures/length.json").write_text(json.dumps(drawing))


def _data(folder: Path) -> None:
    entries = {"rows": 60, "hateful": 30, "hateful_share": 0.5, "rejected": 1, "duplicate_images": 0}
    quality = [
        {"dataset": "memes", "split": "train", "statistic": name, "value": float(value), "expected": None, "unit": "1"}
        for name, value in entries.items()
    ]
    tables.write(
        pl.DataFrame(quality, schema_overrides={"expected": pl.Float64}), folder / "quality.parquet", "quality"
    )
    reason = f"unreadable: {EVIL[1]}"
    row = {"dataset": "memes", "split": "train", "row": 1, "id": EVIL[0], "source": f"{EVIL[0]}.csv", "reason": reason}
    tables.write(pl.DataFrame([row]), folder / "rejected.parquet", "rejected")


def _benchmarks(folder: Path) -> None:
    head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
    for file, line in {
        "kl.tsv": "2.0\t0:00:02\tNA\t-\t-\t-\t-\t-\t-\tNA",
        "train/sft/seed1.tsv": "90.0\t0:01:30\t2048.0\t1\t1\t1\t1\t1\t1\t80.0",
        "train/dpo/seed1.tsv": "30.0\t0:00:30\t1024.0\t1\t1\t1\t1\t1\t1\t20.0",
    }.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(f"{head}\n{line}\n")
    timing = folder / "timing/train_dpo/dpo/1.json"
    timing.parent.mkdir(parents=True)
    timing.write_text(json.dumps({"seconds": 29.0, "items": 20.0, "gpus": 2, "gpu_memory": 4096.0}))
