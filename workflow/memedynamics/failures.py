"""What went wrong, in the terminal: the last words of each failed job's log."""

import re
import sys
from pathlib import Path

from memedynamics import disk


def last_words(log: Path, lines: int = 15) -> str:
    """The `error:` line that a job ended with, or else the last `lines` of its log."""
    text = log.read_text(errors="replace").rstrip().splitlines() if log.exists() else []
    # A launcher writes its own traceback below the error of the job that it launched.
    named = [line for line in text[-60:] if line.startswith("error: ")]
    return "\n".join(named[-1:] or text[-lines:])


def failed_logs(text: str) -> list[Path]:
    """The job logs that Snakemake's own log, `text`, names as failed, each once."""
    # A job of this machine names its log in the failed command, one on a cluster in the message about it.
    found = re.findall(
        r"> (\S+) 2>&1' (?:returned non-zero|died with)|^\s*log: (.+?) \(check log file", text, re.MULTILINE
    )
    found = [local or elsewhere for local, elsewhere in found]
    return list(dict.fromkeys(Path(name) for line in found for name in line.split(", ")))


def print_failures(workflow_logs: list[str]) -> None:
    """Print the end of every job log that Snakemake's own logs name as failed."""
    failed = [log for file in workflow_logs for log in failed_logs(Path(file).read_text())]
    for log in failed:
        # On a full disk the log could not be written either.
        if words := last_words(log) or disk.full(log.parent):
            print(f"\n{log}:\n{words}", file=sys.stderr)
