"""From adapters, full weights and prompts on disk to the table `spectrum`, on a tiny model, script by script."""

import json
import re
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file

import tiny_models
from memedynamics import job, module_spectra, spectrum_bases, spectrum_norms, tables, vlm, weights
from memedynamics.adapters import peft_config
from memedynamics.config import Adapter, Spectrum
from memedynamics.errors import InputError
from memedynamics.figure_spectrum import figure_spectrum
from tiny_study import script

FRACTIONS = [0.0, 0.5, 1.0]
STRENGTH = {"sft": 0.02, "dpo": 0.1}
R = 4
ADAPTED = [(method, seed) for method in STRENGTH for seed in (1, 2)]
RUNS = [*ADAPTED, ("whole", 1), ("prompts", 1)]


def record(folder: Path, kind: str) -> None:
    steps = {f"{fraction:g}": round(10 * fraction) for fraction in FRACTIONS}
    (folder / "run.json").write_text(json.dumps({"kind": kind, "reference": "base", "steps": steps}))


def adapters(folder: Path, model: Path, method: str, seed: int) -> None:
    """Milestones of a run: A of the seed's own start, drifting a little, B growing from 0."""
    torch.manual_seed(seed)
    base = vlm.load_model(model)
    policy = get_peft_model(base, peft_config(base, Adapter(r=R)))
    torch.manual_seed(100 * seed + list(STRENGTH).index(method))
    for fraction in FRACTIONS:
        for name, factor in policy.named_parameters():
            if "lora_B" in name and fraction:
                factor.data += STRENGTH[method] * torch.randn_like(factor)
            elif "lora_A" in name and fraction:
                factor.data += 0.01 * torch.randn_like(factor)
        policy.save_pretrained(folder / f"milestones/{fraction:g}")
    record(folder, "adapter")


