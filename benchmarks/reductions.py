"""The table reductions on a made-up study of 150 million trace rows: seconds and peak memory of each.

    PYTHONPATH=workflow python benchmarks/reductions.py [--rows 150e6 --folder /tmp/study --scripts kl rewards …]

The study (4 methods × 3 seeds × 6 milestones) is written once into `folder` and used again by a later call of the same
size. Every script runs as the workflow runs it: its own process, its own JSON argument, two threads. Memory is the
largest sum of resident sizes over the process tree, sampled every 50 ms. Limits hold for all scripts together (seconds)
and for each (memory). Headline numbers of one run are computed once more by plain loops (`plain_reductions`), which
must agree. Exits 1 where a limit or an agreement fails.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from plain_reductions import largest_difference

from memedynamics import tables
from memedynamics.prompts import load_prompt

ROOT = Path(__file__).parents[1]
METHODS, SEEDS = ("sft", "dpo", "grpo", "em"), (1, 2, 3)
FRACTIONS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
SAMPLES, GROUP, STEPS = 8, 8, 128
SHARES = {("memes", "train"): 0.4, ("memes", "val"): 0.2, ("other", "test"): 0.4}
SCRIPTS = ("kl", "likelihood", "rewards", "entropy")
SAME = 1e-6  # relative; traces are float32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=150e6, help="trace rows of all runs together, about")
    parser.add_argument("--tokens", type=int, default=104, help="mean length of a response")
    parser.add_argument("--group", type=int, default=1_000_000, help="rows of a row group, about")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--scripts", nargs="+", default=SCRIPTS)
    parser.add_argument("--folder", type=Path, help="where the study lies or is written; a temporary folder else")
    parser.add_argument("--seconds", type=float, default=180.0, help="all scripts together may take")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="each script may take")
    return parser.parse_args()


def memes(args: argparse.Namespace) -> dict[tuple[str, str], pl.DataFrame]:
    """Schema `data` by dataset and split, as many as give `args.rows` trace rows, an eighth of them own samples."""
    total = 7 / 8 * args.rows / (len(METHODS) * len(SEEDS) * len(FRACTIONS) * SAMPLES * args.tokens)
    return {where: _memes(*where, max(8, round(share * total))) for where, share in SHARES.items()}


def _memes(dataset: str, split: str, n: int) -> pl.DataFrame:
    ids = [f"{split}-{i:06d}" for i in range(n)]
    texts = [f"{dataset} {split} {i - (i % 10 == 9)}" for i in range(n)]
    fixed = {"dataset": dataset, "split": split, "image": "none.png", "image_sha256": "0" * 64, "width": 8, "height": 8}
    given = {"id": ids, "text": texts, "label": [i % 2 for i in range(n)], "groups": [[] for _ in ids], **fixed}
    return pl.DataFrame(given, schema_overrides={"groups": pl.List(pl.String)})


def responses_of(frame: pl.DataFrame, args: argparse.Namespace) -> pl.DataFrame:
    """SAMPLES responses to each meme: dataset, split, id, label, sample, num_tokens; equal for all policies."""
    rows = frame.select("dataset", "split", "id", "label").join(
        pl.DataFrame({"sample": range(SAMPLES)}, schema={"sample": pl.Int16}), how="cross"
    )
    rng = np.random.default_rng(len(rows))
    return rows.with_columns(num_tokens=pl.Series(rng.integers(args.tokens // 2, args.tokens * 3 // 2, len(rows))))


def write_scores(
    path: Path, rows: pl.DataFrame, fractions: list[float], args: argparse.Namespace, kind: str, part: str = ""
) -> None:
    """Traces and responses of one run over `rows` at `fractions`, batch by batch as `score` writes them."""
    batch = max(SAMPLES, args.group // (args.tokens * len(fractions)) // SAMPLES * SAMPLES)
    rng = np.random.default_rng([*str(path.relative_to(path.parents[2])).encode()])
    names = {name: path.parents[2] / name / path.parent.name / path.name / f"{kind}{part}.parquet" for name in WRITTEN}
    with tables.Writer(names["traces"], "traces") as out, tables.Writer(names["responses"], "responses") as whole:
        for start in range(0, len(rows), batch):
            asked = rows[start : start + batch]
            frames = [_scored(asked, fraction, kind, rng) for fraction in fractions]
            out.write(pl.concat([tokens for tokens, _ in frames]))
            whole.write(pl.concat([sums for _, sums in frames]))


WRITTEN = ("traces", "responses")


def _scored(rows: pl.DataFrame, fraction: float, kind: str, rng: np.random.Generator) -> tuple:
    """Token rows and response rows of one policy."""
    lengths = rows["num_tokens"].to_numpy()
    ends, total = np.cumsum(lengths), int(lengths.sum())
    position = np.arange(total) - np.repeat(ends - lengths, lengths)
    left = np.repeat(lengths, lengths) - 1 - position
    span = np.where(left == 0, 3, np.where(left == 2, 2, np.where((left < 8) | (position < 3), 0, 1)))
    ref = -rng.exponential(0.5, total).astype(np.float32)
    kl = (rng.exponential(0.05 * fraction + 1e-6, (2, total))).astype(np.float32)
    logp = np.minimum(ref + rng.normal(0, 0.1 * fraction, total).astype(np.float32), 0)
    meme = rows.select(pl.lit("made-up").alias("study"), "dataset", "split", "id", "sample")
    keys = meme.with_columns(fraction=pl.lit(fraction), probe_kind=pl.lit(kind))
    spans = pl.Series(["format", "rationale", "answer", "end"])
    tokens = keys[np.repeat(np.arange(len(rows)), lengths)].with_columns(
        position=pl.Series(position), token_id=pl.Series(rng.integers(150_000, size=total)), span=spans[span],
        logp=pl.Series(logp), ref_logp=pl.Series(ref), kl_forward=pl.Series(kl[0]), kl_reverse=pl.Series(kl[1]),
        entropy=pl.Series(rng.exponential(0.4, total)), acceptance=pl.Series(1 - kl[0] / (1 + kl[0])),
        rank=pl.Series(rng.geometric(0.8, total) - 1),
    )  # fmt: skip
    starts = ends - lengths
    p = 1 / (1 + np.exp(-rng.normal(0, 2, (2, len(rows)))))
    sums = {"logp": logp, "ref_logp": ref, "kl_forward": kl[0], "kl_reverse": kl[1]}
    return tokens, keys.with_columns(
        **{name: pl.Series(np.add.reduceat(values.astype(float), starts)) for name, values in sums.items()},
        p_hateful=pl.Series(p[0]), ref_p_hateful=pl.Series(p[1]), label_mass=pl.lit(0.98),
        num_tokens=rows["num_tokens"],
        forced=pl.Series(rng.random(len(rows)) < 0.05), ches=pl.Series(-rng.exponential(10, len(rows))),
        ches_normalised=pl.Series(-rng.exponential(0.01, len(rows))),
    )  # fmt: skip


def samples(rows: pl.DataFrame, fraction: float, seed: int) -> pl.DataFrame:
    """Schema `samples` of `rows`."""
    rng = np.random.default_rng(seed)
    invalid, right = rng.random((2, len(rows))) < [[0.05], [0.6 + 0.1 * fraction]]
    yes, ok = np.where(rows["label"].to_numpy() == 1, right, ~right), right & ~invalid
    tokens = np.full(int(rows["num_tokens"].max()), 7)
    return rows.drop("label", "num_tokens").with_columns(
        study=pl.lit("made-up"), fraction=pl.lit(fraction), text=pl.lit("<think> a </think><answer> Yes </answer>"),
        token_ids=pl.Series([tokens[:n] for n in rows["num_tokens"]]), finish_reason=pl.lit("stop"),
        logp=pl.Series(-rng.exponential(30, len(rows))), label_mass=pl.lit(0.98), forced=pl.Series(invalid),
        answer=pl.Series(np.where(invalid, "invalid", np.where(yes, "yes", "no"))), format_ok=pl.Series(~invalid),
        tokens=pl.lit("drawn"), correct=pl.Series(ok), reward=pl.Series(0.9 * ok + 0.1 * ~invalid),
        p_hateful=pl.Series(np.clip(rng.normal(0.3 + 0.4 * yes, 0.2), 0.001, 0.999)),
    )  # fmt: skip


def write_run(folder: Path, method: str, seed: int, rows: dict, probed: pl.DataFrame, args: argparse.Namespace) -> None:
    """Scores, own samples, history, rollouts (of grpo) and run.json of one run."""
    run = folder / f"runs/{method}/seed{seed}"
    write_scores(run, probed, list(FRACTIONS), args, "base_sample")
    val = rows["memes", "val"]
    own = pl.concat([val.head(250 * SAMPLES), rows["other", "test"]])
    write_scores(run, own.head(250 * SAMPLES), list(FRACTIONS[:-1]), args, "own_sample")
    write_scores(run, own, [1.0], args, "own_sample", "-end")
    drawn = [samples(val.head(250 * SAMPLES), fraction, seed) for fraction in FRACTIONS[:-1]]
    drawn += [samples(pl.concat([val, rows["other", "test"]]), 1.0, seed)]
    tables.write(pl.concat(drawn), folder / f"samples/{method}/seed{seed}.parquet", "samples")
    train = rows["memes", "train"]["id"].unique(maintain_order=True)
    rollouts = _rollouts(train, seed) if method == "grpo" else pl.DataFrame(_rollouts(train, seed)).clear()
    tables.write(_as_map(rollouts), run / "rollouts.parquet", "rollouts")
    tables.write(_history(rollouts), run / "history.parquet", "history")
    steps = {"0": 0} | {f"{fraction:g}": round(STEPS * fraction) for fraction in FRACTIONS}
    (run / "run.json").write_text(json.dumps({"reference": "base", "total_steps": STEPS, "steps": steps}))


def _rollouts(ids: pl.Series, seed: int) -> pl.DataFrame:
    """GROUP completions to each of 16 prompts a step."""
    rng = np.random.default_rng(seed)
    prompts = ids.gather(rng.integers(len(ids), size=STEPS * 16))
    n = len(prompts) * GROUP
    right, kept = (rng.random((2, n)) < [[0.7], [0.9]]).astype(float)
    columns = {"step": np.repeat(np.arange(STEPS) + 1, 16 * GROUP), "sample": np.tile(np.arange(GROUP), len(prompts))}
    columns |= {"format": kept, "accuracy": right, "reward": 0.1 * kept + 0.9 * right}
    frame = pl.DataFrame(columns).with_columns(id=prompts.gather(np.repeat(np.arange(len(prompts)), GROUP)))
    return frame.with_columns(study=pl.lit("made-up"), text=pl.lit("made up"), advantage=pl.lit(0.0))


def _as_map(rollouts: pl.DataFrame) -> pa.Table:
    by_name = [list(row.items()) for row in rollouts.select("format", "accuracy").to_dicts()]
    table = rollouts.drop("format", "accuracy").to_arrow()
    return table.append_column("rewards", pa.array(by_name, pa.map_(pa.string(), pa.float64())))


def _history(rollouts: pl.DataFrame) -> pl.DataFrame:
    steps = pl.DataFrame({"step": range(1, STEPS + 1), "metric": "loss", "value": 0.5})
    logged = rollouts.group_by("step").agg(value=pl.col("reward").mean()).with_columns(metric=pl.lit("reward"))
    rows = pl.concat([steps, logged.select(steps.columns)], how="vertical_relaxed")
    return rows.with_columns(study=pl.lit("made-up"))


def write_texts(folder: Path, base: pl.DataFrame) -> None:
    """probes.parquet (all base samples) and preferences.parquet (samples 0 and 1 of every train prompt)."""
    probes = base.select("study", "dataset", "split", "id", "sample", "token_ids", "correct", "format_ok", "reward")
    tables.write(probes.with_columns(probe_kind=pl.lit("base_sample")), folder / "probes.parquet", "probes")
    pairs = base.filter(pl.col("split") == "train").select("study", "dataset", "id").unique(maintain_order=True)
    fixed = {"prompt": "p", "chosen": "c", "rejected": "r", "chosen_sample": 0, "rejected_sample": 1}
    fixed |= {"pair_type": "wrong_answer", "num_correct": 4}
    filled = pairs.with_columns(pl.lit(value).alias(name) for name, value in fixed.items())
    tables.write(filled, folder / "preferences.parquet", "preferences")


def write_study(folder: Path, args: argparse.Namespace) -> None:
    """The whole study under `folder`, in the artefacts' own places; `study.json`, written last, says its size."""
    rows = {}
    for (dataset, split), frame in memes(args).items():
        rows[dataset, split] = responses_of(frame, args)
        tables.write(frame.with_columns(study=pl.lit("made-up")), folder / f"data/{dataset}/{split}.parquet", "data")
        drawn = samples(rows[dataset, split], 0.0, 0)
        tables.write(drawn, folder / f"samples/base/{dataset}/{split}.parquet", "samples")
    base = pl.concat([tables.read(path, "samples") for path in sorted(folder.glob("samples/base/*/*.parquet"))])
    write_texts(folder, base)
    probed = pl.concat(rows.values())
    write_scores(folder / "runs/base/seed0", probed, [0.0], args, "base_sample")
    for method, seed in product(METHODS, SEEDS):
        began = time.time()
        write_run(folder, method, seed, rows, probed, args)
        print(f"  wrote {method} seed {seed}: {time.time() - began:.0f} s", flush=True)
    (folder / "study.json").write_text(json.dumps(size(args)))


