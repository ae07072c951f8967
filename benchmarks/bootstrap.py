"""The cluster bootstrap against a loop over resamples and curves: time and equality of intervals, side by side.

    OMP_NUM_THREADS=1 PYTHONPATH=workflow python benchmarks/bootstrap.py [--prompts 1000 --curves 50 --resamples 2000 …]

Both see the same draws: the loop writes every resample out, prompt by prompt, and takes each curve's accuracy and F1
anew; ours is one matrix product. A fifth of the prompts repeat a caption. Seconds are those this process computed, so
that what else the machine does does not count; `limit` is for ours, drawing the weights and the intervals included.
"""

import argparse
import sys
import time

import numpy as np
import polars as pl

from memedynamics import curves, stats

COLUMNS = ["present", "right", "tp", "fp", "fn", "p"]
STATISTICS: curves.Statistics = {
    "accuracy": ("1", lambda s: stats.ratio(s["right"], s["present"])),
    "f1": ("1", lambda s: stats.f1(s["tp"], s["fp"], s["fn"])),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--curves", type=int, default=50)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--limit", type=float, default=2.0, help="seconds ours may take")
    return parser.parse_args()


def made_up(args: argparse.Namespace) -> tuple[pl.DataFrame, np.ndarray]:
    """Memes, and their numbers on every curve: (prompts, curves, COLUMNS)."""
    rng = np.random.default_rng(0)
    hateful = rng.integers(2, size=args.prompts).astype(bool)
    ability, skill = rng.normal(size=(args.prompts, 1)), rng.normal(1, 0.3, (1, args.curves))
    right = rng.binomial(args.samples, 1 / (1 + np.exp(-ability - skill))) / args.samples
    is_one = hateful[:, None].astype(float)
    score = np.where(hateful[:, None], right, 1 - right)
    values = [np.ones_like(right), right, right * is_one, (1 - right) * (1 - is_one), (1 - right) * is_one, score]
    captions = [f"caption {i - i % 2 if i < args.prompts // 5 else i}" for i in range(args.prompts)]
    ids = [f"{i:06d}" for i in range(args.prompts)]
    memes = pl.DataFrame({"dataset": "made-up", "split": "val", "id": ids, "label": hateful, "text": captions})
    return memes, np.stack(values, axis=2)


def ours(args: argparse.Namespace, memes: pl.DataFrame, values: np.ndarray) -> dict[str, list[tuple]]:
    """(value, low, high) of each statistic on each curve, as the analyses take them."""
    cluster, weights = curves.resampling(memes, args.resamples)
    views = curves.Views(values)
    index = [views.add(curve) for curve in range(args.curves)]
    estimates = curves.evaluate(views, COLUMNS, STATISTICS, cluster, weights)
    rows = curves.level_rows([{}] * args.curves, views, index, estimates)
    return {
        name: [(r["value"], r["ci_low"], r["ci_high"]) for r in rows if r["statistic"] == name] for name in STATISTICS
    }


def loop(args: argparse.Namespace, memes: pl.DataFrame, values: np.ndarray) -> dict[str, list[tuple]]:
    """The same, resample by resample and curve by curve."""
    by_caption: dict[str, list[int]] = {}
    for i, text in enumerate(memes["text"]):
        by_caption.setdefault(text, []).append(i)
    groups = list(by_caption.values())
    name = "made-up/val"
    weights = stats.resample_weights(len(groups), args.resamples, name)
    per_curve = [np.ascontiguousarray(values[:, curve]) for curve in range(args.curves)]
    replicates = np.empty((args.resamples, args.curves, 2))
    for r, counts in enumerate(weights):
        drawn = np.array([i for group, k in zip(groups, counts, strict=True) for i in group * int(k)])
        for curve, numbers in enumerate(per_curve):
            replicates[r, curve] = statistics_of(numbers[drawn])
    low, high = np.quantile(replicates, [0.025, 0.975], axis=0)
    whole = np.array([statistics_of(numbers) for numbers in per_curve])
    return {
        statistic: list(zip(whole[:, i], low[:, i], high[:, i], strict=True)) for i, statistic in enumerate(STATISTICS)
    }


def statistics_of(numbers: np.ndarray) -> tuple[float, float]:
    """Accuracy and F1 of the prompts `numbers` (n, COLUMNS)."""
    _, right, tp, fp, fn, _ = numbers.mean(axis=0)
    return right, 2 * tp / (2 * tp + fp + fn)


def auroc_seconds(args: argparse.Namespace, memes: pl.DataFrame, values: np.ndarray) -> float:
    """Seconds the same resamples take for AUROC, which is no function of sums: no part of the claim."""
    cluster, weights = curves.resampling(memes, args.resamples)
    views = curves.Views(values)
    for curve in range(args.curves):
        views.add(curve)
    start = time.process_time()
    curves.evaluate_auroc(views, COLUMNS.index("p"), 0, memes["label"].to_numpy(), cluster, weights)
    return time.process_time() - start


def timed(side, *given: object) -> tuple[float, dict[str, list[tuple]]]:
    start = time.process_time()
    found = side(*given)
    return time.process_time() - start, found


def main() -> None:
    args = arguments()
    memes, values = made_up(args)
    (fast, found), (slow, expected) = (timed(side, args, memes, values) for side in (ours, loop))
    apart = max(np.abs(np.subtract(found[name], expected[name])).max() for name in STATISTICS)
    width = min(high - low for _, low, high in expected["f1"])
    print(f"{args.resamples} resamples, {args.prompts} prompts, {args.curves} curves, {len(STATISTICS)} statistics")
    print(f"  loop      {slow:8.2f} s\n  bootstrap {fast:8.2f} s (limit {args.limit:g} s)")
    print(f"  {slow / fast:.1f} times faster, largest difference {apart:.1e} (narrowest interval {width:.1e})")
    print(f"  AUROC of the same: {auroc_seconds(args, memes, values):.2f} s", flush=True)
    sys.exit(not (fast < args.limit and apart < 1e-10))


if __name__ == "__main__":
    main()
