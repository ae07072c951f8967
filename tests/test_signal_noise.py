"""Signal-to-noise ratios of gradients whose mean and variance are known, moments, sketches, generalisation ratio."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from memedynamics import moments, signal_noise
from memedynamics.moments import GROUPS, SIZE, Gradients, merged, sketch, strength, without_each
from memedynamics.signal_noise import Resampled, Strengths


def gaussian(n: int, entries: int, ratio: float, seed: int) -> torch.Tensor:
    """Gradients (n, entries) with variance 4 and squared mean 4·ratio in every entry."""
    noise = torch.randn(n, entries, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return 2 * math.sqrt(ratio) + 2 * noise


def measured(gradients: torch.Tensor) -> dict[str, float]:
    """The statistics of `gradients`, of one layer on train."""
    found = strength(moments.moments(gradients))
    key = {"method": "sft", "seed": 1, "fraction": 1.0, "dataset": "d", "split": "train", "module": "m"}
    row = {**key, "n": len(gradients), **found._asdict(), "snr_without": None, "gsnr_without": None}
    return {value["statistic"]: value["value"] for value in signal_noise._values(row)}


@pytest.mark.parametrize("ratio", [0.0, 0.05, 1.0])
def test_snr_of_gaussian_gradients_is_unbiased_and_the_plug_in_has_a_floor(ratio):
    """n = 10, mean of 300 draws of 400 entries: standard error below .002 (ratio 1: .006); plug-in: ratio + 1/10."""
    found = [measured(gaussian(10, 400, ratio, seed)) for seed in range(300)]
    mean = {name: np.mean([one[name] for one in found]) for name in found[0]}
    assert mean["snr"] == pytest.approx(ratio, abs=0.004 + 0.01 * ratio)
    assert mean["snr_plug_in"] == pytest.approx(ratio + 0.1, abs=0.004 + 0.01 * ratio)
    # Entry by entry 1/s² is too large on average, by (n − 1)/(n − 3) = 9/7.
    assert mean["gsnr_plug_in"] == pytest.approx((ratio + 0.1) * 9 / 7, abs=0.004 + 0.01 * ratio)
    assert mean["gsnr"] == pytest.approx(mean["gsnr_plug_in"] - 0.1)


def test_strength_by_hand():
    """Entry 1: 1, 3, mean 2, s² 2; entry 2: 4, 4, mean 4, s² 0: Σḡ² 20, Σs² 2, mean ratio of those that vary 4/2."""
    found = strength(moments.moments(torch.tensor([[1.0, 4.0], [3.0, 4.0]])))
    assert found == (20.0, 2.0, 2.0, 2, 1)
    # 20/2 − 1/2
    assert signal_noise.snr(Strengths(np.array(20.0), np.array(2.0), 2)) == 9.5


def test_batches_of_moments_equal_two_passes():
    """With a mean 1e4 times the deviation, where a sum of squares in float32 loses everything."""
    samples = torch.randn(23, 4, 3, generator=torch.Generator().manual_seed(0)) + 1e4
    state = None
    for batch in samples.split([1, 9, 5, 8]):
        state = merged(state, moments.moments(batch))
    wide = samples.double().numpy()
    assert state.n == 23
    np.testing.assert_allclose(state.mean.numpy(), wide.mean(0), rtol=1e-6)
    np.testing.assert_allclose((state.squares / 22).numpy(), wide.var(0, ddof=1), rtol=2e-2)
    double = None
    for batch in samples.double().split(5):
        double = merged(double, moments.moments(batch))
    np.testing.assert_allclose((double.squares / 22).numpy(), wide.var(0, ddof=1), rtol=1e-9)


def test_osgr_of_a_toy():
    """Loss ½(w − x)², x = ±1 + m: gradients at 0 are −x, mean −m, variance 1. One step of rate λ, small, on n memes:

    own loss falls by λ·E ḡ² = λ(m² + 1/n), the expected loss by λ·m²; at m² = 1/4, n = 4 the ratio is ½.
    """
    rng, n, shift = np.random.default_rng(0), 4, 0.5
    means = (rng.choice([-1.0, 1.0], (200_000, n)) + shift).mean(1)
    simulated = (means * shift).mean() / (means**2).mean()
    assert signal_noise.osgr(np.array(shift**2), n) == 0.5 == pytest.approx(simulated, abs=0.01)
    assert signal_noise.osgr(np.array(0.0), n) == 0


def test_osgr_stays_between_0_and_1():
    """Below 0 the corrected ratio is noise: at r = −.024, n = 40 the formula alone gives −.024/.001 = −24."""
    ratios = np.array([-1.0, -0.025, -0.024, 0.0, 1.0, 1e9, np.nan])
    found = signal_noise.osgr(ratios, 40)
    assert (found[:4] == 0).all() and 0 < found[4] < found[5] <= 1 and np.isnan(found[6])


def test_osgr_of_noise_and_its_interval_stay_between_0_and_1():
    vectors = np.random.default_rng(4).normal(size=(100, SIZE))
    rows = signal_noise.rows(signals(vectors), extracted(vectors), PROMPTS, 200)
    (found,) = (row for row in rows if row["statistic"] == "osgr" and row["module"] == "all")
    assert 0 == found["ci_low"] <= found["value"] <= found["ci_high"] <= 1


def test_gsnr_of_the_whole_is_the_mean_over_entries_that_vary():
    """n = 2. Layer a: 1 of 4 entries varies, ratio 6; b: 3 of 3, ratio 2; c: none. (1·6 + 3·2)/(1 + 3) = 3, less ½."""
    key = {
        "method": "sft",
        "seed": 1,
        "fraction": 1.0,
        "dataset": "d",
        "split": "val",
        "n": 2,
        "mean_sq": 1.0,
        "var": 1.0,
    }
    layers = [("a", 4, 6.0, 1), ("b", 3, 2.0, 3), ("c", 5, None, 0)]
    names = ("module", "parameters", "ratio", "varying")
    frame = pl.DataFrame([key | dict(zip(names, layer, strict=True)) for layer in layers])
    left = pl.Series([[1.0, 2.0, 3.0], [3.0, 3.0, 3.0], None], dtype=pl.List(pl.Float64))
    frame = frame.with_columns(snr_without=left, gsnr_without=left)
    (whole,) = signal_noise._whole(frame).to_dicts()
    values = {row["statistic"]: row["value"] for row in signal_noise._values(whole)}
    assert (values["gsnr_plug_in"], values["gsnr"]) == (3, 2.5)
    # Without each group: (1·1 + 3·3)/4, (2 + 9)/4, (3 + 9)/4.
    assert whole["gsnr_without"] == [2.5, 2.75, 3]
    (nothing,) = signal_noise._whole(frame.filter(module="c")).to_dicts()
    assert all(np.isnan(row["value"]) for row in signal_noise._values(nothing) if "gsnr" in row["statistic"])


def test_sketches_keep_inner_products_and_add_up():
    """Of gradients of 20,000 entries, SIZE 512: standard error √(2/512) = .0625 of the product of norms."""
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn(40, 100, 200, generator=generator) + 0.3
    found = sketch(gradients, "layer")
    assert found.shape == (40, SIZE) and torch.equal(found[3:4], sketch(gradients[3:4], "layer"))
    exact, kept = gradients.flatten(1) @ gradients.flatten(1).T, found @ found.T
    assert ((kept - exact).abs() / exact.diagonal().mean()).max() < 5 * 0.0625
    # A second layer's signs are its own: sketches of both add up to one of the two together.
    both = found + sketch(gradients, "other")
    gap = (both.square().sum(1) - 2 * exact.diagonal()) / exact.diagonal()
    assert gap.abs().mean() < 0.2


def test_resamples_stand_around_the_estimate():
    """Resampling adds s²/n to ḡ²: corrected for it, replicates of the plug-in centre on the sample's own."""
    vectors = gaussian(60, SIZE, 0.05, 5).numpy()
    rng = np.random.default_rng(0)
    weights = rng.multinomial(60, np.full(60, 1 / 60), 3000).astype(float)
    drawn = Resampled.of(vectors, np.arange(60), weights)
    assert drawn.plug_in().mean() == pytest.approx(drawn.plain, rel=0.02)
    uncorrected = np.square(drawn.means).sum(1) / drawn.var
    assert uncorrected.mean() - drawn.plain == pytest.approx(1 / 60, rel=0.1)


