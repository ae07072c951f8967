"""The merge path: numbers by hand, its ends against scoring, points against merged folders, a study end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import merge_runs
import tiny_models
from memedynamics import gather, merge_path, policies, tables, vlm
from memedynamics.answers import Labels
from memedynamics.config import BaseModelConfig, MergedMethod, Scoring
from memedynamics.errors import InputError
from memedynamics.figure_merge_path import figure_merge_path
from memedynamics.images import open_image
from memedynamics.merge_parents import open_parent
from memedynamics.merge_path_model import Between, Point, points
from memedynamics.prompts import user_text
from memedynamics.scoring import Meme, Scorer
from tiny_study import PROMPT, outputs, response, script

BASE = BaseModelConfig(source="tiny", dtype="float32")
PAIRS = [("sft", "dpo")]
TEXTS = [response("No"), response("Yes"), "<think> a cat and", response("No")]  # one is cut, one repeats


# --- the reduction


def extract(values: dict[float, tuple[list[float], list[float]]], way: str = "linear") -> pl.DataFrame:
    """Two memes, a benign and a hateful one, with one response each: p_hateful and KL of both at every t."""
    rows = [(t, name, p[i], kl[i]) for t, (p, kl) in values.items() for i, name in enumerate(("x", "y"))]
    frame = pl.DataFrame(rows, schema=["t", "id", "p_hateful", "kl_forward"], orient="row")
    frame = frame.with_columns(way=pl.lit(way), dataset=pl.lit("d"), split=pl.lit("val"), sample=pl.lit(0, pl.Int16))
    return gather.labelled(frame, "sft__dpo", 1)


PROMPTS = pl.DataFrame({"dataset": "d", "split": "val", "id": ["x", "y"], "label": [0, 1], "text": ["x", "y"]})
RUNS = pl.DataFrame(
    {"method": ["sft", "dpo"], "seed": [1, 1], "fraction": 1.0, "step": [9, 8], "reference": "base"},
    schema_overrides={"seed": pl.Int32},
)


def test_values_by_hand() -> None:
    """x is benign, y hateful. t = 0: p .2, .6 → both right, accuracy 1; ½: .7, .6 → ½; 1: .2, .4 → ½.

    KL 1, 3 → 2; 2, 2 → 2; 4, 8 → 6. At ½ the line says accuracy ¾ and KL 4, so the way is −¼ and −2 off it.
    """
    found = extract({0.0: ([0.2, 0.6], [1, 3]), 0.5: ([0.7, 0.6], [2, 2]), 1.0: ([0.2, 0.4], [4, 8])})
    table = merge_path.measure(found, PAIRS, PROMPTS, RUNS, 50)
    value = {(row["statistic"], row["t"]): row["value"] for row in table.to_dicts()}
    assert [value["accuracy", t] for t in (0, 0.5, 1)] == [1, 0.5, 0.5]
    assert [value["kl_forward", t] for t in (0, 0.5, 1)] == [2, 2, 6]
    assert [value["accuracy_off_line", t] for t in (0, 0.5, 1)] == [0, -0.25, 0]
    assert [value["kl_forward_off_line", t] for t in (0, 0.5, 1)] == [0, -2, 0]
    assert set(table.select("method", "versus", "seed", "way", "step", "n", "split").rows()) == {
        ("sft", "dpo", 1, "linear", 9, 2, "val")
    }
    tables.conform(table.with_columns(study=pl.lit("s")), "merge_path")


def test_what_is_missing_or_strange_is_refused() -> None:
    whole = extract({0.0: ([0.2, 0.6], [1, 3]), 0.5: ([0.7, 0.6], [2, 2]), 1.0: ([0.2, 0.4], [4, 8])})
    cut = whole.filter(~((pl.col("t") == 0.5) & (pl.col("id") == "y")))
    with pytest.raises(InputError, match="sft__dpo/seed1.parquet: points of the way are missing"):
        merge_path.measure(cut, PAIRS, PROMPTS, RUNS, 10)
    with pytest.raises(InputError, match="merge_path/sft__dpo: no such pair"):
        merge_path.measure(whole, [("sft", "grpo")], PROMPTS, RUNS, 10)


def test_the_reduction_needs_no_torch() -> None:
    code = "import sys, runpy; runpy.run_path('workflow/scripts/merge_path.py', run_name='x')"
    code += "; assert 'torch' not in sys.modules"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={**os.environ, "PYTHONPATH": "workflow"})


# --- the extraction, on a tiny model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merge_runs.base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def study(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs (an adapter, full weights), val memes and their probes, and the extract of the way between the runs."""
    root = tmp_path_factory.mktemp("study")
    merge_runs.run(root / "runs/sft/seed1", model, "dora", 1)
    merge_runs.run(root / "runs/dpo/seed1", model, "full", 2)
    names = [f"m{i}" for i in range(6)]
    for i, name in enumerate(names):
        tiny_models.picture(i).save(root / f"{name}.png")
    memes = {
        "dataset": "memes", "split": "val", "id": names, "image": [str(root / f"{name}.png") for name in names],
        "image_sha256": "0" * 64, "width": 56, "height": 56, "text": [f"caption {i}" for i in range(6)],
        "label": [i % 2 for i in range(6)], "groups": pl.Series([[]] * 6, dtype=pl.List(pl.String)),
    }  # fmt: skip
    tables.write(pl.DataFrame(memes), root / "data/memes/val.parquet", "data")
    tables.write(_probes(model, names), root / "probes.parquet", "probes")
    _extract(root, model, root / "extracts/merge_path/sft__dpo/seed1.parquet", 4)
    return root


