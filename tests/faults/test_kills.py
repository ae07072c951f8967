"""A smoke study that is killed again and again ends bit for bit where an undisturbed one ends, and does little twice.

By default a few jobs of a finished study are made anew, each stage of theirs killed once; `--kills 30` kills a study
from its first job to its last, every stage at least twice.
"""

import random
import re
import shutil
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from smoke_study import copy_tree, planned

from .killing import ROOT, STAGES, Study, drawn

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(3600)]

SEED = 5
# What of a finished study is made anew: nothing of it is made from anything else of it, so that little is done.
ANEW = [
    "drawn/base/pictograms/val.1-of-2.parquet",
    "runs/grpo/seed1",
    "traces/sft/seed1/1-of-1.parquet",
    "analyses/kl.parquet",
]
# Each once, with as much on disk as its one job has before its end.
ONCE = {"sampling": (0,), "grpo": (2, 3), "scoring": (4, 6), "analyses": (0,)}
# What says how long something took.
TIMED = ["step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second"]
ASIDE = ("logs", "benchmarks", ".work", ".running")
PAGE = Path("report/index.html")  # tells how long each job took, in one of its sections
COSTS = re.compile("<h3>What the jobs took</h3>.*?<h3>Versions</h3>", re.DOTALL)


def counts(kills: int) -> dict[str, int]:
    """Two kills a stage, the others where they are drawn."""
    assert kills >= 2 * len(STAGES), f"--kills: {2 * len(STAGES)} at least, two a stage"
    more = random.Random(SEED).choices(["sampling", "own samples", "scoring", "extraction"], k=kills - 2 * len(STAGES))
    return {stage: 2 + Counter(more)[stage] for stage in STAGES}


def artefacts(folder: Path) -> dict[Path, Path]:
    """Every artefact's file by its path in the study."""
    root = folder / ROOT
    found = {file.relative_to(root): file for file in root.rglob("*") if file.is_file()}
    return {name: file for name, file in found.items() if name.parts[0] not in ASIDE and name.name[0] != "."}


def untimed(file: Path) -> pl.DataFrame:
    return pl.read_parquet(file).filter(~pl.col("metric").cast(pl.String).is_in(TIMED))


def costless(page: Path) -> str:
    text = page.read_text()
    assert len(COSTS.findall(text)) == 1
    return COSTS.sub("", text)


def differences(folder: Path, reference: Path) -> list[str]:
    """Artefacts that are not the same to the bit, or in one alone; of histories, wall times are left out."""
    ours, theirs = artefacts(folder), artefacts(reference)
    differ = [str(name) for name in ours.keys() ^ theirs.keys()]
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name].read_bytes() != theirs[name].read_bytes():
            timed = name.name == "history.parquet" and untimed(ours[name]).equals(untimed(theirs[name]))
            timed |= name == PAGE and costless(ours[name]) == costless(theirs[name])
            differ += [] if timed else [str(name)]
    return differ


def survives(study: Study, reference: Path, wanted: dict[str, int]) -> None:
    """Let the study be killed and finished, and check what the issue of it is."""
    study.finish()
    print({stage: study.hits[stage] for stage in STAGES}, dict(study.ways), dict(study.watch.repeated()))
    assert {stage: study.hits[stage] for stage, count in wanted.items() if study.hits[stage] < count} == {}
    assert study.started_again() == []
    repeated = {job: (n, study.hit_jobs[job]) for job, n in study.watch.repeated().items()}
    assert {job: (n, hits) for job, (n, hits) in repeated.items() if n > hits} == {}
    # What was put on disk as it went was seen: else nothing of it could have been seen twice.
    seen = {str(file).partition("/")[0] for file in study.watch.versions}
    assert seen >= {"sample_base", "train_grpo", "score"}
    assert differences(study.folder, reference) == []
    assert not planned(study.folder, *study.targets)


@pytest.fixture
def project(tmp_path, finished, request):
    """A fresh project where a whole study is to be killed, else a copy of the finished one."""
    if request.config.getoption("kills"):
        return copy_tree(tmp_path / "project")
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    return tmp_path / "project"


def anew(project: Path, names: list[str]) -> list[str]:
    """Take the artefacts away; returns the targets that bring them back."""
    for name in names:
        path = project / ROOT / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return [f"{ROOT}/{name}/run.json" if name.startswith("runs/") else f"{ROOT}/{name}" for name in names]


def test_what_is_killed_ends_like_what_is_not(project, finished, pytestconfig):
    kills = pytestconfig.getoption("kills")
    wanted = counts(kills) if kills else dict.fromkeys(ONCE, 1)
    targets, moments = ([], drawn(wanted, SEED)) if kills else (anew(project, ANEW), drawn(wanted, SEED, ONCE))
    survives(Study(project, targets, moments), finished, wanted)
