"""The browser's data against the tables they are of, read back as a page reads them."""

import base64
import json
import re
import shutil
import zlib

import polars as pl
import pytest

import browsed_study
from memedynamics import meme_answers, meme_pieces, meme_runs, meme_tokens, tables
from memedynamics.errors import InputError
from memedynamics.keys import MEME
from memedynamics.sections import Report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pieces")


@pytest.fixture(scope="module")
def found(folder):
    return browsed_study.write(folder, {("memes", "val"): 130, ("memes", "test"): 9, ("other", "test"): 9})


@pytest.fixture(scope="module")
def assets(folder, found):
    return browsed_study.build(folder, found, Report(images="none")).parent / "assets"


def read(assets, name):
    packed = re.fullmatch(r'deliver\("memes/(.*)","(.*)"\);\n', (assets / f"memes/{name}.js").read_text())
    assert packed[1] == name
    return json.loads(zlib.decompress(base64.b64decode(packed[2])))


def test_the_index_numbers_memes_in_the_order_of_the_tables(assets, found):
    index, data = read(assets, "index"), pl.concat(tables.read(path, "data") for path in found["data"])
    assert index["ids"] == data["id"].to_list() and index["texts"] == data["text"].to_list()
    assert [int(label) for label in index["labels"]] == data["label"].to_list()
    assert [[index["groups"][i] for i in some] for some in index["grouped"]] == data["groups"].to_list()
    assert index["splits"] == [
        {"dataset": d, "split": s, "memes": n, "listed": n}
        for d, s, n in (("memes", "val", 130), ("memes", "test", 9), ("other", "test", 9))
    ]
    assert index["looked"].count("1") == 3 * browsed_study.LOOKED and index["looked"].startswith("1" * 8 + "0")
    assert [run["key"] for run in index["runs"]][:4] == ["base/0", "sft/seed1/0.5", "sft/seed1/1", "sft/seed2/0.5"]
    assert index["end"] == "1"
    assert index["runs"][-1] | {"colour": ""} == {
        "key": "theirs/seed0/1", "method": "theirs", "name": "theirs", "colour": "", "seed": None, "milestone": "1",
    }  # fmt: skip


def test_pieces_hold_what_a_run_answered(assets, found):
    samples = tables.read(found["samples"][0], "samples")
    for milestone, number, meme in (("1", 0, 0), ("1", 1, 129 - 100), ("0.5", 0, 7)):
        at = {"fraction": float(milestone)}
        piece = read(assets, f"sft/seed1/{milestone}/{number}")
        key = "memes", "val", f"val-{100 * number + meme:05d}"
        own = samples.filter(**at, dataset=key[0], split=key[1], id=key[2]).sort("sample")
        given = piece[meme]
        assert given["right"] == "".join(str(int(right)) for right in own["correct"])
        assert given["kept"] == "".join(str(int(kept)) for kept in own["format_ok"])
        assert [{"y": "yes", "n": "no", "-": "invalid"}[a] for a in given["answers"]] == own["answer"].to_list()
        assert given["p"] == [round(1000 * p) for p in own["p_hateful"]] and given["forced"] == own["forced"][0]
        assert len(given["lengths"]) == len(own["token_ids"][0])
        trace = tables.read(found["traces"][1] / "1-of-1.parquet", "traces").filter(**at, sample=0)
        trace = trace.filter(dataset=key[0], split=key[1], id=key[2]).sort("position")
        by_kind = {kind: trace.filter(probe_kind=kind) for kind in ("own_sample", "base_sample")}
        assert given["kl_own"] == pytest.approx(1000 * by_kind["own_sample"]["kl_reverse"], abs=0.51)
        assert given["kl_base"] == pytest.approx(1000 * by_kind["base_sample"]["kl_forward"], abs=0.51)
        for name, kind, kl in (("kl_own", "own_sample", "kl_reverse"), ("kl_base", "base_sample", "kl_forward")):
            assert given[f"{name}_sum"] == pytest.approx(1000 * by_kind[kind][kl].cast(float).sum(), abs=0.51)
        assert len(given["kl_base"]) == len(read(assets, f"base/0/{number}")[meme]["lengths"])
    assert [len(read(assets, f"sft/seed1/1/{number}")) for number in (0, 1)] == [100, 48]