def _probes(model: Path, names: list[str]) -> pl.DataFrame:
    tokenizer = vlm.load_processor(model).tokenizer
    end = tokenizer.eos_token_id
    ids = [tokenizer(text, add_special_tokens=False).input_ids + [end] * text.endswith(">") for text in TEXTS]
    rows = [(name, k, tokens) for name in names for k, tokens in enumerate(ids)]
    return pl.DataFrame(
        rows, schema={"id": pl.String, "sample": pl.Int16, "token_ids": pl.List(pl.Int32)}, orient="row"
    ).with_columns(
        probe_kind=pl.lit("base_sample"), dataset=pl.lit("memes"), split=pl.lit("val"), correct=True, format_ok=True,
        reward=pl.lit(0.0),
    )  # fmt: skip


def _extract(root: Path, model: Path, extract: Path, memes: int, **given: object) -> None:
    runs = {
        key: root / f"runs/{method}/seed1" / file
        for key, method, file in (
            ("first", "sft", "milestones"), ("first_run", "sft", "run.json"),
            ("second", "dpo", "milestones"), ("second_run", "dpo", "run.json"),
        )
    }  # fmt: skip
    settings = {"questions": {"memes": "hateful"}, "scoring": Scoring(batch_size=3), "in_domain": "memes", "threads": 1}
    script("extract_merge_path")(
        model=model, probes=root / "probes.parquet", data=[root / "data/memes/val.parquet"], extract=extract,
        base=BASE, prompt=PROMPT, memes=memes, work=root / "work", **{**runs, **settings, **given},
    )  # fmt: skip


def scored(root: Path, model: Path, method: str) -> pl.DataFrame:
    """What scoring makes of the end of the run of `method` on all memes."""
    kind = json.loads((root / f"runs/{method}/seed1/run.json").read_text())["kind"]
    choose = policies.load(model, BASE, kind, root / f"runs/{method}/seed1/milestones", [1.0])
    processor = vlm.load_processor(model)
    scorer = Scorer(choose, processor, PROMPT, Labels(processor.tokenizer, PROMPT), 64)
    empty = pl.lit(None, pl.Int16)
    probes = tables.read(root / "probes.parquet", "probes").with_columns(chosen_sample=empty, rejected_sample=empty)
    memes = [
        Meme(user_text(PROMPT, "hateful", f"caption {name[0][1:]}"), open_image(root / f"{name[0]}.png"), rows)
        for name, rows in sorted(probes.group_by("id", maintain_order=True))
    ]
    return scorer.score(memes, [1.0])[1]


def test_the_ends_are_what_scoring_measures(study: Path, model: Path) -> None:
    found = tables.read(study / "extracts/merge_path/sft__dpo/seed1.parquet", "extract_merge_path")
    assert found["id"].n_unique() == 4
    for t, method in ((0.0, "sft"), (1.0, "dpo")):
        for way in ("linear", "slerp"):
            own = found.filter(t=t, way=way)
            both = own.join(scored(study, model, method), on=["dataset", "split", "id", "sample"])
            assert len(own) == len(both) == 16
            assert (both["p_hateful"] - both["p_hateful_right"]).abs().max() < 1e-4
            assert (both["kl_forward"] - both["kl_forward_right"]).abs().max() < 1e-4 < both["kl_forward"].min()
            assert both["forced"].to_list() == both["forced_right"].to_list()
            assert own.group_by("id").agg(pl.col("forced").sum())["forced"].to_list() == [1] * 4


def test_the_way_is_whole_and_moves(study: Path) -> None:
    found = tables.read(study / "extracts/merge_path/sft__dpo/seed1.parquet", "extract_merge_path")
    expected = {(way, round(t / 10, 1)) for way in ("linear", "slerp") for t in range(11)}
    assert {(way, round(t, 1)) for way, t in found.select("way", "t").rows()} == expected
    means = found.group_by("way", "t").agg(pl.col("kl_forward").mean()).sort("way", "t")
    assert means["kl_forward"].n_unique() == 20  # the ends once


