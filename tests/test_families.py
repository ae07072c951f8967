"""Every model family through the whole study: prompt, sampling, one step of SFT, DPO and GRPO, scoring."""

import json
import math
from pathlib import Path

import polars as pl
import pytest

import tiny_models
from memedynamics import tables
from memedynamics.config import BaseModelConfig, Probes, Sampling, Scoring
from tiny_study import PROMPT, REWARDS, script, train, write_study

BASE = BaseModelConfig(source="tiny", dtype="float32")
SAMPLING = Sampling(num_samples=2, max_new_tokens=6, batch_size=3)
ROW = ["dataset", "split", "id", "sample"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), num_memes=8)


@pytest.fixture(scope="module", params=tiny_models.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(family)


@pytest.fixture(scope="module")
def samples(family: str, study: Path, folder: Path) -> pl.DataFrame:
    """The base's samples, in table and file samples.parquet, and the probes made of them."""
    drawing = {"data": study / "data.parquet", "model": tiny_models.folder(family), "base": BASE, "prompt": PROMPT}
    drawing |= {"question": "hateful", "sampling": SAMPLING, "threads": 1}
    sizes = {"sizes": Probes(), "in_domain": "memes"}
    drawn, greedy, samples = (folder / f"{name}.parquet" for name in ("drawn", "greedy", "samples"))
    script("sample_base")(**drawing, samples=drawn, dataset="memes", scatteritem="1-of-1", work=folder / "work/sample")
    script("greedy_base")(**drawing, **sizes, samples=greedy, work=folder / "work/greedy")
    grading = {"prompt": PROMPT, "rewards": REWARDS}
    script("gather_samples")(shards=[drawn], data=[study / "data.parquet"], samples=samples, **grading)
    files = {"samples": [samples], "data": [study / "data.parquet"], "greedy": greedy, "model": drawing["model"]}
    script("build_probes")(**files, **sizes, **grading, probes=folder / "probes.parquet", pair_rule="paired")
    return tables.read(samples, "samples")


def scored(family: str, study: Path, folder: Path, run: dict[str, Path]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Traces and responses of a run at its end, or of the base itself where `run` is empty."""
    name = run["run"].parent.name if run else "base"
    outputs = {key: folder / f"{name}_{key}.parquet" for key in ("traces", "responses")}
    script("score")(
        model=tiny_models.folder(family),
        probes=folder / "probes.parquet",
        data=[study / "data.parquet"],
        **outputs,
        scatteritem="1-of-1",
        base=BASE,
        prompt=PROMPT,
        questions={"memes": "hateful"},
        scoring=Scoring(batch_size=3),
        pair_rule="paired",
        fractions=[0.0, 1.0],
        threads=1,
        work=folder / "work/score" / name,
        **{key: run[key] for key in ("milestones", "run") if run},
    )
    return tables.read(outputs["traces"], "traces"), tables.read(outputs["responses"], "responses")


def test_sampling_answers_every_prompt(family: str, samples: pl.DataFrame) -> None:
    assert len(samples) == 8 * SAMPLING.num_samples
    assert samples["token_ids"].list.len().is_between(1, SAMPLING.max_new_tokens).all()
    picture = json.loads((tiny_models.folder(family) / "config.json").read_text())
    picture = picture.get("image_token_id", picture.get("image_token_index"))
    assert picture not in samples["token_ids"].explode().to_list()
    assert (samples["logp"] < 0).all() and samples["p_hateful"].is_between(0, 1).all()


def test_the_base_scores_itself_alike_on_both_code_paths(
    family: str, study: Path, folder: Path, samples: pl.DataFrame
) -> None:
    """Whole sequences against the shared prompt; and both against what sampling recorded."""
    traces, responses = scored(family, study, folder, {})
    assert (traces["logp"] - traces["ref_logp"]).abs().max() < 1e-4
    both = responses.join(samples.select(*ROW, drawn="logp", drawn_p="p_hateful"), ROW)
    assert len(both) == len(samples)
    assert (both["logp"] - both["drawn"]).abs().max() < 1e-4
    assert (both["p_hateful"] - both["drawn_p"]).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["sft", "dpo", "grpo"])
def test_one_step_moves_the_policy_away_from_its_reference(
    family: str, study: Path, folder: Path, samples: pl.DataFrame, kind: str
) -> None:
    run = train(kind, study, folder / kind, family, max_steps=1)
    history = tables.read(run["history"], "history")
    losses = history.filter(pl.col("metric") == "loss")["value"]
    assert losses.is_finite().all() and json.loads(run["run"].read_text())["total_steps"] == 1
    if kind == "dpo":
        assert math.isclose(losses[0], math.log(2), abs_tol=1e-4)
    _, responses = scored(family, study, folder, run)
    assert responses["fraction"].unique().to_list() == [1.0] and len(responses) == len(samples)
    both = responses.join(samples.select(*ROW, drawn="logp"), ROW)
    assert (both["ref_logp"] - both["drawn"]).abs().max() < 1e-4
    assert (both["logp"] - both["ref_logp"]).abs().max() > 1e-3
    assert (both["kl_forward"] >= -1e-6).all() and both["kl_forward"].max() > 0
