"""What went wrong, in the terminal: the last words of each failed job's log."""

import re
import sys
from pathlib import Path


def last_words(log: Path, lines: int = 15) -> str:
    """The `error:` line that a job ended with, or else the last `lines` of its log."""
    text = log.read_text(errors="replace").rstrip().splitlines() if log.exists() else []
    named = [line for line in text[-lines:] if line.startswith("error: ")]
    return "\n".join(named[-1:] or text[-lines:])


def print_failures(workflow_log: str | Path) -> None:
    """Print the end of every job log that Snakemake's own log names as failed."""
    found = re.findall(r"^\s*log: (.+?)(?: \(check log file.*)?$", Path(workflow_log).read_text(), re.MULTILINE)
    failed = dict.fromkeys(Path(name) for line in found for name in line.split(", ") if name)
    for log in failed:
        if words := last_words(log):
            print(f"\n{log}:\n{words}", file=sys.stderr)
