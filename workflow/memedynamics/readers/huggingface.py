"""A Hugging Face dataset with an image column: from the hub, from `save_to_disk`, or a folder of Parquet files.

Hub datasets are fetched by `fetch` while there is a network; jobs then read the cache.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from memedynamics.config import Dataset
from memedynamics.errors import InputError
from memedynamics.readers.common import Rejected, Row, parse
from memedynamics.readers.table import columns_of, labelled, listed

if TYPE_CHECKING:
    import datasets

SPLITS = {"train": "train", "val": "validation", "test": "test"}
PUBLISHED: dict[str, tuple[int, int | None]] = {}


def files(source: Dataset, name: str) -> list[Path]:
    """The local files of the whole dataset: which of them hold a split, the datasets library works out."""
    if source.root is None:
        return []
    return sorted(p for p in source.root.rglob("*") if p.suffix in (".arrow", ".parquet", ".json", ".jsonl", ".csv"))


def count(source: Dataset, name: str) -> int | None:
    """Unknown before reading."""
    return None


def fetch(source: Dataset) -> None:
    """Download the dataset into the hub's cache; needs a network."""
    import datasets

    datasets.load_dataset(source.hub_id, revision=source.revision, cache_dir=_prepared(source))


def rows(source: Dataset, split: str, name: str) -> Iterator[Row]:
    """The raw rows of split `name`; pictures are encoded bytes, or paths where the dataset refers to files."""
    import datasets

    table, columns = _opened(source, name), columns_of(source)
    for column in (columns[key] for key in ("id", "image", "text", "label")):
        if column not in (table.features or {}):
            found = ", ".join(table.features or {})
            raise InputError(
                f"{_where(source)}: no column {column!r}, only {found}; map it under datasets.<name>.columns"
            )
    names = getattr(table.features[columns["label"]], "names", None)
    table = table.cast_column(columns["image"], datasets.Image(decode=False))

    def read(record: dict) -> dict[str, object]:
        return {
            "id": record[columns["id"]],
            "image": _image(record[columns["image"]], source),
            "text": record[columns["text"]],
            "label": _label(record[columns["label"]], names, source),
            "groups": listed(record.get(columns["groups"])),
        }

    return parse(split, Path(_where(source)) / name, enumerate(table, 1), read, columns["id"])


def _prepared(source: Dataset) -> Path:
    """Where the datasets library keeps this revision: without a network it takes the latest one in a folder, any."""
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE, "revisions", source.revision)


def _where(source: Dataset) -> str:
    return str(source.root or source.hub_id)


def _opened(source: Dataset, name: str) -> "datasets.Dataset | datasets.IterableDataset":
    import datasets

    try:
        if source.root is None:
            cache = _prepared(source)
            return datasets.load_dataset(source.hub_id, revision=source.revision, split=name, cache_dir=cache)
        if (source.root / "dataset_dict.json").exists() or (source.root / name / "state.json").exists():
            return datasets.load_from_disk(source.root / name)
        # Streaming reads Parquet as it lies, without a second copy in the user's cache.
        return datasets.load_dataset(str(source.root), split=name, streaming=True)
    except Exception as error:  # the library raises a dozen types for an absent or unreadable dataset
        hint = "run the target prefetch once with a network" if source.root is None else "check root and splits"
        raise InputError(f"{_where(source)}: cannot read split {name!r} ({_one_line(error)}); {hint}") from error


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _image(value: object, source: Dataset) -> Path | bytes | None:
    if not isinstance(value, dict):
        raise Rejected("no picture named")
    if value["bytes"] is None and value["path"]:
        # The gate admits paths inside a dataset's folder; the hub's caches lie outside any, hence bytes.
        return Path(value["path"]) if source.root else _cached(Path(value["path"]))
    return value["bytes"]


def _cached(path: Path) -> bytes:
    """The bytes of a picture that the hub's client fetched; a dataset cannot name any other file of this machine."""
    import datasets
    from huggingface_hub import constants

    folders = (constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH)
    try:
        # Resolving undoes `..` and follows symbolic links: neither leads out.
        inside = path.is_absolute() and any(path.resolve().is_relative_to(Path(f).resolve()) for f in folders)
        if inside:
            return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        raise Rejected(f"picture cannot be read: {path} ({_one_line(error)})") from error
    raise Rejected(f"picture lies outside the hub's cache: {path}")


def _label(value: object, names: list[str] | None, source: Dataset) -> object:
    """Class labels may be configured by number or by name."""
    if names and isinstance(value, int) and 0 <= value < len(names) and names[value] in source.labels:
        value = names[value]
    return labelled(source, value)
