"""Plotly's text on paper: its lines, and no font smaller than can be read or larger than the rest."""

import re

TOKEN = re.compile(r"<[^>]*>|[^<\s]+|\s+")


def seen(text: str) -> str:
    """What is seen of `text`: without tags, an entity as one letter."""
    return re.sub(r"&#?\w+;", "·", re.sub(r"<[^>]*>", "", text))


def wrapped(text: str, letters: int, between: str = " ") -> list[str]:
    """`text` in lines of at most `letters` letters where it has room for a break, which is at `between`.

    A tag that is open at a break is closed there and opened again.
    """
    parts = text.split(between) if between != " " else _words(text)
    lines: list[str] = []
    for part in parts:
        if lines and len(seen(f"{lines[-1]}{between}{part}")) <= letters:
            lines[-1] += between + part
        else:
            lines.append(part)
    return _closed(lines)


def _words(text: str) -> list[str]:
    words = [""]
    for token in TOKEN.findall(text):
        if token.isspace():
            words.append("")
        else:
            words[-1] += token
    return words


def _closed(lines: list[str]) -> list[str]:
    found, still = [], []
    for line in lines:
        start = "".join(still)
        for tag in re.findall(r"<[^>]*>", line):
            if tag.startswith("</"):
                still = still[:-1]
            elif not tag.startswith("<br"):
                still = [*still, tag]
        ends = "".join(f"</{re.split('[ >]', tag[1:])[0]}>" for tag in reversed(still))
        found.append(f"{start}{line}{ends}")
    return found


def fitted(part: object, smallest: float, largest: float, name: str = "") -> object:
    """A drawing, or a part of it, whose fonts all have sizes between `smallest` and `largest`."""
    if isinstance(part, list):
        return [fitted(each, smallest, largest, name) for each in part]
    if not isinstance(part, dict):
        return part
    made = {key: fitted(value, smallest, largest, key) for key, value in part.items()}
    if name.endswith("font") and isinstance(made.get("size"), int | float):
        made["size"] = min(max(made["size"], smallest), largest)
    return made
