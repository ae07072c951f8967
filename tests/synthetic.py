"""A made-up study on disk, in the schemas of a real one: base, three methods, two seeds, four milestones.

Policies drift from the base with `fraction`: right answers become likelier, token distributions move. Token
distributions are explicit (a vocabulary of VOCAB), so every divergence has an independent value: see `distributions`.
"""

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from memedynamics import checksums, tables

METHODS = ("sft", "dpo", "grpo")
SEEDS = (1, 2)
FRACTIONS = (0.25, 0.5, 1.0)
SPLITS = {("memes", "train"): 60, ("memes", "val"): 50, ("memes", "test"): 50, ("other", "test"): 40}
SAMPLES = 4
VOCAB = 5
SPANS = ("format", "rationale", "rationale", "format", "answer", "format", "end")
DRIFT = {"base": 0.0, "sft": 0.6, "dpo": 1.2, "grpo": 0.35}
SKILL = {"base": 0.0, "sft": 0.5, "dpo": 0.8, "grpo": 1.1}


def _rng(*names: object) -> np.random.Generator:
    return np.random.default_rng([*"/".join(map(str, names)).encode()])


def data(dataset: str, split: str, n: int) -> pl.DataFrame:
    """`n` memes in schema `data`, labels balanced; every tenth shares its caption with the one before, one is empty."""
    rows = np.arange(n)
    captions = [f"{dataset} {split} caption {i - (i % 10 == 9)}" for i in rows]
    captions[0] = ""
    return pl.DataFrame(
        {
            "study": "synthetic",
            "dataset": dataset,
            "split": split,
            "id": [f"{dataset}-{split}-{i:03d}" for i in rows],
            "image": "none.png",
            "image_sha256": "0" * 64,
            "width": 8,
            "height": 8,
            "text": captions,
            "label": rows % 2,
            "groups": [[] for _ in rows],
        },
        schema_overrides={"groups": pl.List(pl.String)},
    )


def _responses_of(memes: pl.DataFrame, num_samples: int) -> pl.DataFrame:
    samples = pl.DataFrame({"sample": np.arange(num_samples)})
    return memes.select("study", "dataset", "split", "id", "label").join(samples, how="cross")


def samples(memes: pl.DataFrame, method: str, seed: int, fraction: float, num_samples: int = SAMPLES) -> pl.DataFrame:
    """Responses in schema `samples`; skill rises with `fraction`, about a tenth break the format, a few are cut."""
    rng = _rng("samples", method, seed, fraction, memes["dataset"][0], memes["split"][0])
    rows = _responses_of(memes, num_samples)
    skill = 0.4 + SKILL[method] * fraction + 0.1 * (seed - 1) * fraction
    ability = np.repeat(_rng("ability", memes["split"][0]).normal(0, 0.7, len(memes)), num_samples)
    sign = 2 * rows["label"].to_numpy() - 1
    p = 1 / (1 + np.exp(-sign * (skill + ability) - rng.normal(0, 0.8, len(rows))))
    invalid, cut = rng.random(len(rows)) < 0.12 * (1 - 0.8 * fraction), rng.random(len(rows)) < 0.03
    answer = np.where(invalid, "invalid", np.where(rng.random(len(rows)) < p, "yes", "no"))
    correct = answer == np.where(sign > 0, "yes", "no")
    return rows.drop("label").with_columns(
        fraction=pl.lit(float(fraction)),
        token_ids=pl.Series([list(range(int(k))) for k in rng.integers(5, 12, len(rows))]),
        text=pl.lit("<think> made up </think><answer> Yes </answer>"),
        tokens=pl.lit("drawn"),
        finish_reason=pl.Series(np.where(cut, "length", "stop")),
        logp=pl.Series(-rng.random(len(rows)) * 9),
        answer=pl.Series(answer),
        format_ok=pl.Series(~invalid & ~cut),
        correct=pl.Series(correct),
        reward=pl.Series(0.9 * correct + 0.1 * (~invalid & ~cut)),
        p_hateful=pl.Series(p),
        label_mass=pl.lit(0.98),
        forced=pl.Series(invalid),
    )


