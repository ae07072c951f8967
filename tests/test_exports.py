"""What other trainers read: TRL through datasets itself, LLaMA-Factory's folder by its documented layout."""

import json
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from memedynamics import exports

ROW = {
    "prompt": 'Is it "hateful"?\nDüde',
    "chosen": "<answer> Yes </answer>",
    "rejected": "<think> a",
    "image": "pics/a.png",
}


@pytest.fixture
def preferences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """Two pairs whose pictures lie in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("pics").mkdir()
    Image.new("RGB", (3, 2), "red").save("pics/a.png")
    return pl.DataFrame([ROW, ROW | {"chosen": "<answer> No </answer>"}])


def test_trl_reads_its_file(preferences: pl.DataFrame, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    exports.write_trl(preferences, Path("out/trl.jsonl"))
    cache = {"cache_dir": str(tmp_path / "cache")}
    rows = datasets.load_dataset("json", data_files="out/trl.jsonl", split="train", **cache)
    row = rows.cast_column("images", datasets.List(datasets.Image()))[0]
    assert row["prompt"] == [{"role": "user", "content": ROW["prompt"]}]
    assert row["chosen"] == [{"role": "assistant", "content": ROW["chosen"]}]
    assert row["rejected"] == [{"role": "assistant", "content": ROW["rejected"]}]
    assert row["images"][0].size == (3, 2)


def test_llamafactory_folder(preferences: pl.DataFrame) -> None:
    folder = Path("out/llamafactory")
    exports.write_llamafactory(preferences, folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["preferences"] == {
        "file_name": "preferences.json",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", "images": "images", "chosen": "chosen", "rejected": "rejected"},
    }
    for name, entry in info.items():
        rows = json.loads((folder / entry["file_name"]).read_text())
        assert len(rows) == 2
        assert set(entry["columns"].values()) == set(rows[0])
        # As many placeholders as pictures, each found from the dataset's own folder.
        assert rows[0]["conversations"][0]["value"].count("<image>") == len(rows[0]["images"]) == 1
        assert (folder / rows[0]["images"][0]).samefile("pics/a.png")
        assert rows[0]["conversations"][0] == {"from": "human", "value": f"<image>{ROW['prompt']}"}
        assert ("ranking" in entry) == (name == "preferences")
    pair = json.loads((folder / "preferences.json").read_text())[0]
    assert (pair["chosen"], pair["rejected"]) == tuple({"from": "gpt", "value": ROW[k]} for k in ("chosen", "rejected"))
    sft = json.loads((folder / "sft.json").read_text())[1]
    assert sft["conversations"][1] == {"from": "gpt", "value": "<answer> No </answer>"}


def test_equal_input_gives_equal_bytes(preferences: pl.DataFrame) -> None:
    for name in ("a", "b"):
        exports.write_trl(preferences, Path(name, "trl.jsonl"))
        exports.write_llamafactory(preferences, Path(name, "lf"))
    for path in Path("a").rglob("*.json*"):
        assert path.read_bytes() == Path("b", path.relative_to("a")).read_bytes()
