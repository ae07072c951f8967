"""Spectra of weight updates against full singular value decompositions, side by side in one run.

    PYTHONPATH=workflow python benchmarks/spectrum.py
    PYTHONPATH=workflow python benchmarks/spectrum.py --size 1024 --base 1024

1. Singular values of a rank-8 update of 3584 × 3584 from its factors, against `torch.linalg.svdvals` of the matrix:
   200 times faster, relative error below 1e-6.
2. Leading left singular vectors of W0 + BA at 2048 × 2048, and the intruders among them, from the base's cached
   decomposition, against `torch.linalg.svd` of W0 + BA compared with exact vectors of W0: 8 times faster, equal counts.
   The base's spectrum falls as 1/√i, and the update is large enough for some of the leading vectors to be intruders.

Both sides in float32 where they need not more, after a warm-up, fastest of a few tries, as many threads as asked for;
making the cache, which is once a base model, is not counted and printed. Exits 1 where a claim fails.
"""

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from memedynamics import intruders, spectra, weights
from memedynamics.intruders import Base
from memedynamics.spectra import Factors

EPSILON, TOP = 0.5, 10


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in {"size": 3584, "rank": 8, "base": 2048, "threads": 1, "tries": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def timed(work: Callable[[], object], tries: int) -> tuple[float, object]:
    """Seconds of the fastest of `tries`, and what `work` returned; on a CPU the seconds this process computed."""
    seconds, found = [], None
    for _ in range(tries):
        start = clock()
        found = work()
        seconds.append(clock() - start)
    return min(seconds), found


def clock() -> float:
    """Seconds; on a CPU those this process computed, so that what else the machine does counts for neither side."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def warm_up(device: str) -> None:
    """Load what both sides call, at a small size."""
    small = torch.randn(96, 96, device=device)
    low = Factors(small[:, :4], small[:4])
    torch.linalg.svd(small), torch.linalg.svdvals(small)
    intruders.move(Base(*spectra.of_matrix(small)[:2]), small, low, 2, all_values=False)
    spectra.svd(low)


def from_factors(args: argparse.Namespace, device: str) -> bool:
    """Claim 1."""
    update = Factors(
        torch.randn(args.size, args.rank, device=device) / args.size**0.5,
        torch.randn(args.rank, args.size, device=device) / args.size**0.5,
    )
    dense = update.dense(torch.float32)
    fast, found = timed(lambda: spectra.svd(update).values, 5 * args.tries)
    slow, expected = timed(lambda: torch.linalg.svdvals(dense), 1)
    error = float(((found - expected[: args.rank].double()) / expected[: args.rank].double()).abs().max())
    if error > 1e-6:  # float32 itself may be off by more: ask float64
        exact = torch.linalg.svdvals(update.dense(torch.float64))[: args.rank]
        error = float(((found - exact) / exact).abs().max())
    print(f"rank-{args.rank} update of {args.size} × {args.size}")
    print(f"  full svdvals {slow:9.4f} s\n  factors      {fast:9.4f} s")
    print(f"  {slow / fast:.0f} times faster, relative error of the singular values {error:.1e}", flush=True)
    return slow / fast >= 200 and error < 1e-6


def from_cache(args: argparse.Namespace, device: str) -> bool:
    """Claim 2."""
    n, r = args.base, 16
    left, right = (torch.linalg.qr(torch.randn(n, n, device=device))[0] for _ in range(2))
    values = torch.arange(1, n + 1, device=device).rsqrt()
    weight = left * values @ right.T
    strengths = torch.linspace(0.2, 1.5, r, device=device)
    random = torch.linalg.qr(torch.randn(n, r, device=device))[0]
    update = Factors(random * strengths, torch.linalg.qr(torch.randn(n, r, device=device))[0].T)
    making, decomposed = timed(lambda: spectra.of_matrix(weight), 1)
    cache = Base(decomposed.left.half(), decomposed.values.float())
    exact = torch.linalg.svd(weight).U
    moved = weight + update.dense(torch.float32)

    def whole() -> tuple[int, np.ndarray]:
        cosines = (exact.T @ torch.linalg.svd(moved).U[:, :TOP]).cpu().numpy()
        return intruders.count_intruders(cosines, EPSILON), np.abs(cosines).max(axis=0)

    def cached() -> tuple[int, np.ndarray]:
        cosines = intruders.move(cache, weight, update, TOP, all_values=False).cosines
        return intruders.count_intruders(cosines, EPSILON), np.abs(cosines).max(axis=0)

    fast, found = timed(cached, args.tries)
    slow, expected = timed(whole, min(2, args.tries))
    apart = float(np.abs(found[1] - expected[1]).max())
    print(f"{TOP} leading left vectors of W0 + BA, {n} × {n}, r = {r} (making the cache, once: {making:.1f} s)")
    print(f"  full svd {slow:9.3f} s, {expected[0]} intruders\n  cached   {fast:9.3f} s, {found[0]} intruders")
    print(f"  {slow / fast:.1f} times faster, largest difference of a vector's largest cosine {apart:.1e}", flush=True)
    return slow / fast >= 8 and found[0] == expected[0] and 0 < found[0] < TOP


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = str(weights.device())
    warm_up(device)
    kept = [from_factors(args, device), from_cache(args, device)]
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
