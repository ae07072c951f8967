"""The whole step from a folder on disk to tables, and what it says of bad input."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import psutil
import pytest
from PIL import Image

import drawn_datasets
from memedynamics import images, intake, tables
from memedynamics.config import Dataset
from memedynamics.errors import InputError
from memedynamics.readers.common import Row

SCRIPTS = Path(__file__).parents[1] / "workflow/scripts"
OUTPUTS = ("train", "val", "test", "rejected", "quality")


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def prepare(source, out, name="memes", **settings):
    paths = {name: out / f"{name}.parquet" for name in OUTPUTS} | {"pictures": out / "pictures"}
    script("prepare_dataset")(name, source, **paths, **settings)
    kinds = dict(zip(OUTPUTS, ["data"] * 3 + ["rejected", "quality"], strict=True))
    return {name: tables.read(paths[name], kind) for name, kind in kinds.items()}


def hateful(folder, **settings):
    drawn_datasets.hateful_memes(folder)
    return Dataset(reader="hateful_memes", root=folder, **settings)


def statistics(found):
    return {(row["split"], row["statistic"]): row["value"] for row in found["quality"].iter_rows(named=True)}


def test_hateful_memes_end_to_end(tmp_path):
    found = prepare(hateful(tmp_path / "hm"), tmp_path)
    assert [len(found[split]) for split in ("train", "val", "test")] == [6, 3, 2] and found["rejected"].is_empty()
    first = found["train"].row(0, named=True)
    assert first["image"] == str(tmp_path / "hm/img/01000.png") and (first["width"], first["height"]) == (24, 24)
    with Image.open(first["image"]) as drawn:
        assert first["image_sha256"] == images.pixel_digest(drawn)
    assert list((tmp_path / "pictures").iterdir()) == []
    # The dirt that the drawing documents: one picture twice, one text with both labels, and again in val.
    counts = statistics(found)
    assert counts["train", "duplicate_images"] == counts["train", "texts_with_both_labels"] == 1
    assert counts["train+val", "shared_texts"] == 1 and counts["train+val", "shared_ids"] == 0
    rows = found["quality"].filter(split="train", statistic="rows")
    assert rows["expected"].item() == 8500


def test_ids_in_two_splits_are_kept_and_reported(tmp_path):
    source = hateful(tmp_path / "hm", splits={"train": "train", "val": "dev_seen", "test": "dev_unseen"})
    found = prepare(source, tmp_path)
    assert (len(found["val"]), len(found["test"])) == (3, 3) and statistics(found)["val+test", "shared_ids"] == 1


def test_only_the_configured_splits(tmp_path):
    found = prepare(hateful(tmp_path / "hm", splits={"test": "test_seen"}), tmp_path)
    assert [len(found[split]) for split in ("train", "val", "test")] == [0, 0, 2]


@pytest.mark.parametrize(
    ("name", "reader", "good", "bad"),
    [
        ("hateful_memes_fine", "hateful_memes_fine", [3, 2, 0], 2),
        ("harmeme", "harmeme", [5, 2, 2], 1),
        ("mami", "mami", [3, 0, 2], 2),
        ("pridemm", "pridemm", [3, 2, 2], 1),
        ("multioff", "multioff", [2, 2, 2], 1),
        ("mmhs150k", "mmhs150k", [2, 2, 2], 2),
    ],
)
def test_every_format_end_to_end(tmp_path, name, reader, good, bad):
    getattr(drawn_datasets, name)(tmp_path / "raw")
    if name == "multioff":
        drawn_datasets.meme(tmp_path / "raw/Labelled Images/c.png", 3)
    found = prepare(Dataset(reader=reader, root=tmp_path / "raw", max_bad_share=0.5), tmp_path)
    assert [len(found[split]) for split in ("train", "val", "test")] == good
    assert len(found["rejected"]) == bad and found["rejected"]["reason"].is_not_null().all()


def test_huggingface_pictures_are_stored(tmp_path):
    drawn_datasets.huggingface(tmp_path / "hub", "parquet")
    source = Dataset(reader="huggingface", root=tmp_path / "hub", splits={"train": "train", "val": "validation"})
    found = prepare(source, tmp_path)
    paths = [Path(path) for path in found["train"]["image"]]
    assert [path.parent for path in paths] == [tmp_path / "pictures"] * 3
    assert paths[0].read_bytes() == (tmp_path / "drawn/1.png").read_bytes()


def test_pictograms_end_to_end(tmp_path):
    found = prepare(Dataset(reader="pictograms", splits={"train": 8, "test": 4}), tmp_path)
    assert len(found["train"]) == 8 and found["train"]["groups"].list.len().min() == 1


def dirty(folder):
    """Twenty good rows and one of each bad picture; one of each picture that is made RGB."""
    records = []
    for number in range(20):
        drawn_datasets.meme(folder / f"img/{number:05d}.png", number)
        records.append({"id": number, "img": f"img/{number:05d}.png", "label": number % 2, "text": "x"})
    (folder / "img/empty.png").write_bytes(b"")
    (folder / "img/cut.png").write_bytes((folder / "img/00001.png").read_bytes()[:200])
    Image.new("CMYK", (8, 8)).save(folder / "img/cmyk.jpg")
    records += [
        {"id": 100 + i, "img": name, "label": 0, "text": "x"}
        for i, name in enumerate(["img/empty.png", "img/cut.png", "img/none.png", "../../x.png", "img/cmyk.jpg"])
    ]
    drawn_datasets.json_lines(folder / "train.jsonl", records + ["{broken", records[0]])
    return Dataset(reader="hateful_memes", root=folder, splits={"train": "train"}, max_bad_share=0.25)


def test_bad_rows_are_recorded_and_the_run_goes_on(tmp_path):
    found = prepare(dirty(tmp_path / "hm"), tmp_path)
    kinds = found["rejected"].select("row", pl.col("reason").str.split(":").list.first()).rows()
    assert kinds == [
        (21, "picture is empty (0 bytes)"),
        (22, "picture is truncated or damaged"),
        (23, "picture is missing"),
        (24, "picture lies outside the dataset's folder"),
        (26, "line is not a JSON object"),
        (27, "id occurs again in its split"),
    ]
    copied = found["train"].filter(id="00104")["image"].item()
    assert Path(copied).parent == tmp_path / "pictures"
    assert statistics(found)["train", "rejected: picture is missing"] == 1


def test_too_many_bad_rows_stop_with_count_and_examples_and_leave_nothing(tmp_path):
    source = dirty(tmp_path / "hm").model_copy(update={"max_bad_share": 0.2})
    with pytest.raises(InputError) as error:
        prepare(source, tmp_path / "out")
    assert re.search(
        r"6 of 27 rows are bad, more than max_bad_share 0.2 .*train.jsonl row 21: picture", str(error.value)
    )
    assert len(str(error.value).splitlines()) == 1 and list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "split test .test_seen. has no usable row"),
        ([1, 1, 1], "all 3 rows of split test .test_seen. have label 1"),
    ],
)
def test_an_empty_split_and_one_of_one_class_stop(tmp_path, labels, message):
    source = hateful(tmp_path / "hm")
    records = [{"id": i, "img": "img/01000.png", "label": label, "text": ""} for i, label in enumerate(labels)]
    drawn_datasets.json_lines(tmp_path / "hm/test_seen.jsonl", records)
    with pytest.raises(InputError, match=message):
        prepare(source, tmp_path / "out")


def test_the_result_does_not_depend_on_the_number_of_processes(tmp_path):
    source = dirty(tmp_path / "hm")
    one = prepare(source, tmp_path / "1")
    three = prepare(source, tmp_path / "3", threads=3)
    moved = pl.col("image").str.replace("/3/pictures", "/1/pictures")
    assert one["train"].equals(three["train"].with_columns(moved)) and one["rejected"].equals(three["rejected"])


def test_a_limit_keeps_the_balance_and_nothing_is_expected(tmp_path):
    """Of 24 rows with a picture to look at, 10 are hateful: of 8, three (8 × 10/24 = 3.3). One of the 8 is bad."""
    found = prepare(dirty(tmp_path / "hm"), tmp_path, limit=8)
    looked_at = found["rejected"].filter(pl.col("reason").str.contains("empty|damaged|missing"))
    assert len(found["train"]) + len(looked_at) == 8 and found["train"]["label"].sum() == 3
    assert found["train"]["id"].is_sorted()
    assert found["quality"]["expected"].is_null().all()


def good_rows(labels):
    return [Row("train", Path("f"), i, str(i), Path("x"), "", label) for i, label in enumerate(labels)]


def kept(rows, limit):
    return [row for row in intake.limited(rows, limit) if row.image is not None]


def test_limited_choice():
    rows = good_rows([0] * 97 + [1] * 3)
    chosen = kept(rows, 10)
    assert sum(row.label for row in chosen) == 1 and len(chosen) == 10  # at least one of each label
    assert chosen == kept(rows, 10) and set(chosen) < set(kept(rows, 20))
    assert intake.limited(rows, 100) == rows and len(kept(rows[:97], 5)) == 5
    # Bad rows and those left out stay in the list: the share of bad rows is one of the whole source.
    bad = rows[50]._replace(reason="bad", image=None)
    mixed = intake.limited([*rows[:50], bad, *rows[51:]], 10)
    assert len(mixed) == 100 and mixed[50] == bad and [row.number for row in mixed] == list(range(100))


def test_the_job_prints_one_line_and_fails(tmp_path):
    """Through the job interface, as the rule runs it."""
    outputs = {name: str(tmp_path / f"{name}.parquet") for name in OUTPUTS} | {"pictures": str(tmp_path / "pictures")}
    source = {"reader": "harmeme", "root": str(tmp_path / "nowhere")}
    job = {"rule": "prepare_dataset", "study": "s", "input": {}, "output": outputs, "wildcards": {"dataset": "memes"}}
    job |= {"cfg": {"source": source, "limit": None}, "threads": 1, "gpu": 0, "code": "", "digest": ""}
    job |= {"work": str(tmp_path / "work"), "root": str(tmp_path / "results")}
    done = subprocess.run(
        [sys.executable, SCRIPTS / "prepare_dataset.py", json.dumps(job)],
        env={"PYTHONPATH": str(SCRIPTS.parent), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    expected = f"error: {tmp_path}/nowhere: no such folder; set datasets.<name>.root to where harmeme lies"
    assert done.stderr.splitlines()[-1] == expected
    assert not list(tmp_path.glob("*.parquet")) and not (tmp_path / "pictures").exists()


def test_print_data_says_what_is_there_and_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(hateful(tmp_path / "hm"), tmp_path / "a")
    prepare(dirty(Path("dirty")), tmp_path / "b", name="others")
    tables_of = [[tmp_path / folder / f"{name}.parquet" for folder in "ab"] for name in ("quality", "rejected")]
    with pytest.raises(InputError, match="not found: datasets.third: data/third; put the files there"):
        script("print_data")(*tables_of, {"third": ["data/third"]})
    printed = capsys.readouterr().out
    assert re.search(r"memes +│ train +│ +6 \(8500\) +│ +8494 +│ +2 \(3019\) +│ +33.3%", printed)
    assert re.search(r"others +│ train +│ picture is missing +│ dirty/train.jsonl row 23: dirty/img/none.png", printed)


OPENS = """
import os, time
from memedynamics import intake
with intake.pool(2) as workers:
    print(*{workers.submit(os.getpid).result() for _ in range(20)}, flush=True)
    time.sleep(60)
"""


def test_processes_end_with_a_job_that_is_killed():
    """They would wait for work forever."""
    path = {**os.environ, "PYTHONPATH": str(Path(intake.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", OPENS], env=path, stdout=subprocess.PIPE, text=True) as opened:
        found = [psutil.Process(int(number)) for number in opened.stdout.readline().split()]
        found += [process.parent() for process in found]  # what they were forked from
        opened.kill()
    assert len(found) >= 2 and psutil.wait_procs(found, 20)[1] == []