def size(args: argparse.Namespace) -> dict[str, float]:
    """What two calls must share to use the same study."""
    return {"rows": args.rows, "tokens": args.tokens, "group": args.group}


def inputs(folder: Path) -> dict[str, object]:
    """Everything a reduction may ask for, by the name its `main` has for it."""
    found = {name: sorted(map(str, folder.glob(f"{name}/*/*"))) for name in WRITTEN}
    runs = {"runs": "run.json", "histories": "history.parquet", "rollouts": "rollouts.parquet"}
    found |= {name: sorted(map(str, folder.glob(f"runs/*/*/{file}"))) for name, file in runs.items()}
    found["samples"] = sorted(map(str, folder.glob("samples/*/seed*.parquet")))
    found["base"] = sorted(map(str, folder.glob("samples/base/*/*.parquet")))
    found["data"] = sorted(map(str, folder.glob("data/*/*.parquet")))
    return found | {name: str(folder / f"{name}.parquet") for name in ("probes", "preferences")}


def measured(name: str, folder: Path, args: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds on the clock, seconds computed, and peak gigabytes of the script `name` in its own process."""
    cfg = {"resamples": args.resamples, "in_domain": "memes", "groups": {"grpo": GROUP}, "beta": {"dpo": 0.1}}
    cfg |= {"dpo": ["dpo"], "pair_rule": "paired", "rewards": {"format": 0.1, "accuracy": 0.9}}
    cfg["prompt"] = load_prompt(ROOT / "config/prompts/think_answer.yaml").model_dump(mode="json")
    job = {"rule": name, "root": str(folder), "study": "made-up", "digest": "", "code": "", "threads": 2, "gpu": 0}
    job |= {"work": str(folder / "work"), "input": {}, "wildcards": {}, "cfg": cfg | inputs(folder)}
    job["output"] = {"table": str(folder / f"analyses/{name}.parquet")}
    threads = {name: "2" for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS")}
    env = {**os.environ, **threads, "PYTHONPATH": str(ROOT / "workflow")}
    began, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = psutil.Popen([sys.executable, ROOT / f"workflow/scripts/{name}.py", json.dumps(job)], env=env)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident(process))
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{name} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.time() - began, computed, peak / 1e9


def _resident(process: psutil.Process) -> int:
    try:
        return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        known = folder / "study.json"
        if not known.exists() or json.loads(known.read_text()) != size(args):
            write_study(folder, args)
        rows = sum(pq.ParquetFile(path).metadata.num_rows for path in folder.glob("traces/*/*/*.parquet"))
        print(f"{rows / 1e6:.0f} million trace rows, {len(METHODS) * len(SEEDS)} runs, {args.resamples} resamples")
        total, largest, apart = 0.0, 0.0, []
        for name in args.scripts:
            seconds, computed, memory = measured(name, folder, args)
            total, largest = total + seconds, max(largest, memory)
            apart.append(largest_difference(name, folder))
            print(f"  {name:12} {seconds:6.1f} s, {computed:6.1f} s computed, {memory:5.2f} GB, "
                  f"numbers within {apart[-1]:.1e} of plain loops", flush=True)  # fmt: skip
    print(f"  together {total:.1f} s (limit {args.seconds:g}), at most {largest:.2f} GB (limit {args.gigabytes:g})")
    sys.exit(not (total < args.seconds and largest < args.gigabytes and max(apart) < SAME))


if __name__ == "__main__":
    main()
