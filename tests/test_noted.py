"""A real Snakemake takes a job's private folder away once it has noted the job, and leaves that of one that failed."""

import subprocess
import sys
from pathlib import Path

from memedynamics import noted

SNAKEFILE = """
import json, sys
from pathlib import Path
sys.path.insert(0, {library!r})
from memedynamics import noted

onstart:
    noted.forget((job for job in workflow.dag.jobs if not workflow.dag.needrun(job)), Path(), "")
    noted.clear_up(Path(), "")

rule all:
    input: "good", "bad"

rule job:
    output: "{{name}}"
    params: job=lambda wildcards: json.dumps({{"work": f".work/{{wildcards.name}}"}})
    shell: "mkdir -p .work/{{output}}/d && touch .work/{{output}}/d/ended {{output}} && [ {{output}} = good ]"
"""


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob(".work/*") if any(path.iterdir()))


REMOTE = ["--mode", "remote", "--force", "--ignore-incomplete", "--nolock"]  # what a cluster job is called with


def test_what_another_snakemake_has_made_stays_incomplete_until_it_is_noted(tmp_path):
    text = SNAKEFILE.format(library=str(Path(noted.__file__).parents[1]))
    (tmp_path / "Snakefile").write_text(f"{text}\nif not workflow.is_main_process:\n    noted.leave_it_to_main()\n")
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    subprocess.run([*command, *REMOTE, "good"], cwd=tmp_path, check=True)
    refused = subprocess.run([*command, "good"], cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "good").exists() and "IncompleteFilesException" in refused.stderr
    done = subprocess.run([*command, "good", "--rerun-incomplete"], cwd=tmp_path, capture_output=True, text=True)
    assert "1 of 1 steps (100%) done" in done.stderr and left(tmp_path) == []


def test_of_the_jobs_that_ended_well(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(library=str(Path(noted.__file__).parents[1])))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "1 of 3 steps (33%) done" in done.stderr, done.stderr
    assert left(tmp_path) == [".work/bad"] and (tmp_path / "good").exists()
    # A Snakemake that was killed after its note: half away, or not at all.
    for folder in (".work/good/d", f"{noted.TRASH}/x/d"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / noted.ENDED).touch()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and left(tmp_path) == [".work/bad"], done.stderr
