"""Time and memory of preparing 10,000 rows with pictures of 400 px.

    python benchmarks/prepare_dataset.py [--rows 10000] [--size 400] [--threads 2]

Draws a Hateful Memes folder, half PNG and half JPEG, prepares it through the job's own script in its own process, and
prints the seconds and the peak memory of that process and its children together (resident and proportional set size).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from PIL import Image, ImageFilter

SCRIPT = Path(__file__).parents[1] / "workflow/scripts/prepare_dataset.py"
OUTPUTS = ("train", "val", "test", "rejected", "quality")


def draw(path: Path, seed: int, size: int) -> None:
    """A blurred noise picture: compresses about as a photograph does."""
    noise = np.random.default_rng(seed).integers(0, 256, (size // 4, size // 4, 3), np.uint8)
    picture = Image.fromarray(noise).resize((size, size)).filter(ImageFilter.GaussianBlur(1))
    picture.save(path, **({"compress_level": 1} if path.suffix == ".png" else {"quality": 85}))


def draw_dataset(folder: Path, rows: int, size: int) -> None:
    """`rows` rows of which 85 % are train, 5 % dev and 10 % test."""
    (folder / "img").mkdir()
    names = [f"img/{i:05d}.{'png' if i % 2 else 'jpg'}" for i in range(rows)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(draw, [folder / name for name in names], range(rows), [size] * rows, chunksize=50))
    lines = [json.dumps({"id": i, "img": n, "label": i // 2 % 2, "text": f"caption {i}"}) for i, n in enumerate(names)]
    first, second = int(0.85 * rows), int(0.9 * rows)
    parts = {"train": lines[:first], "dev_seen": lines[first:second], "test_seen": lines[second:]}
    for split, part in parts.items():
        (folder / f"{split}.jsonl").write_text("\n".join(part))


def job(folder: Path, threads: int) -> str:
    """The script's one argument."""
    outputs = {name: f"{folder}/out/{name}.parquet" for name in OUTPUTS} | {"pictures": f"{folder}/out/pictures"}
    cfg = {"source": {"reader": "hateful_memes", "root": str(folder)}, "limit": None}
    names = {
        "rule": "prepare_dataset",
        "study": "benchmark",
        "root": f"{folder}/out",
        "code": "",
        "digest": "",
        "gpu": 0,
        "threads": threads,
    }
    work = {"work": f"{folder}/work", "input": {}, "output": outputs, "wildcards": {"dataset": "memes"}, "cfg": cfg}
    return json.dumps(names | work)


def memory(process: psutil.Process) -> np.ndarray:
    """Resident and proportional set size in MB of `process` and its children."""
    total = np.zeros(2)
    for one in [process, *process.children(recursive=True)]:
        try:
            info = one.memory_full_info()
            total += (info.rss, info.pss)
        except psutil.Error:  # it has just ended
            continue
    return total / 1e6


def main(rows: int, size: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_dataset(folder, rows, size)
        environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
        start, peak = time.perf_counter(), np.zeros(2)
        run = psutil.Popen([sys.executable, SCRIPT, job(folder, threads)], env=environment)
        while run.poll() is None:
            peak = np.maximum(peak, memory(run))
            time.sleep(0.2)
        seconds = time.perf_counter() - start
    if run.returncode:
        sys.exit(run.returncode)
    print(f"{rows} rows of {size} px, {threads} processes: {seconds:.1f} s")
    print(f"peak memory, children included: {peak[0]:.0f} MB resident, {peak[1]:.0f} MB with shared pages counted once")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in {"rows": 10_000, "size": 400, "threads": 2}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    main(**vars(parser.parse_args()))