PROMPTS = pl.DataFrame(
    {"dataset": "d", "split": ["train"] * 50 + ["val"] * 50, "id": [f"m{i:02d}" for i in range(100)]}
).with_columns(label=pl.lit(1, pl.Int8), text=pl.col("id")).sort("dataset", "split", "id")  # fmt: skip


def extracted(vectors: np.ndarray) -> pl.DataFrame:
    """Group `all` of PROMPTS with these sketches."""
    where = {"method": "sft", "fraction": 1.0, "group": "all", "label": 1, "phi": 0.0, "occlusion": None}
    typed = {name: pl.lit(value) for name, value in where.items()}
    frame = PROMPTS.select("dataset", "split", "id").with_columns(**typed, seed=pl.lit(1, pl.Int32))
    return frame.with_columns(gradient=pl.Series(vectors.tolist(), dtype=pl.List(pl.Float32)))


def signals(vectors: np.ndarray) -> pl.DataFrame:
    """The exact strengths of the same vectors, as if they were the gradients."""
    rows = []
    for split in ("train", "val"):
        some = torch.tensor(vectors[(PROMPTS["split"] == split).to_numpy()])
        key = {"method": "sft", "seed": 1, "fraction": 1.0, "dataset": "d", "split": split, "module": "layers.0"}
        left = without_each(grouped(some[:, None]), "layer")
        lists = {"snr_without": [one.mean_sq / one.var for one in left]}
        lists["gsnr_without"] = [one.ratio for one in left]
        rows.append({**key, "n": len(some), **strength(moments.moments(some))._asdict(), **lists})
    return pl.DataFrame(rows, schema_overrides={"seed": pl.Int32})


