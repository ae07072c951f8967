"""A made-up study for the memes browser: pictures, captions and responses of real tokens, as hostile as one likes.

Responses are drawn from a pool, so that thousands of memes are written in seconds; every policy errs by its own luck.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from analysed_study import script
from memedynamics import images, schemas, tables
from memedynamics.keys import MEME
from memedynamics.report_page import Page
from memedynamics.sections import Report
from memedynamics.study import plain

SCRIPT, IMAGE = "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>'
CAPTIONS = (SCRIPT, IMAGE, "love the way you smell today", "مرحبا بالعالم", "", "ὅταν 猫 😀\nin two lines", "a" * 300)
THOUGHTS = (
    SCRIPT,
    IMAGE,
    "a red cat 😀 and 日本",
    "the caption is\nnot about what the picture shows",
    "it mocks a group",
)
RUNS = (("sft", 1), ("sft", 2), ("dpo", 1), ("dpo", 2), ("grpo", 1), ("grpo", 2), ("theirs", 0))
MEMES = {("memes", "val"): 40, ("memes", "test"): 30, ("other", "test"): 30}
GROUPS = ("religion", "race", IMAGE)
UNSCORED = ("memes", "test")  # of which the base's responses are not probed
EARLY, ANSWERED = 0.5, 8  # a milestone before the end, and how many memes of the first split were answered at it
LOOKED = 8  # memes of each split that attention was read for
SAMPLES = 4
END = "<|im_end|>"


class Pool:
    """Responses: of each its tokens, its answer, and whether it is well-formed."""

    def __init__(self, folder: Path, thoughts: Sequence[str]) -> None:
        texts = [f"<think> {t} </think><answer> {a} </answer>{END}" for t in thoughts for a in ("Yes", "No")]
        texts += [f"{t} I cannot say{END}" for t in thoughts]
        self.answers = np.array(["yes", "no"] * len(thoughts) + ["invalid"] * len(thoughts))
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator([text for text in texts if "😀" not in text], trainer)
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        self.tokens = [tokenizer.encode(text).ids for text in texts]
        self.lengths = np.array([len(tokens) for tokens in self.tokens])

    def __len__(self) -> int:
        return len(self.tokens)


def picture(path: Path, number: int, side: int) -> images.Picture:
    """Stripes and a number; drawn anew only where it is missing."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (side, side * 3 // 4), tuple(rng.integers(60, 255, 3)))
    draw = ImageDraw.Draw(image)
    for colour in rng.integers(0, 255, (4, 3)):
        x, y, w, h = rng.integers(0, side, 4)
        draw.ellipse((x, y, x + w, y + h), fill=tuple(colour))
    draw.text((side // 3, side // 3), str(number), fill="white", font_size=side // 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return images.Picture(path, images.pixel_digest(image), *image.size)


def data(folder: Path, key: tuple[str, str], place: int, n: int, captions: Sequence[str], side: int) -> pl.DataFrame:
    """`n` memes in schema `data`, file names and ids as hostile as captions."""
    dataset, split = key
    ids = [f"{split}-{i:05d}{IMAGE if i == 1 else ''}" for i in range(n)]
    names = [folder / f"memes/{dataset} {split}/{i:05d} <b>&'x.jpg" for i in range(n)]
    drawn = [picture(name, 1000 * place + i, side) for i, name in enumerate(names)]
    groups = [[GROUPS[i % 3]] * (i % 4 == 0) + ["nationality"] * (i % 6 == 0) for i in range(n)]
    return pl.DataFrame(
        {
            "study": "browsed",
            "dataset": dataset,
            "split": split,
            "id": ids,
            "image": [str(name) for name in names],
            "image_sha256": [found.sha256 for found in drawn],
            "width": side,
            "height": side * 3 // 4,
            "text": [captions[i % len(captions)] for i in range(n)],
            "label": [i % 2 for i in range(n)],
            "groups": groups,
        },
        schema_overrides={"groups": pl.List(pl.String)},
    )


def samples(memes: pl.DataFrame, pool: Pool, skill: float, rng: np.random.Generator, fraction: float, k: int):
    """Responses in schema `samples`, and the pool's number of each; `skill` is P(right) of well-formed ones."""
    n = len(memes) * k
    label = np.repeat(memes["label"].to_numpy(), k)
    hard = np.repeat(rng.normal(0, 0.25, len(memes)), k)
    yes = np.where(rng.random(n) < skill + hard, label, 1 - label).astype(bool)
    third = len(pool) // 3
    number = 2 * rng.integers(0, third, n) + ~yes
    number = np.where(rng.random(n) < 0.25 * (1 - skill), 2 * third + rng.integers(0, third, n), number)
    answer = pool.answers[number]
    correct = answer == np.where(label == 1, "yes", "no")
    rows = memes.select("study", *MEME).join(pl.DataFrame({"sample": np.arange(k)}), how="cross")
    frame = rows.with_columns(
        fraction=pl.lit(float(fraction)),
        token_ids=pl.Series([pool.tokens[i] for i in number]),
        text=pl.lit("as tokens"),
        tokens=pl.lit("drawn"),
        finish_reason=pl.lit("stop"),
        logp=pl.lit(-5.0),
        answer=pl.Series(answer),
        format_ok=pl.Series(answer != "invalid"),
        correct=pl.Series(correct),
        reward=pl.Series(correct * 1.0),
        p_hateful=pl.Series(np.where(yes, 0.5 + rng.random(n) / 2, rng.random(n) / 2)),
        label_mass=pl.lit(0.98),
        forced=pl.Series(answer == "invalid"),
    )
    return frame, number


def traces(rows: pl.DataFrame, number: np.ndarray, pool: Pool, kind: str, fraction: float, rng) -> pl.DataFrame:
    """Token rows in schema `traces` of the responses `number` that `rows` (schema `samples`) name."""
    lengths = pool.lengths[number]
    keys = rows.select("study", *MEME, "sample")[np.repeat(np.arange(len(rows)), lengths)]
    n = len(keys)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    kl = {name: pl.Series(rng.gamma(0.15, 0.6, n)) for name in ("kl_forward", "kl_reverse")}
    return keys.with_columns(
        **kl,
        fraction=pl.lit(float(fraction)),
        probe_kind=pl.lit(kind),
        position=pl.Series(np.arange(n) - starts),
        token_id=pl.Series(np.concatenate([pool.tokens[i] for i in number])),
        span=pl.lit("rationale"),
        logp=pl.lit(-1.0),
        ref_logp=pl.lit(-1.0),
        entropy=pl.lit(1.0),
        acceptance=pl.lit(0.9),
        rank=pl.lit(0),
    )


def responses(rows: pl.DataFrame, kind: str, fraction: float, rng: np.random.Generator) -> pl.DataFrame:
    """Response rows in schema `responses` of `rows` (schema `samples`)."""
    numbers = ("logp", "ref_logp", "kl_forward", "kl_reverse")
    return rows.select("study", *MEME, "sample", "forced").with_columns(
        **{name: pl.lit(0.5) for name in numbers},
        fraction=pl.lit(float(fraction)),
        probe_kind=pl.lit(kind),
        p_hateful=pl.Series(rng.random(len(rows))),
        label_mass=pl.lit(0.98),
        ref_p_hateful=pl.lit(0.5),
        ches=pl.lit(None, pl.Float64),
        ches_normalised=pl.lit(None, pl.Float64),
        num_tokens=pl.lit(9),
    )


def looks(memes: Sequence[pl.DataFrame], fractions: Sequence[float], rng: np.random.Generator) -> pl.DataFrame:
    """Attention of LOOKED memes of each split in two layers at `fractions`, in schema `extract_attention`."""
    some = pl.concat([frame.head(LOOKED).select("study", *MEME) for frame in memes])
    columns = schemas.SCHEMAS["extract_attention"].names
    grid = pl.DataFrame({"layer": [0, 0, 1, 1], "head": ["mean", "max"] * 2})
    grid = pl.DataFrame({"fraction": map(float, fractions)}).join(grid, how="cross")
    rows = some.join(grid, how="cross").with_columns(
        policy=pl.lit("trained"), perturbation=pl.lit("clean"), sink_share=pl.lit(0.1)
    )
    for name in columns:
        if name.startswith(("share_", "sinkless_")):
            rows = rows.with_columns(pl.lit(0.2).alias(name))
        if name.startswith("tokens_"):
            rows = rows.with_columns(pl.lit(9).alias(name))
    cells = rng.dirichlet(np.full(16, 0.5), len(rows)) * 0.2
    rows = rows.with_columns(cells=pl.Series(cells.tolist(), dtype=pl.List(pl.Float32)))
    return rows.with_columns(pl.lit(None).alias(name) for name in columns if name not in rows.columns)


def write(
    folder: Path, memes: Mapping[tuple[str, str], int] = MEMES, runs: Sequence[tuple[str, int]] = RUNS,
    captions: Sequence[str] = CAPTIONS, thoughts: Sequence[str] = THOUGHTS, k: int = SAMPLES, side: int = 120,
    answered: int = ANSWERED,
) -> dict[str, list[Path]]:  # fmt: skip
    """Write the study under `folder`; returns its paths by artefact, as the script report_memes takes them.

    Runs have a milestone EARLY, at which they have answered the first `answered` memes; `theirs` has its end alone.
    """
    pool = Pool(folder / "model", thoughts)
    held_out = [data(folder, key, place, n, captions, side) for place, (key, n) in enumerate(memes.items())]
    found: dict[str, list] = {name: [] for name in ("data", "base", "samples", "traces", "responses", "attention")}
    based = []
    for place, (key, frame) in enumerate(zip(memes, held_out, strict=True)):
        where = "/".join(key)
        _keep(found, "data", frame, folder / f"data/{where}.parquet", "data")
        rows, number = samples(frame, pool, 0.55, np.random.default_rng(place), 0, k)
        _keep(found, "base", rows, folder / f"samples/base/{where}.parquet", "samples")
        based += [(rows, number)] if key != UNSCORED else []
    rng = np.random.default_rng(99)
    _scored(found, folder, "base/seed0", pool, [(*one, "base_sample", 0.0) for one in based], rng)
    _keep(
        found,
        "attention",
        looks(held_out, [0], rng),
        folder / "extracts/attention/base/seed0.parquet",
        "extract_attention",
    )
    for place, (method, seed) in enumerate(runs):
        rng = np.random.default_rng([7, place])
        skill = 0.6 + 0.05 * place
        own = [(*samples(frame, pool, skill, rng, 1, k), "own_sample", 1.0) for frame in held_out]
        milestones = [1.0] if method == "theirs" else [EARLY, 1.0]
        if EARLY in milestones:
            early = samples(held_out[0].head(answered), pool, 0.6, rng, EARLY, k)
            own.insert(0, (*early, "own_sample", EARLY))
        name = f"{method}/seed{seed}"
        rows = pl.concat([frame for frame, *_ in own])
        _keep(found, "samples", rows, folder / f"samples/{name}.parquet", "samples")
        texts = [(*one, "base_sample", fraction) for one in based for fraction in milestones]
        _scored(found, folder, name, pool, [*texts, *own], rng)
        _keep(
            found,
            "attention",
            looks(held_out, milestones, rng),
            folder / f"extracts/attention/{name}.parquet",
            "extract_attention",
        )
    return found


def _scored(found: dict, folder: Path, name: str, pool: Pool, texts: Sequence[tuple], rng: np.random.Generator) -> None:
    paths = {kind: folder / f"{kind}/{name}/1-of-1.parquet" for kind in ("traces", "responses")}
    with tables.Writer(paths["traces"], "traces") as trace, tables.Writer(paths["responses"], "responses") as response:
        for rows, number, kind, fraction in texts:
            trace.write(traces(rows, number, pool, kind, fraction, rng))
            response.write(responses(rows, kind, fraction, rng))
    for kind, path in paths.items():
        found[kind].append(path.parent)


def _keep(found: dict, kind: str, frame: pl.DataFrame, path: Path, schema: str) -> None:
    tables.write(frame, path, schema)
    found[kind].append(path)


def build(folder: Path, found: Mapping[str, list[Path]], report: Report | None = None) -> Path:
    """Make the pictures and the browser of the study in `folder` by the rules' own scripts; returns its page."""
    told = plain(report or Report())
    target, pictures = folder / "report", []
    with patch.dict(tables.provenance, {"study": "browsed"}):
        if told["images"] != "none":
            for path in found["data"]:
                pictures.append(target / "pictures" / path.relative_to(folder / "data").with_suffix(""))
                script("thumbnails").main(path, pictures[-1], told["images"], threads=2)
        script("report_shell").main([target / f"assets/{name}" for name in ("style.css", "load.js", "filters.js")])
        script("report_memes").main(
            **found, model=folder / "model", page=target / "memes.html", pieces=target / "assets/memes",
            study="browsed", pages=[Page("index.html", "Summary"), Page("memes.html", "Memes")], pictures=pictures,
            **told,
        )  # fmt: skip
    return target / "memes.html"
