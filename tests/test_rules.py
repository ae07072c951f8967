"""What every job reads again: the rules reach nothing that is slow to import. And what they ask of a cluster."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SLOW = {"torch", "transformers", "polars", "pyarrow", "plotly", "scipy"}


def test_the_rules_import_nothing_slow():
    lines = [line for file in (ROOT / "rules").glob("*.smk") for line in file.read_text().splitlines()]
    imports = [line for line in lines if re.match(r"(from|import) ", line)]
    assert any("memedynamics" in line for line in imports)
    code = "\n".join([*imports, f"import sys; print({SLOW} & set(sys.modules))"])
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "workflow", capture_output=True, text=True)
    assert found.stdout.strip() == "set()", found.stdout + found.stderr


def who_need_a_gpu():
    """Rules that ask for a GPU themselves, or are another rule that does in all but what they change."""
    text = "\n".join(file.read_text() for file in sorted((ROOT / "rules").glob("*.smk")))
    parts = re.split(r"^(rule \w+|use rule \w+ as \w+ with):$", text, flags=re.MULTILINE)
    needs = {}
    for head, body in zip(parts[1::2], parts[2::2], strict=True):
        name = head.split()[-2] if head.startswith("use") else head.split()[-1]
        own = re.search(r"^\s+(gpu=|\*\*TRAINING)", body, re.MULTILINE) is not None
        needs[name] = own or (head.startswith("use") and needs[head.split()[2]])
    return {name for name, needed in needs.items() if needed}


def test_on_a_cluster_all_who_need_a_gpu_and_no_others_go_where_they_are():
    """A rule that the profile forgets would wait for a GPU in the partition that has none."""
    profile = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
    given = {name for name, asked in profile["set-resources"].items() if asked["slurm_partition"] == "gpu"}
    assert given == who_need_a_gpu() and len(given) > 20
    warned = {name for name, asked in profile["set-resources"].items() if "slurm_extra" in asked}
    assert warned == {name for name in given if name.startswith("train_")}
