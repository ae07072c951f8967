"""What a user meets when the disk, the clock, a second Snakemake or a changed byte get in the way of a study."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager

import psutil
import pytest
import yaml

from smoke_study import SMOKE, planned, snakemake

from .killing import COMMAND, ROOT, Watch, running
from .test_kills import anew, differences

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    """A copy of the finished study; whatever happens to it, it ends as it was."""
    folder = tmp_path_factory.mktemp("faults") / "project"
    shutil.copytree(finished, folder, symlinks=True)
    yield folder
    assert differences(folder, finished) == []


def refused(project, *arguments, **options):
    """The one-line errors of a Snakemake that fails."""
    done = snakemake(project, "--cores", "2", "--keep-going", *arguments, check=False, **options)
    assert done.returncode != 0
    return sorted(line.removeprefix("error: ") for line in done.stdout.splitlines() if line.startswith("error: "))


@contextmanager
def decayed(file, change):
    """Inside, `file` holds what `change` makes of its bytes, and has the same time."""
    whole, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    for content in (change(whole), whole):
        file.write_bytes(content)
        os.utime(file, ns=times)
        if content is not whole:
            yield


@contextmanager
def aside(project, *names):
    """Inside, these artefacts are missing."""
    for name in names:
        (project / ROOT / name).rename(project / name.replace("/", "_"))
    yield [f"{ROOT}/{name}" for name in names]
    for name in names:
        (project / ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name.replace("/", "_")).rename(project / ROOT / name)


def flipped(whole):
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


def cut(whole):
    return whole[: len(whole) * 2 // 3]


def recounted(whole):
    return whole.replace(b'"total_steps": 4', b'"total_steps": 5')


def said_of(file, deleted=None):
    told = f"changed after it was written, or is cut short; delete {ROOT}/{deleted or file} and run again"
    return f"{ROOT}/{file}: {told}"


SPECTRA = [
    f"extracts/{name}"
    for m in ("sft", "dpo", "grpo")
    for name in (f"spectrum/{m}/seed1.parquet", f"bases/{m}/seed1.safetensors")
]
WEIGHTS = "milestones/0.5/adapter_model.safetensors"


def test_what_decayed_is_named_and_not_used(project):
    """A bit of a table, a table's end, a bit of a milestone, a milestone's end, a digit of run.json."""
    root, traces = project / ROOT, "traces/sft/seed1/1-of-1.parquet"
    with (
        aside(project, *SPECTRA, "analyses/kl.parquet", "analyses/likelihood.parquet") as targets,
        decayed(root / traces, flipped),
        decayed(root / "probes.parquet", cut),
        decayed(root / "runs/sft/seed1" / WEIGHTS, flipped),
        decayed(root / "runs/dpo/seed1" / WEIGHTS, cut),
        decayed(root / "runs/grpo/seed1/run.json", recounted),
    ):
        assert refused(project, *targets) == sorted(
            [
                said_of(traces),
                said_of("probes.parquet"),
                said_of(f"runs/sft/seed1/{WEIGHTS}", "runs/sft/seed1/milestones"),
                said_of(f"runs/dpo/seed1/{WEIGHTS}", "runs/dpo/seed1/milestones"),
                said_of("runs/grpo/seed1/run.json"),
            ]
        )
        assert not any((project / target).exists() for target in targets)


def test_a_base_model_that_decayed(project):
    with (
        aside(project, *SPECTRA[:2]) as targets,
        decayed(project / ROOT / "model/model.safetensors", flipped),
    ):
        assert refused(project, targets[0]) == [said_of("model/model.safetensors", "model")]


def test_what_was_named_is_made_anew_once_deleted(project):
    for name in ("traces/sft/seed1/1-of-1.parquet", "analyses/kl.parquet"):
        (project / ROOT / name).unlink()
    snakemake(project, f"{ROOT}/analyses/kl.parquet", "--cores", "2")


@pytest.fixture
def small(project):
    """The study's results on a disk of their own, with half a megabyte to spare; a function that makes more room."""
    results, away = project / ROOT, project / "results/away"
    used = int(subprocess.run(["du", "-sk", results], capture_output=True, text=True, check=True).stdout.split()[0])
    results.rename(away)
    results.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={used + 2048}k", "tmpfs", results]).returncode
    ):
        assert not os.environ.get("CI"), "CI must be allowed to mount a tmpfs"
        results.rmdir()
        away.rename(results)
        pytest.skip("needs the right to mount a tmpfs")
    subprocess.run(["cp", "-a", f"{away}/.", results], check=True)
    yield lambda option: subprocess.run(["mount", "-o", f"remount,{option}", results], check=True)
    shutil.rmtree(away)
    subprocess.run(["cp", "-a", results, away], check=True)
    subprocess.run(["umount", results], check=True)
    results.rmdir()
    away.rename(results)


def test_a_disk_that_is_full_and_one_that_is_read_only(project, small):
    """A training meets its end; with more room it goes on. Nothing can be written, and nothing is tried."""
    targets, run = anew(project, ["runs/dpo/seed1"]), project / ROOT / "runs/dpo/seed1"
    (project / ROOT / "fill").write_bytes(bytes(shutil.disk_usage(project / ROOT).free - (600 << 10)))
    (line,) = refused(project, *targets)
    assert line.startswith(ROOT) and line.endswith("no space left on device; make room there and run again")
    assert not list(run.glob("*"))
    (project / ROOT / "fill").unlink()
    small("size=1g")
    snakemake(project, *targets, "--cores", "2")

    small("ro")
    with pytest.raises(OSError, match="Read-only"):
        (project / ROOT / "file").touch()
    target = f"{ROOT}/analyses/kl.parquet"
    done = snakemake(project, target, "--cores", "2", "--forcerun", "kl", check=False)
    told = f"{ROOT}: read-only file system; make it writable or link it to another disk, and run again"
    assert done.returncode != 0 and told in done.stdout and "Traceback" not in done.stdout
    small("rw")


