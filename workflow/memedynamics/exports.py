"""The preference pairs and the SFT set in the files that other trainers read."""

import json
import os
from pathlib import Path

import polars as pl

# LLaMA-Factory's sharegpt columns; its default tags are from/value and human/gpt.
_COLUMNS = {"messages": "conversations", "images": "images"}
_DATASETS = {
    "preferences": {
        "file_name": "preferences.json",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": _COLUMNS | {"chosen": "chosen", "rejected": "rejected"},
    },
    "sft": {"file_name": "sft.json", "formatting": "sharegpt", "columns": _COLUMNS},
}


def write_trl(preferences: pl.DataFrame, path: Path) -> None:
    """One JSON object a line, as TRL's DPOTrainer takes it: conversational prompt, chosen, rejected, and `images`.

    `preferences` carries the column `image` of the data; paths stay as they are there. For SFT read `chosen` as
    `completion`.
    """
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
            "images": [row["image"]],
        }
        for row in preferences.iter_rows(named=True)
    ]
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_llamafactory(preferences: pl.DataFrame, folder: Path, picture: str = "<image>") -> None:
    """A folder for LLaMA-Factory's `dataset_dir`: datasets `preferences` (DPO) and `sft` in sharegpt format.

    `preferences` carries the column `image` of the data; paths are relative to `folder`, which is where
    LLaMA-Factory looks unless `media_dir` says otherwise. `picture` holds a picture's place (its IMAGE_PLACEHOLDER).
    """
    rows = [row | {"prompt": picture + row["prompt"]} for row in preferences.iter_rows(named=True)]
    pairs = [_asked(row, folder) | {"chosen": _said(row["chosen"]), "rejected": _said(row["rejected"])} for row in rows]
    sft = [_asked(row, folder, _said(row["chosen"])) for row in rows]
    for name, content in (("preferences", pairs), ("sft", sft), ("dataset_info", _DATASETS)):
        _write(Path(folder) / f"{name}.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _asked(row: dict, folder: Path, *reply: dict) -> dict:
    human = {"from": "human", "value": row["prompt"]}
    return {"conversations": [human, *reply], "images": [os.path.relpath(row["image"], folder)]}


def _said(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def _write(path: Path, content: str) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)