def test_a_point_is_the_merged_folder(study: Path, model: Path, tmp_path: Path) -> None:
    """The model between the runs against `merge` of the same weights, written to disk and loaded."""
    runs = [study / f"runs/{method}/seed1" for method in ("sft", "dpo")]
    between = Between(
        vlm.load_model(model), model, *(open_parent(r / "milestones", r / "run.json", model) for r in runs)
    )
    for way, at in {"linear": 3, "slerp": 7}.items():
        point = next(p for p in points(between.cosine) if p.ways == (way,) and p.t == at / 10)
        method = MergedMethod(kind="merge", how=way, of=["sft", "dpo"], weights=[10 - at, at])
        (tmp_path / way).mkdir()
        script("merge")(
            model=model, parents=[r / "milestones" for r in runs], runs=[r / "run.json" for r in runs], method=method,
            seed=0, threads=1, **outputs(tmp_path / way),
        )  # fmt: skip
        merged = vlm.load_model(tmp_path / way / "milestones/1")
        gap = (merge_runs.logits(between.go(point)) - merge_runs.logits(merged)).abs().max()
        assert gap < 1e-5


def test_half_precision_weights_do_not_drift(tmp_path: Path) -> None:
    """There and back through every point: the same bits as at once."""
    model = merge_runs.base(tmp_path / "model", "bfloat16")
    runs = [
        open_parent(*merge_runs.run(tmp_path / kind, model, kind, i), model) for i, kind in enumerate(("lora", "full"))
    ]
    between = Between(vlm.load_model(model, "bfloat16"), model, *runs)
    half = Point(0.5, ("linear",), 0.5, 0.5)
    once = {name: value.clone() for name, value in between.go(half).named_parameters()}
    for point in points(between.cosine)[::4]:
        between.go(point)
    assert all(torch.equal(value, once[name]) for name, value in between.go(half).named_parameters())


def test_a_killed_job_goes_on(study: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All points lie in the work folder: nothing is written into the model a second time."""
    monkeypatch.setattr(Between, "go", lambda *_: pytest.fail("measured anew"))
    again = study / "again.parquet"
    _extract(study, model, again, 4)
    assert pl.read_parquet(again).equals(pl.read_parquet(study / "extracts/merge_path/sft__dpo/seed1.parquet"))


def test_unprobed_memes_are_refused(study: Path, model: Path) -> None:
    with pytest.raises(InputError, match="no base sample of other/val"):
        _extract(study, model, study / "none.parquet", 4, in_domain="other")


# --- the analysis and its figure, on what was extracted


@pytest.fixture(scope="module")
def table(study: Path) -> pl.DataFrame:
    runs = [study / f"runs/{method}/seed1/run.json" for method in ("sft", "dpo")]
    script("merge_path")(
        extracts=[study / "extracts/merge_path/sft__dpo/seed1.parquet"], runs=runs,
        data=[study / "data/memes/val.parquet"], table=study / "analyses/merge_path.parquet", pairs=PAIRS, resamples=50,
    )  # fmt: skip
    return tables.read(study / "analyses/merge_path.parquet", "merge_path")


def test_the_analysis_means_over_prompts(study: Path, table: pl.DataFrame) -> None:
    found = tables.read(study / "extracts/merge_path/sft__dpo/seed1.parquet", "extract_merge_path")
    expected = found.group_by("way", "t", "id").agg(pl.col("kl_forward").mean())
    expected = expected.group_by("way", "t").agg(pl.col("kl_forward").mean())
    own = table.filter(statistic="kl_forward").join(expected, on=["way", "t"])
    assert len(own) == 22 and np.allclose(own["value"], own["kl_forward"])
    assert (own["ci_low"] <= own["value"]).all() and (own["value"] <= own["ci_high"]).all()
    assert own["n"].to_list() == [4] * 22


def test_the_figure_shows_every_point(table: pl.DataFrame) -> None:
    figure = figure_merge_path(table, ["a note"])
    drawn = [y for trace in figure.data if trace.mode == "markers" for y in trace.y]
    shown = table.filter(pl.col("statistic").is_in(["accuracy", "accuracy_off_line", "kl_forward"]))
    ends = (pl.col("way") == "slerp") & pl.col("t").is_in([0.0, 1.0])
    assert sorted(drawn) == pytest.approx(sorted(shown.filter(~ends)["value"]))
    assert "Trained elsewhere" not in str(figure.layout.annotations) and "A note." in str(figure.layout.annotations)