def test_at_a_milestone_is_what_was_answered_there_alone(assets):
    index = read(assets, "index")
    written = {run["key"]: flags for run, flags in zip(index["runs"], index["flags"], strict=True)}
    assert written["sft/seed1/0.5"].strip() == written["sft/seed1/0.5"][: browsed_study.ANSWERED]
    assert " " not in written["sft/seed1/1"] and written["sft/seed1/0.5"][:8] != written["sft/seed1/1"][:8]
    answered = [one is not None for one in read(assets, "sft/seed1/0.5/0")]
    assert answered == [True] * browsed_study.ANSWERED + [False] * (100 - browsed_study.ANSWERED)
    assert not (assets / "memes/sft/seed1/0.5/1.js").exists() and not (assets / "memes/theirs/seed0/0.5").exists()


def test_attention_is_the_mean_over_layers_of_the_clean_picture(assets, found):
    for milestone in ("0.5", "1"):
        given = read(assets, f"sft/seed1/{milestone}/0")
        rows = tables.read(found["attention"][1], "extract_attention").filter(head="mean", id="val-00000")
        layers = rows.filter(fraction=float(milestone))["cells"].to_list()
        mean = [10_000 * (a + b) / 2 for a, b in zip(*layers, strict=True)]
        assert given[0]["cells"] == pytest.approx(mean, abs=0.51)
    assert "cells" not in given[8]


def test_without_pictures_nothing_says_which_they_are(assets):
    assert read(assets, "index")["pictures"] == []


def test_the_base_has_no_distance_from_itself_and_unscored_texts_have_none(assets):
    assert not {"kl_own", "kl_base", "p_on_base"} & set(read(assets, "base/0/0")[0])
    test = read(assets, "dpo/seed1/1/1")[30]
    assert "kl_own" in test and "kl_base" not in test and "p_on_base" not in test


def test_memes_that_a_run_has_not_answered_are_empty_and_those_of_none_are_not_listed(folder, found, tmp_path):
    sft, dpo = found["samples"][0], found["samples"][2]
    paths = {}
    for path, left_out in ((sft, 2), (dpo, 1)):
        frame = tables.read(path, "samples").filter(
            ~pl.col("id").is_in([f"val-{i:05d}" for i in range(2, 2 + left_out)])
        )
        paths[path] = tmp_path / path.relative_to(folder / "samples")
        tables.write(frame, paths[path], "samples")
    runs = meme_runs.sources(samples=[*found["base"], *paths.values()], traces=[], responses=[], attention=[])
    counts = {(*run, at): frame for run, of in runs.items() for at, frame in meme_answers.counts(of.samples).items()}
    data = pl.concat(tables.read(path, "data") for path in found["data"])
    memes = meme_pieces.listed(data, counts)
    assert len(memes) == 147 and "val-00002" not in memes["id"]
    index = meme_pieces.index(memes, data, counts, data.head(1).select(MEME))
    assert index["splits"][0] == {"dataset": "memes", "split": "val", "memes": 130, "listed": 129}
    flags = dict(zip(counts, index["flags"], strict=True))
    assert flags["sft", 1, 1.0][2] == " " and flags["dpo", 1, 1.0][2] != " "
    given = meme_answers.every(runs["sft", 1])[1.0]
    _, piece = next(meme_pieces.pieces(memes, given, meme_tokens.load(folder / "model")))
    assert piece[2] is None and piece[3] is not None


def test_traces_of_other_tokens_are_refused(folder, found, tmp_path):
    trace = tables.read(found["traces"][1] / "1-of-1.parquet", "traces")
    short = tmp_path / "traces/sft/seed1/1-of-1.parquet"
    tables.write(trace.filter(pl.col("position") > 0), short, "traces")
    shutil.copytree(folder / "model", tmp_path / "model")
    changed = found | {"traces": [found["traces"][0], short.parent, *found["traces"][2:]]}
    with pytest.raises(InputError, match="traces of memes/val/.*: not of its samples' tokens; score anew"):
        browsed_study.build(tmp_path, changed, Report(images="none"))
