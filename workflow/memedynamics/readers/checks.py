"""The gate: every row of every reader passes here once, and nothing behind it checks again."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from memedynamics.readers.common import Rejected, Row

LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def checked(rows: Iterable[Row], root: Path) -> Iterator[Row]:
    """`rows` with id a string, label 0 or 1 and image a path inside `root` (or bytes), else with a reason.

    Of several good rows with one id the first is kept.
    """
    seen: set[object] = set()
    root = root.resolve()
    for row in rows:
        if row.reason is None:
            row = _checked(row, root)
        if row.reason is None and row.id in seen:
            row = row._replace(reason=f"id occurs again in its split: {row.id}")
        if row.reason is None:
            seen.add(row.id)
        yield row


def _checked(row: Row, root: Path) -> Row:
    try:
        return row._replace(
            id=_id(row.id),
            text=_text(row.text),
            label=_label(row.label),
            image=_inside(row.image, root),
            groups=tuple(dict.fromkeys(str(group) for group in row.groups)),
        )
    except Rejected as error:
        return row._replace(reason=str(error))


def _id(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise Rejected(f"id is neither text nor an integer: {value!r}")
    return str(value).strip()


def _text(value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise Rejected(f"text is not a string: {value!r}")
    return value or ""


def _label(value: object) -> int:
    known = LABELS.get(str(value).strip().lower())
    if known is None:
        raise Rejected(f"label is neither 0 nor 1: {value!r}")
    return known


def _inside(image: Path | bytes | None, root: Path) -> Path | bytes:
    if not isinstance(image, Path):
        if not image:
            raise Rejected("picture is empty (0 bytes)")
        return image
    try:
        # Resolving undoes `..` and follows symbolic links: neither leads out.
        inside = image.resolve().is_relative_to(root)
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside:
        raise Rejected(f"picture lies outside the dataset's folder: {image}")
    return image
