"""Every command of the README, run: day one on a small corpus in Hateful Memes' own files and a local base model."""

import json
import re
import shutil
import subprocess

import polars as pl
import pytest
import yaml

import drawn_datasets
from smoke_study import HERE, SMOKE, copy_tree

pytestmark = pytest.mark.workflow

BLOCKS = re.findall(r"^ *```bash\n(.*?)^ *```", (HERE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [re.sub(r"\s+#.*", "", line).strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
REAL = [command for command in COMMANDS if "hateful_memes.yaml" in command]
DEMO = [command for command in COMMANDS if command.startswith("snakemake") and command not in REAL]


def run(command, folder):
    done = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    return done.stdout + done.stderr


def test_every_command_is_known():
    """`make demo` and `make test` are what CI runs; the rest runs here."""
    assert {"make demo", "make test"} == set(COMMANDS) - set(REAL) - set(DEMO)
    assert len(REAL) >= 8 and len(DEMO) >= 3


def hateful_memes_files(memes, folder):
    """Prepared memes written back as the files Hateful Memes was published with."""
    (folder / "img").mkdir(parents=True)
    for split, name in (("train", "train"), ("val", "dev_unseen"), ("test", "test_unseen")):
        frame = pl.read_parquet(memes / "data/pictograms" / f"{split}.parquet")
        lines = []
        for row in frame.to_dicts():
            shutil.copy(memes.parents[1] / row["image"], folder / "img" / f"{row['id']}.png")
            lines.append({"id": row["id"], "img": f"img/{row['id']}.png", "label": row["label"], "text": row["text"]})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def day_one(finished, tmp_path_factory):
    """The real study's file with a small local model and few steps; its datasets on disk in their own formats."""
    project = copy_tree(tmp_path_factory.mktemp("day_one") / "project")
    hateful_memes_files(finished / "results/smoke", project / "data/hateful_memes")
    drawn_datasets.harmeme(project / "data/harmeme")
    drawn_datasets.mami(project / "data/mami")
    study = yaml.safe_load((project / "config/hateful_memes.yaml").read_text())
    smoke = yaml.safe_load((project / SMOKE).read_text())
    study["base_model"] = {"source": str(finished / "results/smoke/model"), "dtype": "float32"}
    for key in (
        "scoring",
        "probes",
        "own_samples",
        "attention",
        "sharpe",
        "gradients",
        "adapter",
        "training",
        "seeds",
        "milestones",
        "prompt",
        "resamples",
    ):
        study[key] = smoke[key]
    study |= {"sampling": smoke["sampling"] | {"shards": 1}, "methods": {"sft": smoke["methods"]["sft"]}}
    for dataset in study["datasets"].values():
        dataset["max_bad_share"] = 1.0
    (project / "config/hateful_memes.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return project


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_day_one(day_one):
    said = {command: run(command, day_one) for command in REAL if "profile slurm" not in command}
    plans = [text for command, text in said.items() if " plan " in command]
    results = day_one / "results"
    assert (results / "hateful_memes/figures/kl.html").exists()
    assert (results / "hateful_memes-trial/costs.json").exists()
    assert plans and "GPU-hours" in plans[-1]
    slurm = next(command for command in REAL if "profile slurm" in command)
    assert "Nothing to be done" in run(slurm, day_one)


@pytest.mark.long
def test_the_plan_foresaw_the_steps(day_one):
    said = (day_one / "results/hateful_memes/logs/plan.log").read_text()
    found = json.loads((day_one / "results/hateful_memes/runs/sft/seed1/run.json").read_text())
    saved = " ".join(str(step) for step in found["steps"].values())
    assert re.search(rf"^sft +\d+ +{found['total_steps']} .* {saved} *$", said, re.MULTILINE)


def test_partial_rebuilds(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    shutil.copy(finished / SMOKE, tmp_path / "project/config/demo.yaml")
    for command in DEMO:
        # What a whole study does not make is made in test_paper.
        more = " paper " in command
        said = run(f"{command} --dry-run" if more else command, tmp_path / "project")
        assert "Nothing to be done" in said or (more and "paper_figures" in said), command
