"""What every job reads again: the rules reach nothing that is slow to import."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SLOW = {"torch", "transformers", "polars", "pyarrow", "plotly", "scipy"}


def test_the_rules_import_nothing_slow():
    lines = [line for file in (ROOT / "rules").glob("*.smk") for line in file.read_text().splitlines()]
    imports = [line for line in lines if re.match(r"(from|import) ", line)]
    assert any("memedynamics" in line for line in imports)
    code = "\n".join([*imports, f"import sys; print({SLOW} & set(sys.modules))"])
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "workflow", capture_output=True, text=True)
    assert found.stdout.strip() == "set()", found.stdout + found.stderr