def grouped(samples: torch.Tensor) -> moments.Layers:
    """What `Gradients` keeps of `samples` (n, out, in) in one batch, sample i in group i % 10."""
    found = Gradients([i % GROUPS for i in range(len(samples))])
    found("layer", samples)
    return found.moments


def test_rows_of_a_run():
    """Train and val share no direction: a step on train does not help val, whatever the formula expects."""
    noise = np.random.default_rng(2).normal(size=(100, SIZE))
    shift = np.where(np.arange(SIZE) < SIZE // 2, 0.5, 0.0)
    vectors = noise + np.where((PROMPTS["split"] == "train").to_numpy()[:, None], shift, shift[::-1])
    rows = signal_noise.rows(signals(vectors), extracted(vectors), PROMPTS, 300)
    found = pl.DataFrame(rows, infer_schema_length=None)
    whole = found.filter(module="all")

    def one(statistic, split):
        return whole.filter(statistic=statistic, split=split).row(0, named=True)

    # Half of the entries with mean ½, variance 1: Σḡ²/Σs² = 1/8.
    assert one("snr", "train")["value"] == pytest.approx(1 / 8, abs=0.03)
    assert one("snr", "train")["ci_low"] < one("snr", "train")["value"] < one("snr", "train")["ci_high"]
    # .125/(.125 + .02) = .862
    assert one("osgr", "train")["value"] == pytest.approx(0.862, abs=0.03)
    measured_osgr = one("osgr_measured", "train-val")
    assert measured_osgr["ci_low"] < 0 < measured_osgr["ci_high"] and abs(measured_osgr["value"]) < 0.1
    # One layer is the whole; and every number has its interval.
    for statistic in ("snr", "gsnr"):
        layer = found.filter(module="layers.0", statistic=statistic, split="val").row(0, named=True)
        assert layer["value"] == pytest.approx(one(statistic, "val")["value"])
        assert layer["ci_low"] < layer["value"] < layer["ci_high"]
    assert one("gsnr", "val")["ci_low"] == pytest.approx(layer["ci_low"])
    assert found["ci_low"].is_not_nan().all()
    osgr = found.filter(module="layers.0", statistic="osgr").row(0, named=True)
    assert 0 <= osgr["ci_low"] < osgr["value"] < osgr["ci_high"] <= 1


def test_a_common_direction_generalises():
    """Both splits with mean ½ in every entry: the measured ratio is what the formula says, .25/(.25 + .02) = .926."""
    vectors = np.random.default_rng(3).normal(0.5, 1, (100, SIZE))
    rows = signal_noise.rows(signals(vectors), extracted(vectors), PROMPTS, 200)
    values = {(row["statistic"], row["split"]): row for row in rows if row["module"] == "all"}
    assert values["osgr", "train"]["value"] == pytest.approx(0.926, abs=0.02)
    found = values["osgr_measured", "train-val"]
    assert found["value"] == pytest.approx(0.926, abs=0.05) and found["ci_low"] < found["value"] < found["ci_high"]


def test_a_run_without_factors_says_so():
    vectors = np.ones((100, SIZE))
    none = extracted(vectors).with_columns(gradient=pl.lit(None, pl.List(pl.Float32)))
    (row,) = signal_noise.rows(signals(vectors).clear(), none, PROMPTS, 10)
    assert np.isnan(row["value"]) and row["missing"] == signal_noise.WITHOUT and row["split"] == "val"


def test_a_group_left_out_is_a_sample_without_it():
    """In batches, once more from all the samples but one group's; of under three groups nothing is left."""
    samples = torch.randn(23, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
    group = torch.arange(23) * 7 % 5
    states: moments.States = {}
    for batch in torch.arange(23).split([1, 9, 5, 8]):
        found = Gradients(group[batch].tolist())
        found("layer", samples[batch])
        moments.join(states, {1.0: found.moments})
    left = without_each(states[1.0], "layer")
    for number, one in enumerate(left):
        assert one == pytest.approx(strength(moments.moments(samples[group != number])))
    assert len(left) == 5
    few = {key: found for key, found in states[1.0].items() if key[1] in (None, 0, 1)}
    assert without_each(few, "layer") == [] == without_each(states[1.0], "other")


@pytest.mark.parametrize("entries", [120, 6000])
def test_the_jackknife_covers(entries: int):
    """60 memes whose gradients lean one way by ¼, each along two directions all entries share as well as at random.

    Of 120 such samples the interval of 95 % holds the mean of the estimates in more than 86 %, which nine in ten may
    give by chance and an interval of two thirds its width does not; and not in all, where all entries are read.
    """
    generator, n = torch.Generator().manual_seed(0), 60
    shared = torch.randn(2, entries, generator=generator)
    found = {"snr": [], "gsnr": []}
    for _ in range(120):
        own = torch.randn(n, 2, generator=generator) @ shared + torch.randn(n, entries, generator=generator)
        layers = grouped((0.25 * shared[0] + own)[:, None])
        left = without_each(layers, "layer")
        row = {"method": "sft", "seed": 1, "fraction": 1.0, "dataset": "d", "split": "val", "module": "layer"}
        row |= {"n": n, **strength(layers["layer", None])._asdict()}
        row["snr_without"] = [one.mean_sq / one.var for one in left]
        row["gsnr_without"] = [one.ratio for one in left]
        for one in signal_noise._values(row):
            if one["statistic"] in found:
                found[one["statistic"]].append([one[name] for name in ("value", "ci_low", "ci_high")])
    for rows in found.values():
        value, low, high = np.array(rows).T
        covered = ((low <= value.mean()) & (value.mean() <= high)).mean()
        assert covered > 0.86 and (covered < 1 or entries > moments.SOME)
