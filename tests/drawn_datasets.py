"""Datasets drawn in the exact formats of the published ones, with their real-world dirt: no real row, no real picture.

Each function fills `folder`; its docstring says what is good in it and what is not.
"""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image


def meme(path: Path, seed: int, size: int = 24) -> Path:
    """A small noisy picture; equal seeds give equal pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(path)
    return path


def json_lines(path: Path, records: list[dict | str]) -> None:
    """Records, or raw lines, as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n")


def delimited(path: Path, rows: list[list], separator: str = ",", encoding: str = "utf-8") -> None:
    """Rows as a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as handle:
        csv.writer(handle, delimiter=separator).writerows(rows)


def hateful_memes(folder: Path, integer_ids: bool = False) -> None:
    """Train 6 (2 hateful), dev_seen 3 and dev_unseen 3 with one id in common, test_seen 2.

    Dev holds a text of train in other case; train holds one text with both labels and one picture twice.
    """

    def record(number: int, label: int, text: str, picture: int | None = None) -> dict:
        name = f"img/{number:05d}.png"
        meme(folder / name, number if picture is None else picture)
        return {"id": number if integer_ids else f"{number:05d}", "img": name, "label": label, "text": text}

    train = [record(1000 + i, int(i in (1, 4)), f"caption {i}") for i in range(4)]
    train += [record(1004, 1, "zorps again"), record(1005, 0, "zorps again", picture=1000)]
    json_lines(folder / "train.jsonl", train)
    common = record(2000, 1, "ZORPS  again")
    json_lines(folder / "dev_seen.jsonl", [common, record(2001, 0, "b"), record(2002, 0, "c")])
    json_lines(folder / "dev_unseen.jsonl", [common, record(2003, 0, "d"), record(2004, 1, "e")])
    json_lines(folder / "test_seen.jsonl", [record(3000, 1, "f"), record(3001, 0, "g")])


def hateful_memes_fine(folder: Path) -> None:
    """Train 3 good rows, one with two gold labels and one with none; dev_seen 2."""

    def record(number: int, hate: list[str], categories: list[str], attacks: list[str]) -> dict:
        name = f"img/{number:05d}.png"
        meme(folder / name, number)
        gold = {"gold_hate": hate, "gold_pc": categories, "gold_attack": attacks}
        raw = {"pc": [categories, categories], "attack": [attacks]}
        return {"id": number, "set_name": "train", "img": name, "text": f"caption {number}"} | gold | raw

    empty = (["pc_empty"], ["attack_empty"])
    both = record(1, ["hateful"], ["religion", "nationality"], ["mocking"])
    train = [both, record(2, ["not_hateful"], *empty), record(3, ["hateful"], ["sex"], ["attack_empty"])]
    train += [record(4, ["hateful", "not_hateful"], *empty), record(5, [], *empty)]
    json_lines(folder / "train.json", train)
    json_lines(
        folder / "dev_seen.json", [record(10, ["hateful"], ["race"], ["mocking"]), record(11, ["not_hateful"], *empty)]
    )


def harmeme(folder: Path) -> None:
    """Train 5 good rows with odd label lists, one with an empty list; val and test 2 each."""

    def record(number: int, labels: object) -> dict:
        name = f"covid_memes_{number}"
        meme(folder / "images" / f"{name}.png", number)
        return {"id": name, "image": f"{name}.png", "labels": labels, "text": f"caption {number}"}

    harmful, odd = ["very harmful", "community"], ["somewhat harmful", "individual", "society"]
    train = [record(1, harmful), record(2, ["not harmful"]), record(3, odd), record(4, ["not harmful", "individual"])]
    json_lines(folder / "annotations/train.jsonl", [*train, record(5, ["organization"]), record(6, [])])
    json_lines(folder / "annotations/val.jsonl", [record(10, harmful), record(11, ["not harmful"])])
    json_lines(folder / "annotations/test.jsonl", [record(20, ["not harmful"]), record(21, harmful)])


def mami(folder: Path) -> None:
    """Train 3 good rows, one with quotes and a line break, and one short row; test 2 labelled apart, 1 unlabelled."""
    header = ["file_name", "misogynous", "shaming", "stereotype", "objectification", "violence", "Text Transcription"]
    train = [
        ["1.jpg", 1, 0, 1, 0, 1, 'they say "no"\nagain'],
        ["2.jpg", 0, 0, 0, 0, 0, "two"],
        ["3.jpg", 0, 0, 0, 0, 0, "3"],
    ]
    delimited(folder / "TRAINING/training.csv", [header, *train, ["4.jpg", 1]], "\t", "utf-8-sig")
    test = [["15001.jpg", "a"], ["15002.jpg", "b"], ["15003.jpg", "c"]]
    delimited(folder / "test/Test.csv", [["file_name", "Text Transcription"], *test], "\t")
    delimited(folder / "test_labels.txt", [["15001.jpg", 1, 1, 0, 0, 0], ["15002.jpg", 0, 0, 0, 0, 0]], "\t")
    for number in (1, 2, 3, 4):
        meme(folder / f"TRAINING/{number}.jpg", number)
    for name, *_ in test:
        meme(folder / "test" / name, int(name[:-4]))


def pridemm(folder: Path) -> None:
    """Train 3 good rows and one without label, val 2, test 2, in one file; targets are floats with gaps."""
    header = ["name", "text", "hate", "target", "stance", "humour", "split"]
    train = [["img_1.png", "None", 1, 2.0, 2, 0, "train"], ["img_2.png", "b, c", 0, "", 1, 1, "train"]]
    train += [["img_3.png", "é", 0, "", 0, 0, "train"], ["img_4.png", "d", "", "", 0, 0, "train"]]
    val = [["img_5.png", "e", 1, 1.0, 2, 0, "val"], ["img_6.png", "f", 0, "", 1, 0, "val"]]
    test = [["img_7.png", "g", 1, 0.0, 2, 0, "test"], ["img_8.png", "h", 0, "", 1, 0, "test"]]
    delimited(folder / "PrideMM.csv", [header, *train, *val, *test], encoding="cp1252")
    for name, *_ in train + val + test:
        meme(folder / "Images" / name, int(name[4:-4]))


def multioff(folder: Path) -> None:
    """Two good rows a split with the release's misspelt label; train also has a stray label and a text of two lines."""
    header = ["image_name", "sentence", "label"]
    names = {"Training": "abc", "Validation": "de", "Testing": "fg"}
    for split, letters in names.items():
        labels = ["offensive", "Non-offensiv", "offensve"]
        rows = [[f"{x}.png", f"two\nlines {x}", label] for x, label in zip(letters, labels, strict=False)]
        delimited(folder / "Split Dataset" / f"{split}_meme_dataset.csv", [header, *rows])
    for letter in "abcdefg":
        meme(folder / "Labelled Images" / f"{letter}.png", ord(letter))


