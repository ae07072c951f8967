"""What the analyses make of runs of every kind of adapter: spectrum, sharpe and gradients, on trained runs."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import safe_open

import tiny_models
import tiny_study
from memedynamics import per_sample, policies, tables, vlm
from memedynamics.attributions import Extractor
from memedynamics.config import Adapter, BaseModelConfig
from memedynamics.objective_gradients import plain_lora
from memedynamics.sections import Spectrum
from memedynamics.spectrum import SHAPES
from test_attributions import memes

KINDS = ("rslora", "dora", "qlora", "ia3", "full")
BASE = BaseModelConfig(source="tiny", dtype="float32")
FOLDER = tiny_models.folder("qwen2_5_vl")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """One SFT run of two steps of every kind."""
    study = tiny_study.write_study(tmp_path_factory.mktemp("study"), 4)
    made = {}
    for kind in KINDS:
        matched = tiny_study.MATCHED.model_copy(update={"adapter": Adapter(kind=kind, r=4)})
        run = tmp_path_factory.mktemp(kind)
        where = {**tiny_study.inputs(study), **tiny_study.outputs(run), "work": run / "work", "threads": 1}
        given = {**tiny_study.settings("sft", max_steps=2), "matched": matched, "fractions": [0, 1]}
        tiny_study.script("train_sft")(**where, **given)
        made[kind] = tiny_study.outputs(run)
    return made


@pytest.fixture(scope="module")
def svd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("svd")
    tiny_study.script("base_svd")(FOLDER, "all", folder / "svd", 1, folder / "work")
    return folder / "svd"


@pytest.mark.parametrize("kind", KINDS)
def test_the_spectrum_of_what_changed(kind: str, runs: dict, svd: Path, tmp_path: Path) -> None:
    """Every linear layer changed; r bounds the rank of factors alone, and no count of directions is above the bound.

    The random update has the norm and the largest rank of the trained one: Gaussian factors have rank r, a Gaussian
    matrix its smaller side.
    """
    run = runs[kind]
    tiny_study.script("extract_spectrum")(
        model=FOLDER, milestones=run["milestones"], run=run["run"], svd=svd, extract=tmp_path / "extract.parquet",
        bases=tmp_path / "bases.safetensors", fractions=[0.0, 1.0], settings=Spectrum(top=3), method="sft", seed=1,
        threads=1, work=tmp_path / "work",
    )  # fmt: skip
    found = tables.read(tmp_path / "extract.parquet", "extract_spectrum")
    assert found["module"].n_unique() == 14
    ranks = set(found["rank"].drop_nulls().to_list())
    assert ranks == ({4} if kind in ("rslora", "qlora") else {16, 32})
    for name in SHAPES:
        assert found.filter(pl.col(name) > pl.col("rank") * (1 + 1e-9)).is_empty(), name
    trained, drawn = (found.filter(fraction=1.0, update=which).sort("module") for which in ("trained", "random"))
    assert trained["frobenius"].to_list() == pytest.approx(drawn["frobenius"].to_list())
    assert drawn["singular_values"].list.len().to_list() == drawn["rank"].to_list()
    assert (trained["singular_values"].list.len() <= trained["rank"]).all()
    if kind == "dora":
        assert (trained["singular_values"].list.len() > 4).all()
    with safe_open(tmp_path / "bases.safetensors", framework="pt") as bases:
        assert len(list(bases.keys())) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_sharpe_has_gradients_where_there_are_factors(kind: str, runs: dict, tmp_path: Path) -> None:
    """Contributions of features exist for every kind; gradients of factors for LoRA's own alone."""
    record = json.loads(runs[kind]["run"].read_text())
    choose = policies.load(FOLDER, BASE, record["kind"], runs[kind]["milestones"], [1])
    extractor = Extractor(choose, vlm.load_processor(FOLDER), tiny_study.PROMPT)
    rows, signal = extractor.split([memes(tmp_path)], [1.0], 0, signal=True)
    assert len(rows) and np.isfinite(rows["phi"].drop_nulls().to_numpy()).all()
    assert (len(signal) > 0) == (kind in ("rslora", "dora", "qlora"))


@pytest.mark.parametrize("kind", ["lora", *KINDS, "prompt"])
def test_the_bases_fresh_adapter(kind: str) -> None:
    """The same function with factors, or where the study's adapter has none the base as it is, and the reason why."""
    model = vlm.load_model(FOLDER)
    ids = torch.tensor([[10, 11, 12]])
    before = vlm.hidden_states(model, input_ids=ids).last_hidden_state
    fresh = per_sample.fresh_adapter(model, Adapter(kind=kind, r=2))
    assert torch.allclose(vlm.hidden_states(fresh, input_ids=ids).last_hidden_state, before, atol=1e-6)
    plain = kind in ("lora", "rslora", "qlora")
    assert bool(per_sample.factors(fresh)) == (plain or kind == "dora")
    assert (plain_lora(fresh) is None) == plain