@cache  # traces and responses are of the same ones
def distributions(method: str, seed: int, fraction: float, meme: str, num_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """π and π0 over the vocabulary at each position of a meme's responses, (num_tokens, VOCAB) each.

    They depend on meme and position only, not on the prefix: a response's KL is the sum over its positions.
    """
    reference = _rng("reference", meme).normal(0, 1, (num_tokens, VOCAB))
    step = DRIFT[method] * np.sqrt(fraction)
    shared = _rng("step", method, meme).normal(0, step, reference.shape)
    own = _rng("own", method, seed, meme).normal(0, step / 3, reference.shape)
    policy = reference + shared + own
    # The base against itself by another code path: rounding, not movement.
    policy = policy + (_rng("path", meme).normal(0, 1e-4, reference.shape) if method == "base" else 0)
    return tuple(np.exp(z - np.log(np.exp(z).sum(1, keepdims=True))) for z in (policy, reference))


def traces(
    memes: pl.DataFrame, method: str, seed: int, fraction: float, kind: str, num_samples: int = SAMPLES
) -> pl.DataFrame:
    """Token rows in schema `traces`; y ~ π0 for kind base_sample, shared by all policies, y ~ π for own_sample."""
    columns = {name: [] for name in ("token_id", "logp", "ref_logp", "kl_forward", "kl_reverse", "acceptance")}
    for meme in memes["id"]:
        policy, reference = distributions(method, seed, fraction, meme, len(SPANS))
        drawn_from = reference if kind == "base_sample" else policy
        who = () if kind == "base_sample" else (method, seed, fraction)
        noise = _rng("tokens", meme, *who).random((num_samples, len(SPANS), 1))
        tokens = (noise > drawn_from.cumsum(1)[None, :, :-1]).sum(-1)
        at = np.arange(len(SPANS))
        columns["token_id"].append(tokens.ravel())
        columns["logp"].append(np.log(policy[at, tokens]).ravel())
        columns["ref_logp"].append(np.log(reference[at, tokens]).ravel())
        columns["kl_forward"].append(np.tile((reference * np.log(reference / policy)).sum(1), num_samples))
        columns["kl_reverse"].append(np.tile((policy * np.log(policy / reference)).sum(1), num_samples))
        columns["acceptance"].append(np.tile(np.minimum(policy, reference).sum(1), num_samples))
    rows = _responses_of(memes, num_samples).drop("label")
    tokens = pl.DataFrame({"position": np.arange(len(SPANS)), "span": SPANS})
    frame = rows.join(tokens, how="cross", maintain_order="left_right").with_columns(
        **{name: pl.Series(np.concatenate(values)) for name, values in columns.items()},
        fraction=pl.lit(float(fraction)),
        probe_kind=pl.lit(kind),
        entropy=pl.lit(1.0),
        rank=pl.lit(0),
    )
    # Every fifteenth response is cut: its end token is missing.
    cut = (pl.col("span") == "end") & ((pl.col("id").str.tail(3).cast(pl.Int64) + pl.col("sample")) % 15 == 0)
    return frame.filter(~cut)


def responses(
    memes: pl.DataFrame, method: str, seed: int, fraction: float, kind: str, num_samples: int = SAMPLES
) -> pl.DataFrame:
    """Response rows in schema `responses` for the same texts as `traces`."""
    keys = ["study", "fraction", "probe_kind", "dataset", "split", "id", "sample"]
    tokens = traces(memes, method, seed, fraction, kind, num_samples)
    sums = [pl.col(name).sum() for name in ("logp", "ref_logp", "kl_forward", "kl_reverse")]
    frame = tokens.group_by(keys, maintain_order=True).agg(*sums, num_tokens=pl.len())
    rng = _rng("responses", memes["split"][0], memes["dataset"][0])
    sign = np.repeat(2 * memes["label"].to_numpy() - 1, num_samples)
    logit = sign * 0.4 + rng.normal(0, 1, len(frame))
    moved = logit + sign * SKILL[method] * fraction * (1.5 if memes["split"][0] == "train" else 1)
    return frame.with_columns(
        p_hateful=pl.Series(1 / (1 + np.exp(-moved))),
        ref_p_hateful=pl.Series(1 / (1 + np.exp(-logit))),
        label_mass=pl.lit(0.98),
        forced=pl.Series(rng.random(len(frame)) < 0.1),
        ches=pl.lit(None, pl.Float64),
        ches_normalised=pl.lit(None, pl.Float64),
    )


def write_study(
    folder: Path, methods: tuple[str, ...] = METHODS, seeds: tuple[int, ...] = SEEDS
) -> dict[str, list[Path]]:
    """Write the whole study under `folder`; returns its paths by artefact (data, base, samples, traces, …)."""
    paths: dict[str, list[Path]] = {name: [] for name in ("data", "base", "samples", "traces", "responses", "runs")}
    memes = {key: data(*key, n) for key, n in SPLITS.items()}
    for (dataset, split), frame in memes.items():
        paths["data"].append(_write(frame, folder / f"data/{dataset}/{split}.parquet", "data"))
        base = samples(frame, "base", 0, 0)
        paths["base"].append(_write(base, folder / f"samples/base/{dataset}/{split}.parquet", "samples"))
    probed = [frame for key, frame in memes.items() if key != ("memes", "test")]
    _write_scores(folder, paths, "base", 0, [(frame, 0.0, "base_sample") for frame in probed])
    for method in methods:
        for seed in seeds:
            _write_run(folder, paths, method, seed, memes, probed)
    return paths


def _write_run(folder: Path, paths: dict, method: str, seed: int, memes: dict, probed: list[pl.DataFrame]) -> None:
    answered = [
        (frame, fraction)
        for fraction in FRACTIONS
        for (_, split), frame in memes.items()
        if split == "val" or (split == "test" and fraction == 1)
    ]
    own = pl.concat([samples(frame, method, seed, fraction) for frame, fraction in answered])
    paths["samples"].append(_write(own, folder / f"samples/{method}/seed{seed}.parquet", "samples"))
    texts = [(frame, fraction, "base_sample") for frame in probed for fraction in FRACTIONS]
    _write_scores(folder, paths, method, seed, texts + [(*text, "own_sample") for text in answered])
    steps = {"0": 0} | {f"{fraction:g}": round(80 * fraction) for fraction in FRACTIONS}
    run = folder / f"runs/{method}/seed{seed}/run.json"
    run.parent.mkdir(parents=True, exist_ok=True)
    checksums.write_json(run, {"kind": "adapter", "reference": "base", "total_steps": 80, "steps": steps})
    paths["runs"].append(run)


def _write_scores(folder: Path, paths: dict, method: str, seed: int, texts: list[tuple]) -> None:
    for name, build in {"traces": traces, "responses": responses}.items():
        frame = pl.concat([build(memes, method, seed, fraction, kind) for memes, fraction, kind in texts])
        target = folder / f"{name}/{method}/seed{seed}/1-of-1.parquet"
        paths[name].append(_write(frame, target, name).parent)


def _write(frame: pl.DataFrame, path: Path, name: str) -> Path:
    tables.write(frame, path, name)
    return path
