"""Snakemake's own log of a run, read on as it grows: how many jobs of each rule, which began, ended and failed.

With `--quiet rules`, as `make demo` has it, the log has no blocks of begun and failed jobs: a failed one then shows in
the command that Snakemake quotes, which holds the job's JSON argument (module `job`).
"""

import re
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from memedynamics.watch_told import Told

STAMP = re.compile(r"\[(\w{3} \w{3} [ \d]\d [\d:]{8} \d{4})\]")
BEGUN = re.compile(r"(?:local)?(?:rule|checkpoint) \w+:")
ERROR = re.compile(r"Error in rule (\w+):")
COMMAND = re.compile(r"Command '(.*)' (?:returned non-zero|died with)")
FINISHED = re.compile(r"Finished jobid: (\d+) \(Rule: (\w+)\)")
AGAIN = re.compile(r"Trying to restart job (\d+)\.")
GAVE_UP = re.compile(r"Exiting because a job execution failed|At least one job did not complete")
HEADER, ROW = re.compile(r"job +count"), re.compile(r"(\w+) +(\d+)")

# A log, however long, has few lines that say something: the others are passed over by their first word.
SAYS = {"Finished", "rule", "localrule", "checkpoint", "localcheckpoint", "Error", "Command", "Trying", "job"}
ENDS = {"Logfile", "Terminating", "Complete", "Exiting", "At"}
FRAME = "?"  # a failed job's own log, which may say anything, comes next if a line of equals signs does
TAIL = 4096  # bytes before what is new, by which a log is known again


class Follower:
    """Reads the log at `path`, and at every later time only what was added; one that was replaced it reads anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start()

    def _start(self) -> None:
        self.reader, self.offset, self.tail = Reader(), 0, b""

    def told(self) -> Told:
        """What the log says by now, up to its last whole line; raises OSError where it cannot be read."""
        with self.path.open("rb") as file:
            file.seek(self.offset - len(self.tail))
            if file.read(len(self.tail)) != self.tail:
                self._start()
                file.seek(0)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self.offset, self.tail = self.offset + len(new), (self.tail + new[-TAIL:])[-TAIL:]
        self.reader.take(new.decode(errors="replace"))
        return self.reader.told()


class Reader:
    """Folds a log, piece by piece, into what it says."""

    def __init__(self) -> None:
        self.known, self.planning, self.stamp = Told(), False, ""
        self.head, self.block = "", []  # a job's block, to which lines may come yet
        self.frame = ""  # FRAME, or the line of equals signs that ends a failed job's own log

    def take(self, text: str) -> None:
        """Read on: `text` is whole lines."""
        before = self.stamp
        for line in text.split("\n")[:-1]:
            if self.frame and self._framed(line):
                continue
            if line.startswith("    "):
                if self.head:
                    self.block.append(line)
                continue
            if self.head:
                _close(self.known, self.head, self.block)
                self.head, self.block = "", []
            self._line(line)
        if self.stamp != before:
            with suppress(ValueError):
                self.known.heard = time.mktime(time.strptime(self.stamp))

    def told(self) -> Told:
        """What is known by now; a failed job's block, after which Snakemake may be silent for hours, as it stands."""
        if not ERROR.fullmatch(self.head):
            return self.known
        told = replace(self.known, failed={log: replace(failed) for log, failed in self.known.failed.items()})
        _close(told, self.head, self.block)
        return told

    def _framed(self, line: str) -> bool:
        """Whether `line` is of a failed job's own log, which stands between two equal lines."""
        if self.frame == FRAME:
            self.frame = "" if line.strip("=") else line
            return bool(self.frame)
        if line == self.frame:
            self.frame = ""
        return True

    def _line(self, line: str) -> None:
        word = line.partition(" ")[0]
        if word in ENDS:
            self._end(line)
        elif self.planning:
            self._plan(line)
        elif self.known.interrupted:  # whoever interrupts a run kills its jobs: none of them failed by itself
            return
        elif word in SAYS:
            self._event(line)
        elif word[:1] == "[" and (found := STAMP.fullmatch(line)):
            self.stamp = found[1]

    def _end(self, line: str) -> None:
        if line.startswith("Logfile ") and line.endswith(":"):
            self.frame = FRAME
        elif line.startswith("Terminating processes on user request"):
            self.known.interrupted = True
        elif line.startswith("Complete log(s): "):
            self.known.ended = True
        elif GAVE_UP.match(line):
            self.known.gave_up = True

    def _plan(self, line: str) -> None:
        """A line of the table of jobs, which ends with their total."""
        found = ROW.fullmatch(line)
        self.planning = not line.startswith("total") and (found is not None or line.startswith("-"))
        if self.planning and found:
            self.known.jobs[found[1]] = int(found[2])

    def _event(self, line: str) -> None:
        if found := FINISHED.match(line):
            self.known.finished.setdefault(found[2], set()).add(found[1])
        elif BEGUN.fullmatch(line) or ERROR.fullmatch(line):
            self.head = line
        elif found := COMMAND.match(line):
            self.known.command(found[1])
        elif found := AGAIN.match(line):
            self.known.again(found[1])
        elif HEADER.fullmatch(line) and not self.known.jobs:
            self.planning = True


def _close(told: Told, head: str, block: list[str]) -> None:
    """Add to `told` what a job's block says."""
    found, text = ERROR.fullmatch(head), "\n".join(block)
    told.error(found[1], text) if found else told.begun(text)
