"""A real Snakemake takes a job's private folder away once it has noted the job, and leaves that of one that failed."""

import subprocess
import sys

from memedynamics import noted

SNAKEFILE = """
import json, sys
sys.path.insert(0, {library!r})
from memedynamics import noted

onstart:
    noted.clear_up("")

rule all:
    input: "good", "bad"

rule job:
    output: "{{name}}"
    params: job=lambda wildcards: json.dumps({{"work": f"work/{{wildcards.name}}"}})
    shell: "mkdir -p work/{{output}} && touch work/{{output}}/part {{output}} && [ {{output}} = good ]"
"""


def test_of_the_jobs_that_ended_well(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(library=str(noted.__file__).rpartition("/memedynamics/")[0]))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "1 of 3 steps (33%) done" in done.stderr, done.stderr
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["bad"]
    assert (tmp_path / "work/bad/part").exists() and (tmp_path / "good").exists()