def full(folder: Path, model: Path) -> None:
    changed = vlm.load_model(model)
    for fraction in FRACTIONS:
        for parameter in changed.model.parameters():
            parameter.data += fraction * 0.01 * torch.randn_like(parameter)
        changed.save_pretrained(folder / f"milestones/{fraction:g}")
    record(folder, "full")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on disk, and what the three scripts make of them."""
    folder, model = tmp_path_factory.mktemp("spectrum"), tiny_models.folder("qwen2_5_vl")
    for method, seed in ADAPTED:
        adapters(folder / f"runs/{method}/seed{seed}", model, method, seed)
    full(folder / "runs/whole/seed1", model)
    for fraction in FRACTIONS:
        where = folder / f"runs/prompts/seed1/milestones/{fraction:g}"
        where.mkdir(parents=True)
        (where / "adapter_config.json").write_text(json.dumps({"peft_type": "PROMPT_TUNING"}))
    record(folder / "runs/prompts/seed1", "adapter")
    script("base_svd")(model, "all", folder / "svd", 1, folder / "work/svd")
    for method, seed in RUNS:
        extract(folder, method, seed)
    with patch.dict(tables.provenance, {"study": "tiny"}):
        script("spectrum")(**reduction(folder))
    return folder


def extract(folder: Path, method: str, seed: int, to: str = "", **other: Path) -> Path:
    run, name = folder / f"runs/{method}/seed{seed}", f"{method}/seed{seed}"
    output = folder / f"extracts{to}/{name}.parquet"
    given = {"model": tiny_models.folder("qwen2_5_vl"), "milestones": run / "milestones", "run": run / "run.json"}
    given |= {"svd": folder / "svd", "extract": output, "bases": folder / f"bases{to}/{name}.safetensors"}
    cfg = {"fractions": FRACTIONS, "settings": Spectrum(top=5, epsilon=0.6), "method": method, "seed": seed}
    script("extract_spectrum")(**{**given, **other}, **cfg, threads=1, work=folder / f"work{to}/{name}")
    return output


def reduction(folder: Path) -> dict:
    return {
        "extracts": sorted(folder.glob("extracts/*/*.parquet")),
        "bases": sorted(folder.glob("bases/*/*.safetensors")),
        "runs": sorted(folder.glob("runs/*/*/run.json")),
        "table": folder / "spectrum.parquet",
        "resamples": 50,
        "compared": ["sft", "dpo"],
    }


@pytest.fixture(scope="module")
def table(study: Path) -> pl.DataFrame:
    return tables.read(study / "spectrum.parquet", "spectrum")


def test_the_base_is_decomposed_module_by_module(study: Path):
    model = tiny_models.folder("qwen2_5_vl")
    names = weights.linears(model, "all")
    assert sorted(file.name for file in (study / "svd").glob("*.safetensors")) == sorted(
        f"{name}.safetensors" for name in names
    )
    assert json.loads((study / "svd/base.json").read_text()) == {"model": job.contents(model), "layers": "all"}
    stored = weights.Weights(model)
    for name in names:
        found, weight = load_file(study / f"svd/{name}.safetensors"), stored(name).double()
        assert found["left"].dtype == torch.float16 and found["values"].dtype == torch.float32
        torch.testing.assert_close(found["values"].double(), torch.linalg.svdvals(weight), atol=1e-6, rtol=1e-6)
        left = found["left"].double()
        torch.testing.assert_close(left.T @ weight @ weight.T @ left, torch.diag(found["values"].double() ** 2),
                                   atol=2e-3 * float(found["values"][0]) ** 2, rtol=0)  # fmt: skip
        assert float(found["frobenius"]) == pytest.approx(float(torch.linalg.norm(weight)))


@pytest.mark.parametrize("method", ["dpo", "whole"])
def test_a_row_is_what_a_full_decomposition_gives(study: Path, method: str):
    """Every measure of one module, anew and in float64 from the files."""
    model = tiny_models.folder("qwen2_5_vl")
    row = tables.read(study / f"extracts/{method}/seed1.parquet", "extract_spectrum").filter(
        (pl.col("fraction") == 1) & (pl.col("update") == "trained") & pl.col("module").str.ends_with("1.mlp.up_proj")
    )
    row = row.row(0, named=True)
    weight, milestone = weights.Weights(model)(row["module"]).double(), study / f"runs/{method}/seed1/milestones"
    if method == "whole":
        update = weights.Weights(milestone / "1")(row["module"]).double() - weight
    else:
        a, b = (_factors(milestone / "1", row["module"])[i] for i in (0, 1))
        update = 2 * b @ a  # alpha = 2r
    values = np.linalg.svd(update.numpy(), compute_uv=False)
    values = values[values > 1e-6 * values[0]]
    left, before, _ = np.linalg.svd(weight.numpy(), full_matrices=False)
    moved, after, _ = np.linalg.svd((weight + update).numpy(), full_matrices=False)
    share, energy = values / values.sum(), values**2 / (values**2).sum()
    cosines = np.abs(left.T @ moved[:, :5])
    expected = {
        "frobenius": np.linalg.norm(values), "relative_frobenius": np.linalg.norm(values) / np.linalg.norm(before),
        "relative_spectral": values[0] / before[0], "stable_rank": 1 / energy[0],
        "effective_rank": np.exp(-(share * np.log(share)).sum()), "participation_ratio": 1 / (energy**2).sum(),
        "k90": np.searchsorted(energy.cumsum(), 0.9) + 1, "intruders": (cosines.max(axis=0) < 0.6).sum(),
        "spectral_shift": np.linalg.norm(after - before) / np.linalg.norm(before),
        "rotation": 1 - (cosines[:5] ** 2).sum() / 5,
    }  # fmt: skip
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name
    assert row["rank"] == (32 if method == "whole" else R) and len(row["singular_values"]) == len(values)
    assert (row["layer"], row["kind"]) == (1, "up_proj")
    assert row["drift"] is None if method == "whole" else 0 < row["drift"] < 0.2


def _factors(folder: Path, module: str) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = load_file(folder / "adapter_model.safetensors")
    return tuple(tensors[f"base_model.model.{module}.lora_{side}.weight"].double() for side in "AB")


def test_rows_of_a_run(study: Path):
    """14 modules, two milestones (its start is the base), and one control; the control's norm is the update's."""
    rows = tables.read(study / "extracts/sft/seed1.parquet", "extract_spectrum")
    assert set(rows.group_by("fraction", "update").len().rows()) == {
        (0.5, "trained", 14), (1.0, "trained", 14), (1.0, "random", 14),
    }  # fmt: skip
    final = rows.filter(pl.col("fraction") == 1).sort("module")
    norms = [final.filter(pl.col("update") == update)["frobenius"].to_list() for update in ("trained", "random")]
    assert norms[0] == pytest.approx(norms[1])
    assert (rows["spectral_shift"] <= rows["relative_frobenius"] * 1.001).all()


def test_bases_are_the_final_update_s(study: Path):
    module = weights.linears(tiny_models.folder("qwen2_5_vl"), "all")[0]
    _, b = _factors(study / "runs/sft/seed1/milestones/1", module)
    start, _ = _factors(study / "runs/sft/seed1/milestones/0", module)
    file = study / "bases/sft/seed1.safetensors"
    left = spectrum_bases.read(file, "trained", "left", module).astype(np.float64)
    right = spectrum_bases.read(file, "random", "right", module).astype(np.float64)
    assert left.shape == (32, R) and spectrum_bases.modules(file) == set(
        weights.linears(tiny_models.folder("qwen2_5_vl"), "all")
    )
    for basis, matrix in ((left, b.numpy()), (right, start.numpy().T)):
        np.testing.assert_allclose(basis @ (basis.T @ matrix), matrix, atol=5e-3 * np.abs(matrix).max())


def test_overlaps_have_their_nulls(table: pl.DataFrame):
    """Rank 4 in rows of 32, 16, 16, 32, 48, 48 and 32: 4/7 (3/32 + 2/16 + 2/48) = .14881 is expected of any two.

    Right subspaces of one seed share A's start: nearly 1 for unrelated B, as for the trained ones.
    """
    pairs = table.filter(pl.col("method").is_in(["sft", "dpo"]) & pl.col("versus").is_in(["sft", "dpo", "seed2"]))
    means = pairs.group_by("statistic", "update", same=pl.col("versus") == "seed2").agg(pl.col("value").mean())
    value = {(s, u, same): v for s, u, same, v in means.rows()}
    expected = 4 / 7 * (3 / 32 + 2 / 16 + 2 / 48)
    assert value["overlap_left_expected", "trained", False] == pytest.approx(expected, abs=1e-9)
    assert value["overlap_left", "random", False] == pytest.approx(expected, abs=0.05)
    assert value["overlap_right", "random", False] == pytest.approx(1, abs=1e-3)
    assert value["overlap_right", "trained", False] > 0.9
    assert value["overlap_right", "random", True] < 0.3
    # Trained updates here are random too: nothing is shared.
    assert value["overlap_left", "trained", False] == pytest.approx(expected, abs=0.05)


def test_the_table_covers_the_study(table: pl.DataFrame):
    assert table["study"].unique().to_list() == ["tiny"]
    keys = ["method", "seed", "fraction", "update", "kind", "layer", "index", "versus", "statistic"]
    assert table.select(pl.struct(keys).n_unique()).item() == len(table)
    assert set(table.select("method", "seed").unique().rows()) == set(RUNS)
    assert table.filter(fraction=0.5)["step"].unique().to_list() == [5]
    sizes = table.filter(statistic="relative_frobenius", kind="all", fraction=1.0, update="trained", seed=1)
    sizes = dict(sizes.filter(pl.col("layer").is_null()).select("method", "value").rows())
    assert 0 < sizes["sft"] < sizes["dpo"] and sizes["prompts"] is None


def test_what_a_run_cannot_have_says_why(table: pl.DataFrame):
    reasons = table.drop_nulls("missing").select("method", "missing").unique()
    assert set(reasons.rows()) == {
        ("prompts", module_spectra.NO_UPDATE), ("whole", module_spectra.NO_ADAPTER), ("dpo", spectrum_norms.TOO_FAR),
    }  # fmt: skip
    assert table.filter(pl.col("value").is_null())["missing"].null_count() == 0
    drifts = table.filter(pl.col("statistic").str.starts_with("drift") & (pl.col("method") == "whole"))
    assert len(drifts) and drifts["value"].null_count() == len(drifts)
    text = figure_spectrum(table).layout.annotations[-1].text
    assert "Not computed for prompts: prompt tuning" in text


def test_an_adapter_from_elsewhere_has_no_known_start(study: Path):
    run = study / "elsewhere.json"
    run.write_text(json.dumps({"kind": "adapter", "reference": "base", "steps": {"0": 0, "1": None}}))
    rows = tables.read(extract(study, "sft", 1, "_external", run=run), "extract_spectrum")
    assert rows["fraction"].unique().to_list() == [1] and rows["drift"].null_count() == len(rows)
    assert rows["missing"].unique().to_list() == [module_spectra.NO_START]


def test_a_killed_job_goes_on_where_it_stopped(study: Path):
    done, measure = [], module_spectra.measure

    def dies(module, *given):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(module.name)
        return measure(module, *given)

    with patch.object(module_spectra, "measure", dies), pytest.raises(KeyboardInterrupt):
        extract(study, "dpo", 2, "_killed")
    with patch.object(module_spectra, "measure", wraps=measure) as counted:
        again = extract(study, "dpo", 2, "_killed")
    assert counted.call_count == 14 - 5
    whole = tables.read(study / "extracts/dpo/seed2.parquet", "extract_spectrum")
    assert tables.read(again, "extract_spectrum").equals(whole)
    bases = [(study / f"bases{which}/dpo/seed2.safetensors").read_bytes() for which in ("", "_killed")]
    assert bases[0] == bases[1]


def test_bad_files_are_named(study: Path, tmp_path: Path):
    good = study / "bases/sft/seed1.safetensors"
    bad = tmp_path / "sft/seed1.safetensors"
    bad.parent.mkdir()
    bad.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(InputError, match=re.escape(f"{bad}: no whole file of bases")):
        script("spectrum")(**{**reduction(study), "bases": [bad]})
    with pytest.raises(InputError, match="no such table"):
        script("spectrum")(**{**reduction(study), "extracts": [tmp_path / "sft/seed3.parquet"]})
    with pytest.raises(InputError, match="holds no decomposition"):
        extract(study, "sft", 1, "_bad", svd=tmp_path)
