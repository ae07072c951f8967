"""Readers on datasets drawn in each format, with its dirt: what is read, what is rejected and why."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import drawn_datasets
from memedynamics import readers
from memedynamics.config import Dataset
from memedynamics.errors import InputError
from memedynamics.readers.checks import checked


def read(source, split="train", pictures=None):
    """(good rows, reasons of the bad ones) behind the gate."""
    found = list(checked(readers.rows(source, split, pictures), source.root or pictures))
    return [row for row in found if row.reason is None], [(row.number, row.reason) for row in found if row.reason]


def labels(good):
    return {row.id: row.label for row in good}


def groups(good):
    return {row.id: row.groups for row in good}


@pytest.mark.parametrize("integer_ids", [False, True])
def test_hateful_memes(tmp_path, integer_ids):
    drawn_datasets.hateful_memes(tmp_path, integer_ids)
    source = Dataset(reader="hateful_memes", root=tmp_path)
    good, bad = read(source)
    assert not bad
    assert labels(good) == {"01000": 0, "01001": 1, "01002": 0, "01003": 0, "01004": 1, "01005": 0}
    assert good[0].image == tmp_path / "img/01000.png" and good[0].text == "caption 0"
    assert readers.expected_rows(source) == {"train": 6, "val": 3, "test": 2}
    assert readers.source_files(source) == [tmp_path / f"{n}.jsonl" for n in ("train", "dev_seen", "test_seen")]


def test_hateful_memes_other_splits(tmp_path):
    drawn_datasets.hateful_memes(tmp_path)
    source = Dataset(reader="hateful_memes", root=tmp_path, splits={"val": "dev_unseen", "test": "dev_seen.jsonl"})
    assert [row.id for row in read(source, "val")[0]] == ["02000", "02003", "02004"]
    assert readers.published(source) == {"val": (540, 199), "test": (500, 247)}


def test_hateful_memes_fine(tmp_path):
    drawn_datasets.hateful_memes_fine(tmp_path)
    good, bad = read(Dataset(reader="hateful_memes_fine", root=tmp_path))
    assert labels(good) == {"00001": 1, "00002": 0, "00003": 1}
    assert groups(good) == {"00001": ("religion", "nationality", "attack:mocking"), "00002": (), "00003": ("sex",)}
    assert [number for number, _ in bad] == [4, 5] and all("label is neither" in reason for _, reason in bad)


def test_harmeme_is_harmful_unless_a_label_says_not(tmp_path):
    drawn_datasets.harmeme(tmp_path)
    source = Dataset(reader="harmeme", root=tmp_path)
    good, bad = read(source)
    assert list(labels(good).values()) == [1, 0, 1, 0, 1]
    assert list(groups(good).values()) == [
        ("community",),
        (),
        ("individual", "society"),
        ("individual",),
        ("organization",),
    ]
    assert bad == [(6, "labels are empty")]
    assert readers.expected_rows(source) == {"train": 6, "val": 2, "test": 2}


def test_mami_reads_quotes_and_labels_that_come_apart(tmp_path):
    drawn_datasets.mami(tmp_path)
    source = Dataset(reader="mami", root=tmp_path)
    good, bad = read(source)
    assert labels(good) == {"1.jpg": 1, "2.jpg": 0, "3.jpg": 0}
    assert good[0].text == 'they say "no"\nagain' and good[0].groups == ("attack:stereotype", "attack:violence")
    assert bad == [(5, "row has too many or too few columns")]
    good, bad = read(source, "test")
    assert labels(good) == {"15001.jpg": 1, "15002.jpg": 0}
    assert bad == [(4, "no field 'misogynous'")]
    assert [path.name for path in readers.source_files(source)] == ["training.csv", "Test.csv", "test_labels.txt"]


def test_pridemm_splits_one_table(tmp_path):
    drawn_datasets.pridemm(tmp_path)
    source = Dataset(reader="pridemm", root=tmp_path)
    good, bad = read(source)
    assert labels(good) == {"img_1.png": 1, "img_2.png": 0, "img_3.png": 0}
    assert [row.text for row in good] == ["None", "b, c", "é"] and good[0].groups == ("community",)
    assert bad == [(5, "label is neither 0 nor 1: ''")]
    assert groups(read(source, "test")[0]) == {"img_7.png": ("undirected",), "img_8.png": ()}
    assert readers.expected_rows(source) == {"train": 4, "val": 2, "test": 2}


def test_multioff_reads_its_misspelt_label(tmp_path):
    drawn_datasets.multioff(tmp_path)
    source = Dataset(reader="multioff", root=tmp_path)
    good, bad = read(source)
    assert labels(good) == {"a.png": 1, "b.png": 0}
    assert bad == [(4, "label is neither offensive nor Non-offensiv: 'offensve'")]
    assert readers.expected_rows(source) == {"train": 3, "val": 2, "test": 2}


def test_mmhs150k_votes(tmp_path):
    """[0, 1, 4]: two of three are hateful, on race and religion; [0, 0, 5]: one of three, benign."""
    drawn_datasets.mmhs150k(tmp_path)
    source = Dataset(reader="mmhs150k", root=tmp_path)
    good, bad = read(source)
    assert labels(good) == {"11": 1, "12": 0} and groups(good) == {"11": ("race", "religion"), "12": ()}
    assert [row.text for row in good] == ["tweet 11\nZORPS", "tweet 12"]
    assert bad == [(3, "labels are not three of 0 to 5: [1, 2]"), (4, "id is not in MMHS150K_GT.json: 14")]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv"])
def test_table(tmp_path, ending):
    drawn_datasets.table(tmp_path, ending)
    columns = {"id": "key", "image": "file", "text": "caption", "label": "verdict", "groups": "about"}
    given = {"reader": "table", "root": tmp_path, "columns": columns, "splits": {"train": "train", "test": "test"}}
    source = Dataset(**given, labels={"bad": 1, "good": 0})
    good, bad = read(source)
    assert not bad and labels(good) == {"a": 1, "b": 0, "c": 0} and groups(good)["a"] == ("zorps", "blips")
    assert readers.expected_rows(source) == {"train": 3, "test": 2}
    good, bad = read(Dataset(**given, labels={"bad": 1}))
    assert labels(good) == {"a": 1} and bad[0][1] == "label is not among the configured labels: 'good'"


@pytest.mark.parametrize("layout", ["disk", "parquet", "binary"])
def test_huggingface(tmp_path, layout):
    drawn_datasets.huggingface(tmp_path / "hub", layout)
    source = Dataset(reader="huggingface", root=tmp_path / "hub", splits={"train": "train", "val": "validation"})
    good, bad = read(source)
    assert not bad and labels(good) == {"1": 0, "2": 1, "3": 0} and good[2].text == ""
    assert good[0].image == (tmp_path / "drawn/1.png").read_bytes()
    assert labels(read(source, "val")[0]) == {"1": 1, "2": 0, "3": 0}


def test_huggingface_class_labels_by_name(tmp_path):
    drawn_datasets.huggingface(tmp_path / "hub", "disk")
    source = Dataset(reader="huggingface", root=tmp_path / "hub", labels={"benign": 1, "hateful": 0})
    assert labels(read(source)[0]) == {"1": 1, "2": 0, "3": 1}


def test_huggingface_errors_are_one_line(tmp_path):
    drawn_datasets.huggingface(tmp_path / "hub", "parquet")
    source = Dataset(reader="huggingface", root=tmp_path / "hub", splits={"test": "nope"})
    with pytest.raises(InputError, match="cannot read split 'nope'"):
        read(source, "test")
    source = Dataset(reader="huggingface", root=tmp_path / "hub", columns={"text": "caption"})
    with pytest.raises(InputError, match="no column 'caption', only id, .*; map it under"):
        read(source)
    hub = Dataset(reader="huggingface", hub_id="nobody/nothing", revision="0" * 40)
    code = (
        "from memedynamics import readers; from memedynamics.config import Dataset; from pathlib import Path\n"
        f"list(readers.rows(Dataset.model_validate({hub.model_dump()!r}), 'train', Path('.')))"
    )
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONPATH": "workflow"}
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True)
    assert "InputError: nobody/nothing: cannot read split 'train'" in done.stderr.splitlines()[-1]
    assert "target prefetch" in done.stderr.splitlines()[-1]


class DatasetHub(BaseHTTPRequestHandler):
    """As much of the hub as a dataset's download needs: org/memes at two commits, the files of each in its folder."""

    folder: Path

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_POST(self):
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        paths = json.loads(asked)["paths"] if asked.startswith("{") else parse_qs(asked)["paths"]
        self.answer(json.dumps([entry for entry in self.entries() if entry["path"] in paths]).encode())

    def do_GET(self, body=True):
        path, files = urlsplit(self.path).path, {entry["path"] for entry in self.entries() if entry["type"] == "file"}
        name = path.partition(f"/resolve/{self.commit()}/")[2]
        if "/tree/" in path:
            below = Path(path.partition(f"/tree/{self.commit()}")[2].strip("/"))
            found = [e for e in self.entries() if below in Path(e["path"]).parents]
            direct = [e for e in found if Path(e["path"]).parent == below]
            self.answer(json.dumps(found if "recursive=true" in self.path.lower() else direct).encode(), body)
        elif path.startswith("/api/datasets/org/memes/revision/"):
            siblings = [{"rfilename": name} for name in sorted(files)]
            self.answer(json.dumps({"id": "org/memes", "sha": self.commit(), "siblings": siblings}).encode(), body)
        elif name in files:
            self.answer((self.folder / self.commit() / name).read_bytes(), body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def commit(self):
        return next((name for name in COMMITS if name in self.path), COMMITS[0])

    def entries(self):
        root = self.folder / self.commit()
        kinds = {True: {"type": "file", "oid": "0"}, False: {"type": "directory", "oid": "0"}}
        found = [(path, path.is_file()) for path in sorted(root.rglob("*"))]
        return [kinds[f] | {"path": str(p.relative_to(root)), "size": p.stat().st_size * f} for p, f in found]

    def answer(self, content, body=True):
        self.send_response(200)
        etag = hashlib.sha256(content).hexdigest()
        headers = {"Content-Length": len(content), "ETag": f'"{etag}"', "X-Repo-Commit": self.commit()}
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


COMMITS = ["1" * 40, "2" * 40]
FROM_HUB = """
import sys
from pathlib import Path
from memedynamics import readers
from memedynamics.config import Dataset
from memedynamics.readers import huggingface
from memedynamics.readers.checks import checked
source = Dataset(reader="huggingface", hub_id="org/memes", revision=sys.argv[2])
if sys.argv[1] == "fetch":
    huggingface.fetch(source)
else:
    for row in checked(readers.rows(source, "train", Path(".")), Path(".")):
        print(row.id, row.label, row.reason or row.image.hex())
"""


@pytest.fixture
def from_hub(tmp_path):
    """Runs FROM_HUB in a process of its own, with or without its network: a hub on this machine."""
    handler = type("Handler", (DatasetHub,), {"folder": tmp_path / "repository"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    base |= {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": "workflow", "HF_HUB_DISABLE_TELEMETRY": "1"}
    base |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}

    def run(what, commit, offline):
        environment = base | {"HF_HUB_OFFLINE": str(int(offline))}
        command = [sys.executable, "-c", FROM_HUB, what, commit]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    yield run
    server.shutdown()


def test_hub_datasets_need_no_network_later_and_keep_their_revision(tmp_path, from_hub):
    """Both revisions are fetched, in either order; each is then read as it was."""
    pictures = [drawn_datasets.meme(tmp_path / f"{n}.png", n).read_bytes() for n in (1, 2)]
    secret = tmp_path / "secret.png"
    secret.write_bytes(pictures[0])
    for commit, picture in zip(COMMITS, pictures, strict=True):
        images = [{"bytes": picture, "path": None}, {"bytes": None, "path": str(secret)}]
        images += [{"bytes": None, "path": path} for path in ("secret.png", f"{tmp_path}/home/hub/absent.png")]
        images += [{"bytes": None, "path": f"{tmp_path}/home/hub/../../secret.png"}]
        column = pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
        table = pa.table({"id": list(range(5)), "image": column, "text": ["x"] * 5, "label": [0, 1, 0, 1, 0]})
        (tmp_path / "repository" / commit / "data").mkdir(parents=True)
        pq.write_table(table, tmp_path / "repository" / commit / "data/train-00000-of-00001.parquet")
    for commit in reversed(COMMITS):
        from_hub("fetch", commit, offline=False)
    for commit, picture in zip(COMMITS, pictures, strict=True):
        good, outside, relative, absent, climbing = from_hub("rows", commit, offline=True)
        assert good == f"0 0 {picture.hex()}"
        assert outside.endswith(f"picture lies outside the hub's cache: {secret}") and "outside" in relative
        assert "picture cannot be read" in absent and "No such file" in absent and "outside" in climbing


def test_hub_datasets_of_picture_files(tmp_path, from_hub):
    """An image folder names files of the hub's cache, which are links into its blobs."""
    picture = drawn_datasets.meme(tmp_path / "repository" / COMMITS[0] / "train/1.png", 1)
    line = {"file_name": "1.png", "id": "a", "text": "x", "label": 1}
    (picture.parent / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    from_hub("fetch", COMMITS[0], offline=False)
    assert from_hub("rows", COMMITS[0], offline=True) == [f"a 1 {picture.read_bytes().hex()}"]


def test_pictograms(tmp_path):
    source = Dataset(reader="pictograms", splits={"train": 8, "test": 4})
    good, bad = read(source, "train", tmp_path)
    assert not bad and len(good) == 8 and {row.label for row in good} == {0, 1}
    assert all(row.image.is_file() for row in good)
    assert readers.expected_rows(source) == {"train": 8, "test": 4} and readers.source_files(source) == []


def hateful(folder, lines):
    """A Hateful Memes folder whose train.jsonl holds `lines`; picture img/1.png is there."""
    drawn_datasets.meme(folder / "img/1.png", 1)
    drawn_datasets.json_lines(folder / "train.jsonl", lines)
    return Dataset(reader="hateful_memes", root=folder, splits={"train": "train"})


GOOD = {"id": 1, "img": "img/1.png", "label": 1, "text": "x"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("{not json", "line is not a JSON object"),
        ("[1, 2]", "line is not a JSON object"),
        ({"label": 2}, "label is neither 0 nor 1: 2"),
        ({"label": None}, "label is neither 0 nor 1: None"),
        ({"label": "hateful"}, "label is neither 0 nor 1: 'hateful'"),
        ({"id": None}, "id is neither text nor an integer: None"),
        ({"id": " "}, "id is neither text nor an integer: ' '"),
        ({"id": 1.5}, "id is neither text nor an integer: 1.5"),
        ({"text": 3}, "text is not a string: 3"),
        ({"img": ""}, "no picture named"),
        ({"img": 7}, "no picture named"),
        ({"img": "../../x.png"}, "picture lies outside the dataset's folder"),
        ({"img": "/etc/passwd"}, "picture lies outside the dataset's folder"),
        ({"img": "img/\0.png"}, "picture lies outside the dataset's folder"),
        ({"img": "link.png"}, "picture lies outside the dataset's folder"),
        ({}, "id occurs again in its split: 00001"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason(tmp_path, change, reason):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.png").symlink_to(drawn_datasets.meme(tmp_path / "elsewhere.png", 2))
    second = change if isinstance(change, str) else GOOD | ({"id": 2} if change else {}) | change
    good, ((number, found),) = read(hateful(root, [GOOD, second]))
    assert len(good) == 1 and number == 2 and found.startswith(reason)


def test_a_row_without_a_field_is_rejected_but_a_file_without_it_stops(tmp_path):
    short = {key: value for key, value in GOOD.items() if key != "label"}
    assert read(hateful(tmp_path, [GOOD, short | {"id": 2}]))[1] == [(2, "no field 'label'")]
    with pytest.raises(InputError, match=r"train.jsonl: no row has the field 'label'"):
        read(hateful(tmp_path, [short, short | {"id": 2}]))


def test_missing_folder_file_and_column(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder; set datasets.<name>.root"):
        read(Dataset(reader="mami", root=tmp_path / "absent"))
    with pytest.raises(InputError, match="train.jsonl: no such file; put it there"):
        read(Dataset(reader="harmeme", root=tmp_path))
    assert readers.expected_rows(Dataset(reader="harmeme", root=tmp_path))["train"] is None
    assert readers.source_files(Dataset(reader="harmeme", root=tmp_path)) == []
    (tmp_path / "train.csv").write_text("id,image,words\n")
    with pytest.raises(InputError, match="train.csv: no column 'text', only id, image, words; map it under"):
        read(Dataset(reader="table", root=tmp_path))
    (tmp_path / "val.csv").write_text('id,image,text,label\n1,a.png,x,0\n2,b.png,"open quote' + "x" * 200_000)
    with pytest.raises(InputError, match="val.csv: after line 2: field larger than field limit"):
        read(Dataset(reader="table", root=tmp_path), "val")


def test_listing_files_needs_no_heavy_library():
    code = (
        "import sys; from memedynamics import readers\n"
        "print(json.dumps([m for m in ('torch', 'PIL', 'datasets', 'numpy', 'pyarrow') if m in sys.modules]))"
    )
    environment = os.environ | {"PYTHONPATH": "workflow"}
    done = subprocess.run(
        [sys.executable, "-c", "import json;" + code], env=environment, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == []


def test_missing_files_are_listed(tmp_path):
    source = Dataset(reader="harmeme", root=tmp_path / "h", splits={"test": "test"})
    assert readers.missing_files(source) == [tmp_path / "h"]
    (tmp_path / "h").mkdir()
    assert [path.name for path in readers.missing_files(source)] == ["test.jsonl"]
    (tmp_path / "h/test.jsonl").write_text("{}\n")
    assert readers.missing_files(source) == []
