"""The memes browser of a large study: what building it takes, and how long until its first memes are on the screen.

    PYTHONPATH=workflow python benchmarks/report_memes.py [--memes 10000 --seeds 3 --samples 8 --folder /tmp/study]

The study is made up: three methods, responses of about --tokens tokens, base samples of two milestones scored by
every policy, which has answered 250 memes at the first of them and all at its end. Building runs in a process of its
own, whose peak memory counts. A view begins with a browser that knows nothing and ends when the first rows and their
pictures are there; the slowest of three counts, from disk and from a web server. Then a meme is chosen, words are
searched, and the list is scrolled to its end. Exits 1 where a view takes longer than --limit.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import polars as pl

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import browsed_study
from browser import chromium, opened, served

READY = """() => { const images = [...document.querySelectorAll('.memes-thumb img')];
  return images.length > 5 && images.slice(0, 5).every((image) => image.complete && image.naturalWidth); }"""
WORDS = (
    "people who think that this caption says what the picture shows and laugh at them for it every single day".split()
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    sizes = {"memes": 10_000, "seeds": 3, "samples": 8, "tokens": 80, "side": 400}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--limit", type=float, default=2.0, help="seconds that the first view may take")
    parser.add_argument("--folder", type=Path, help="where the study is written and stays")
    return parser.parse_args()


def written(args: argparse.Namespace, folder: Path) -> dict[str, list[Path]]:
    """The study under `folder`."""
    third = args.memes // 3
    memes = {("memes", "val"): third, ("memes", "test"): third, ("other", "test"): args.memes - 2 * third}
    runs = [(method, seed) for method in ("sft", "dpo", "grpo") for seed in range(1, args.seeds + 1)]
    captions = [" ".join([*WORDS[i % 7 :: 1 + i % 3], f"number {i}"]) for i in range(args.memes)]
    thoughts = [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(args.tokens // 2)) + f" {i}" for i in range(50)]
    return browsed_study.write(folder, memes, runs, captions, thoughts, args.samples, args.side, answered=250)


def built(folder: Path, found: dict[str, list[Path]]) -> tuple[float, float]:
    """Seconds and GiB at most that building takes, pictures included."""
    start = time.perf_counter()
    browsed_study.build(folder, found)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def apart(does: Callable, *given: object) -> object:
    """What `does` gives in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        return alone.submit(does, *given).result()


def views(folder: Path) -> dict[str, float]:
    """Seconds of the slowest first view by where it is from, and of what is done next."""
    found = {}
    with chromium() as browser, served(folder) as server:
        for name, address in (("file", (folder / "memes.html").as_uri()), ("http", f"{server}/memes.html")):
            found[name] = max(first_view(browser, address) for _ in range(3))
        with opened(browser, f"{server}/memes.html") as page:
            page.wait_for_function(READY)
            found["choose a meme"] = timed(lambda: choose(page))
            found["search"] = timed(lambda: search(page))
            page.fill("#memes-search", "")
            found["scroll to the end"] = timed(lambda: scroll(page))
            found["rows in the page"] = page.locator(".memes-row").count()
    return found


def first_view(browser, address: str) -> float:
    start = time.perf_counter()
    with opened(browser, address) as page:
        page.wait_for_function(READY)
        return time.perf_counter() - start


def choose(page) -> None:
    page.locator(".memes-row").first.click()
    page.wait_for_selector(".memes-card")


def search(page) -> None:
    before = page.inner_text("#memes-count")
    page.fill("#memes-search", "number 77")
    page.wait_for_function("before => document.getElementById('memes-count').textContent !== before", arg=before)


def scroll(page) -> None:
    page.locator("#memes-list").press("End")
    page.wait_for_function("document.querySelector('.memes-row[aria-selected=true]')")


def timed(does) -> float:
    start = time.perf_counter()
    does()
    return time.perf_counter() - start


def main() -> None:
    args = arguments()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="memes"))
    found = written(args, folder)
    rows = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in found["traces"])
    seconds, memory = apart(built, folder, found)
    report = folder / "report"
    size = sum(file.stat().st_size for file in (report / "assets").rglob("*") if file.is_file())
    print(f"{args.memes:,} memes, {3 * args.seeds} runs, {rows / 1e6:.1f} million trace rows")
    print(f"  built in {seconds:.0f} s, {memory:.2f} GiB at most; data {size / 2**20:.0f} MiB")
    seen = views(report)
    for name, value in seen.items():
        print(f"  {name:18} {value:.2f}" + (f" s (limit {args.limit:g})" if name in ("file", "http") else ""))
    sys.exit(max(seen["file"], seen["http"]) > args.limit)


if __name__ == "__main__":
    main()
