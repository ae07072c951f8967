import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memedynamics import environment, lease


def test_versions_are_recorded_once_and_changes_named(tmp_path):
    file = tmp_path / "study" / "environment.json"
    assert environment.changes(file) == []
    environment.record(file)
    assert json.loads(file.read_text())["torch"].startswith("2.13.0")
    assert environment.changes(file) == []
    file.write_text(json.dumps(json.loads(file.read_text()) | {"trl": "0.9"}))
    environment.record(file)
    assert environment.changes(file) == [f"trl was 0.9 when this study began, now {environment.installed()['trl']}"]


def test_renewing_replaces_the_record_as_a_whole(tmp_path):
    file = tmp_path / "environment.json"
    file.write_text('{"trl": "0.9"}')
    before = file.stat().st_ino
    environment.record(file, renew=True)
    assert environment.changes(file) == [] and file.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "mark"), [(["--executor", "slurm-jobstep"], "7"), (["--executor", "slurm"], "6")]
)
def test_only_jobs_of_the_slurm_executor_own_their_allocation(tmp_path, monkeypatch, arguments, mark):
    restored(monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(lease.ALLOCATED, "6")
    monkeypatch.setattr(sys, "argv", ["snakemake", *arguments])
    environment.expose(tmp_path, "{}")
    assert os.environ[lease.ALLOCATED] == mark


def restored(monkeypatch):
    """Everything that `expose` sets is as before when the test ends."""
    names = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM", "PYTHONPATH", "PATH")
    more = ("MEMEDYNAMICS_BITSANDBYTES", "DO_NOT_TRACK", "GRADIO_ANALYTICS_ENABLED", "OMP_WAIT_POLICY")
    for name in (*names, *more, *environment.MALLOC):
        monkeypatch.setenv(name, "")


def test_nothing_phones_home(tmp_path, monkeypatch):
    restored(monkeypatch)
    environment.expose(tmp_path, "{}")
    told = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "GRADIO_ANALYTICS_ENABLED")
    assert [os.environ[name] for name in told] == ["1", "1", "1", "False"]


def test_jobs_find_what_pythonpath_held_behind_our_own(tmp_path, monkeypatch):
    """As the folder of a storage plugin; of two modules of one name ours is first, and that of the user's folder."""
    restored(monkeypatch)
    library, here = Path(environment.__file__).parents[1], tmp_path / "here"
    for folder, names in {"here": ["mine"], "kept": ["mine", "plugin", "memedynamics"]}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.py").touch()
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", f"../kept{os.pathsep}{library}")
    environment.expose(library, "{}")
    environment.expose(library, "{}")
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(library), str(here), str(tmp_path / "kept")]
    code = "import memedynamics, mine, plugin; print(memedynamics.__file__, mine.__file__, plugin.__file__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    ours = [f"{library}/memedynamics/__init__.py", f"{here}/mine.py", f"{tmp_path}/kept/plugin.py"]
    assert found.stdout.split() == ours, found.stderr


@pytest.mark.parametrize(
    ("study", "there"),
    [
        ('{"adapter": {"kind": "lora"}, "training": {"optim": "adamw_torch"}}', False),
        ('{"methods": {"sft": {"adapter": {"kind": "qlora"}}}}', True),
        ('{"training": {"optim": "adamw_bnb_8bit"}}', True),
        ('{"methods": {"sft": {"args": {"optim": "paged_adamw_32bit"}}}}', True),
        *[(f'{{"training": {{"optim": "{name}"}}}}', True) for name in ("lion_32bit", "ademamix", "rmsprop_bnb")],
    ],
)
def test_jobs_have_bitsandbytes_where_the_study_needs_it(tmp_path, monkeypatch, study, there):
    """PEFT and transformers ask importlib whether it is there, and import it if so."""
    restored(monkeypatch)
    environment.expose(Path(environment.__file__).parents[1], study)
    code = "import memedynamics; from importlib.util import find_spec; print(find_spec('bitsandbytes') is not None)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.split() == [str(there)], found.stderr
