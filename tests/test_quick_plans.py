"""A plan made with less says and does the same: the real Snakemake."""

import subprocess
import sys
from pathlib import Path

import pytest

from memedynamics import quick_plans

LIBRARY = str(Path(quick_plans.__file__).parents[1])
# What is asked of one function of a rule is written down; the rule's other functions ask for different things.
WORKFLOW = """
import inspect, sys
sys.path.insert(0, {library!r})
from memedynamics import quick_plans
if {once}:
    quick_plans.use()
    quick_plans.use()
read = inspect.signature
def noted(function, **options):
    if function is one:
        print("asked", file=sys.stderr)
    return read(function, **options)
inspect.signature = noted

def one(wildcards):
    return wildcards.n

rule all:
    input: expand("made/{{n}}", n=range(5))

rule make:
    output: "made/{{n}}"
    params: own=one, out=lambda wildcards, output: output[0], mb=lambda wildcards, resources: resources.mem_mb
    resources: mem_mb=lambda wildcards, attempt: 100 * attempt
    shell: "echo {{params}} > {{output}}"
"""


@pytest.mark.parametrize("once", [True, False])
def test_functions_are_asked_once_and_given_what_they_ask_for(tmp_path, once):
    """The control, of as many reads as jobs at least, would tell that Snakemake remembers by itself."""
    (tmp_path / "Snakefile").write_text(WORKFLOW.format(library=LIBRARY, once=once))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120)
    made = {file.name: file.read_text().split() for file in (tmp_path / "made").iterdir()}
    assert made == {str(n): [str(n), f"made/{n}", "100"] for n in range(5)}
    # Each job's shell command runs in the same Snakemake, so that all reads are this one's.
    asked = done.stderr.count("asked")
    assert asked == 1 if once else asked >= 5
