"""MAMI (SemEval-2022 task 5, Fersini et al.): tab-separated tables; the test labels come apart, without a header.

`groups` holds the kinds of misogyny (shaming, stereotype, objectification, violence) behind `attack:`.
"""

from collections.abc import Iterator
from pathlib import Path

from memedynamics.config import Dataset
from memedynamics.readers.common import Row, count_lines, delimited, first_existing, parse, picture

SPLITS = {"train": "training.csv", "test": "Test.csv"}
PUBLISHED = {"training.csv": (10000, 5000), "Test.csv": (1000, 500)}
KINDS = ["shaming", "stereotype", "objectification", "violence"]
LABEL_FILE = ["file_name", "misogynous", *KINDS]
FOLDERS = ["", "images", "training_images", "test_images"]


def files(source: Dataset, name: str) -> list[Path]:
    """The table of split `name`, and the file with its labels where the table has none."""
    table = first_existing(source.root, name, f"TRAINING/{name}", f"training/{name}", f"test/{name}")
    labels = first_existing(source.root, "test_labels.txt", "test/test_labels.txt")
    return [table, labels] if Path(name).stem.lower() == "test" and not _labelled(table) else [table]


def _labelled(table: Path) -> bool:
    return table.is_file() and b"misogynous" in table.open("rb").readline()


def count(source: Dataset, name: str) -> int | None:
    """Rows of split `name`, unread."""
    lines = count_lines(files(source, name)[0])
    return None if lines is None else lines - 1


def rows(source: Dataset, split: str, name: str) -> Iterator[Row]:
    """The raw rows of split `name`."""
    path, *apart = files(source, name)
    labels = _labels(apart[0]) if apart else {}
    folders = [str((path.parent / folder).relative_to(source.root)) for folder in FOLDERS]

    def read(record: dict) -> dict[str, object]:
        record = record | labels.get(record["file_name"], {})
        return {
            "id": record["file_name"],
            "image": picture(source.root, record["file_name"], *folders, *FOLDERS),
            "text": record["Text Transcription"],
            "label": record["misogynous"],
            "groups": tuple(f"attack:{kind}" for kind in KINDS if record.get(kind) == "1"),
        }

    columns = ["file_name", "Text Transcription", *([] if apart else ["misogynous"])]
    return parse(split, path, delimited(path, "\t", columns), read, "file_name")


def _labels(path: Path) -> dict[str, dict]:
    records = delimited(path, "\t", names=LABEL_FILE)
    return {record["file_name"]: record for _, record in records if isinstance(record, dict)}