def test_an_artefact_from_the_future(project):
    """It is refused before any work; Snakemake alone would do the work, and refuse its result, every time."""
    probes, target = project / ROOT / "probes.parquet", f"{ROOT}/analyses/likelihood.parquet"
    times = probes.stat()
    (project / target).unlink()
    os.utime(probes, (time.time() + 3600,) * 2)
    (line,) = refused(project, target)
    assert line.startswith(f"{ROOT}/probes.parquet: its time, 20") and line.endswith("set the clock right or touch it")
    os.utime(probes, ns=(times.st_atime_ns, times.st_mtime_ns))
    snakemake(project, target, "--cores", "2")
    assert not planned(project, target)


@pytest.fixture(scope="module")
def own_data(project):
    """A study of a table of memes of one's own, prepared."""
    study = yaml.safe_load((project / SMOKE).read_text())
    given = {"reader": "table", "root": "own", "splits": {"train": "a.csv", "val": "b.csv", "test": "c.csv"}}
    study |= {"study": "own", "datasets": {"own": given}, "in_domain": "own", "out_of_domain": []}
    (project / "own.yaml").write_text(yaml.safe_dump(study))
    (project / "own").mkdir()
    pictures = sorted((project / ROOT / "data/pictograms/pictures").rglob("*.png"))
    for split, first in zip("abc", (0, 2, 4), strict=True):
        rows = []
        for label in (0, 1):
            shutil.copy(pictures[first + label], project / f"own/{split}{label}.png")
            rows.append(f"{split}{label},{split}{label}.png,a caption of {split}{label},{label}\n")
        (project / f"own/{split}.csv").write_text("id,image,text,label\n" + "".join(rows))
    snakemake(project, "results/own/data/own/train.parquet", "--cores", "2", config="own.yaml")
    return project


def test_raw_data_with_times_that_lie(own_data):
    """Of an hour ahead: refused. Replaced by a file that is older than what was made of the first: prepared anew."""
    target, file = "results/own/data/own/train.parquet", own_data / "own/a.csv"
    assert not planned(own_data, target, config="own.yaml")
    file.write_text(file.read_text().replace("caption", "legend"))
    os.utime(file, (1, 1))
    assert planned(own_data, target, config="own.yaml") == {"prepare_dataset": 1}
    os.utime(file, (time.time() + 3600,) * 2)
    done = snakemake(own_data, "--dry-run", config="own.yaml", check=False)
    assert done.returncode != 0 and "own/a.csv: its time, 20" in done.stdout and "Traceback" not in done.stdout
    os.utime(file)


def held(project, *targets):
    """A Snakemake under way, its one job stopped in the middle of its work."""
    output = (project / "held.txt").open("w")
    command = [*COMMAND[:1], *targets, *COMMAND[1:]]
    called = subprocess.Popen(command, cwd=project, stdout=output, stderr=output, start_new_session=True)
    while not (jobs := running(psutil.Process(called.pid))):
        assert called.poll() is None, (project / "held.txt").read_text()
        time.sleep(0.05)
    jobs[0].process.suspend()
    return called


def test_two_at_once(project, own_data):
    """On one study the second is refused, even after another study's end took Snakemake's lock away; a killed first
    keeps nobody out.
    """
    targets = anew(project, ["extracts/attention/sft/seed1.parquet"])
    first = held(project, *targets)
    second = snakemake(project, *targets, "--cores", "1", check=False)
    assert second.returncode != 0 and "Directory cannot be locked" in second.stdout
    other = "results/own/data/own/val.parquet"
    snakemake(project, other, "--force", "--cores", "1", config="own.yaml")
    third = snakemake(project, *targets, "--cores", "1", check=False)
    assert third.returncode != 0 and "Traceback" not in third.stdout
    assert f"{ROOT}: process {first.pid} on" in third.stdout
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    snakemake(project, *targets, "--cores", "2", "--rerun-incomplete")


# What Snakemake's process imports as it starts: it dies where it would note that a job is done.
DIES = """
import sys
if any(word.endswith("bin/snakemake") for word in sys.orig_argv):
    import os
    from snakemake.persistence.file import FilePersistence
    FilePersistence.finished = lambda *_: os._exit(9)
"""


def test_a_job_that_had_ended_and_was_not_noted_is_only_put_together(project):
    """Its batches are as they were, and gone once it is noted."""
    imported = project / "sitecustomize.py"
    guard = imported.read_text()
    with aside(project, "drawn/base/pictograms/val.1-of-2.parquet") as targets:
        imported.write_text(guard + DIES)
        died = snakemake(project, *targets, "--cores", "1", check=False, PYTHONPATH=str(project))
        imported.write_text(guard)
        work = project / ROOT / ".work/sample_base/pictograms/val/1-of-2"
        assert died.returncode == 9 and list(work.rglob("ended"))
        watch = Watch(project)
        watch.look()
        assert watch.versions
        watch.start()
        snakemake(project, *targets, "--cores", "1", "--rerun-incomplete")
        watch.over.set()
        watch.join()
        assert not watch.repeated() and not work.exists()
