"""What every job reads again: the rules reach nothing that is slow to import. And what they ask of a cluster."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SLOW = {"torch", "transformers", "polars", "pyarrow", "plotly", "scipy"}


def test_the_rules_import_nothing_slow():
    """Nothing but what Snakemake has imported by then."""
    text = "\n".join(file.read_text() for file in (ROOT / "rules").glob("*.smk"))
    imports = re.findall(r"^(?:from|import) [^(\n]*(?:\([^)]*\))?", text, re.MULTILINE)
    assert any("memedynamics" in line for line in imports)
    before = "import sys, snakemake.cli; before = set(sys.modules)"
    code = "\n".join([before, *imports, f"print({SLOW} & set(sys.modules) - before)"])
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "workflow", capture_output=True, text=True)
    assert found.stdout.strip() == "set()", found.stdout + found.stderr


def bodies():
    """What stands below the head of each rule, by name, and which rule it is in all but what it changes."""
    text = "\n".join(file.read_text() for file in sorted((ROOT / "rules").glob("*.smk")))
    parts = re.split(r"^(rule \w+|use rule \w+ as \w+ with):$", text, flags=re.MULTILINE)
    for head, body in zip(parts[1::2], parts[2::2], strict=True):
        words = head.split()
        yield (words[4], body, words[2]) if words[0] == "use" else (words[1], body, None)


def who_need_a_gpu():
    """Rules that ask for a GPU themselves, or are another rule that does in all but what they change."""
    needs = {}
    for name, body, other in bodies():
        needs[name] = bool(re.search(r"^\s+(gpu=|\*\*TRAINING)", body, re.MULTILINE)) or needs.get(other, False)
    return {name for name, needed in needs.items() if needed}


def test_what_is_another_rule_that_stays_off_the_cluster_stays_there_too():
    """Snakemake hands everything on but that."""
    local = {name for name, body, _ in bodies() if "    localrule: True" in body}
    assert {"figure_accuracy", "figure_kl", "gather_samples", "gather_own_samples"} <= local
    assert not {name for name, _, other in bodies() if other in local} - local


def test_on_a_cluster_all_who_need_a_gpu_and_no_others_go_where_they_are():
    """A rule that the profile forgets would wait for a GPU in the partition that has none, or have one core."""
    profile, workstation = (
        yaml.safe_load((ROOT / f"{name}/config.yaml").read_text()) for name in ("slurm", "workstation")
    )
    given = {name for name, asked in profile["set-resources"].items() if asked["slurm_partition"] == "gpu"}
    assert given == who_need_a_gpu() and len(given) > 20
    assert set(profile["set-threads"]) == given == set(workstation["set-threads"])
    warned = {name for name, asked in profile["set-resources"].items() if "slurm_extra" in asked}
    assert warned == {name for name in given if name.startswith("train_")}
