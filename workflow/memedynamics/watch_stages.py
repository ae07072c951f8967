"""The stages of a study: each file of rules is one, and its rules are that stage's."""

import re
from pathlib import Path

INCLUDE = re.compile(r'^include: "rules/(\w+)\.smk"$', re.MULTILINE)
RULE = re.compile(r"^(?:rule (\w+)|use rule \w+ as (\w+) with):\n((?: {4}.*\n|\n)*)", re.MULTILINE)


def stages(project: Path) -> dict[str, str]:
    """The stage of every rule of the Snakefile in `project` that does something, in the order of its includes.

    A rule that only collects, as `figures` does, has no command and is left out.
    """
    found = {}
    for stage in INCLUDE.findall((project / "Snakefile").read_text()):
        for rule, derived, body in RULE.findall((project / f"rules/{stage}.smk").read_text()):
            if derived or "    shell:\n" in body:
                found[rule or derived] = stage
    return found