def mmhs150k(folder: Path) -> None:
    """Train 2 good rows, one with two votes, one without its tweet; val and test 2 each; one text read off."""
    votes = {
        "11": [0, 1, 4],
        "12": [0, 0, 5],
        "13": [1, 2],
        "21": [3, 3, 0],
        "22": [0, 0, 0],
        "31": [5, 5, 5],
        "32": [0, 0, 2],
    }
    tweets = {name: {"labels": v, "tweet_text": f"tweet {name}", "tweet_url": ""} for name, v in votes.items()}
    json_lines(folder / "MMHS150K_GT.json", [tweets])
    json_lines(folder / "img_txt/11.json", [{"img_text": "ZORPS"}])
    splits = {"train": ["11", "12", "13", "14"], "val": ["21", "22"], "test": ["31", "32"]}
    for split, ids in splits.items():
        (folder / "splits").mkdir(exist_ok=True)
        (folder / "splits" / f"{split}_ids.txt").write_text("\n".join(ids))
    for name in votes:
        meme(folder / "img_resized" / f"{name}.jpg", int(name))


def table(folder: Path, ending: str) -> None:
    """Train 3 rows and test 2 in the user's own columns, as `ending`: .jsonl, .csv or .tsv; text labels."""
    columns = ["key", "file", "caption", "verdict", "about"]
    train = [
        ["a", "pics/a.png", "x", "bad", "zorps;blips"],
        ["b", "pics/b.png", "y", "good", ""],
        ["c", "pics/c.png", "z", "good", ""],
    ]
    test = [["d", "pics/d.png", "v", "bad", "zorps"], ["e", "pics/e.png", "w", "good", ""]]
    for split, rows in {"train": train, "test": test}.items():
        if ending == ".jsonl":
            records = [dict(zip(columns, row, strict=True)) for row in rows]
            json_lines(folder / f"{split}.jsonl", records)
        else:
            delimited(folder / f"{split}{ending}", [columns, *rows], "," if ending == ".csv" else "\t")
    for row in train + test:
        meme(folder / row[1], ord(row[0]))


def huggingface(folder: Path, layout: str) -> None:
    """Train and validation 3 rows each, class labels, as `layout`: disk (save_to_disk), parquet or binary columns."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    def column(start: int) -> list[bytes]:
        return [meme(folder.parent / "drawn" / f"{start + i}.png", start + i).read_bytes() for i in range(3)]

    features = {"id": datasets.Value("int64"), "image": datasets.Image(), "text": datasets.Value("string")}
    features["label"] = datasets.ClassLabel(names=["benign", "hateful"])
    raw = {"train": (column(1), [0, 1, 0]), "validation": (column(11), [1, 0, 0])}
    splits = {}
    for split, (pictures, labels) in raw.items():
        values = {"id": [1, 2, 3], "text": ["x", "y", None], "label": labels}
        if layout == "binary":
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(values | {"image": pictures}), folder / f"{split}.parquet")
            continue
        values["image"] = [{"bytes": picture, "path": None} for picture in pictures]
        splits[split] = datasets.Dataset.from_dict(values, features=datasets.Features(features))
    if layout == "disk":
        datasets.DatasetDict(splits).save_to_disk(folder)
    for split, part in splits.items() if layout == "parquet" else ():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        part.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
