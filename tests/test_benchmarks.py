"""The benchmarks run, at sizes where only their numbers mean something: a broken one is found before it is needed."""

import contextlib
import importlib.util
import io
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    """Loads a benchmark; what it imports from beside it is found, and the library by processes that it starts."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parent / "workflow"))

    def load(name: str, *given: str) -> ModuleType:
        monkeypatch.setattr(sys, "argv", [name, *given])
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def ran(module: ModuleType) -> int:
    """What `main` exits with."""
    with pytest.raises(SystemExit) as ended:
        module.main()
    return int(ended.value.code)


def test_reductions_equal_plain_loops(
    benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """All four scripts as the workflow runs them; a number that is off is seen."""
    sizes = ["--rows", "40000", "--tokens", "12", "--group", "5000", "--resamples", "20"]
    module = benchmark("reductions", *sizes, "--folder", str(tmp_path))
    monkeypatch.setattr(module, "SEEDS", (1,))
    assert ran(module) == 0
    found = dict(re.findall(r"(\w+) .* numbers within (\S+) of plain", capfd.readouterr().out))
    assert set(found) == set(module.SCRIPTS) and max(map(float, found.values())) < 1e-6
    table = pl.read_parquet(tmp_path / "analyses/kl.parquet")
    table.with_columns(value=pl.col("value") * 1.001).write_parquet(tmp_path / "analyses/kl.parquet")
    assert module.largest_difference("kl", tmp_path) == pytest.approx(0.001, rel=1e-3)


def test_attention_against_eager(benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """In this process, whose memory says little at this size; a claim of memory can fail."""
    sizes = {"tokens": 60, "layers": 2, "hidden": 64, "heads": 4, "prompts": 2, "repetitions": 1}
    module = benchmark("attention", *(f"--{name}={size}" for name, size in sizes.items()))
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "")  # which main sets, to be as it was again
    monkeypatch.setattr(module, "alone", lambda side, *given: side(*given))
    ran(module)
    said = capsys.readouterr().out
    assert "logits bit-identical: True" in said
    assert float(re.search(r"apart from eager by (\S+);", said)[1]) < 1e-6

    def held(mib: float) -> object:
        return module.Measured(mib, np.zeros(3), [np.zeros(2)])

    args, seconds = module.arguments(), dict.fromkeys((module.PLAIN, module.OURS, module.EAGER), 1.0)
    for ours, kept in ((10.9, True), (11.1, False)):  # over plain: .9 and 1.1 of eager's 100
        found = {module.PLAIN: held(10), module.OURS: held(ours), module.EAGER: held(110)}
        assert module.report(seconds, found, args) == kept


def test_spectrum_against_full_decompositions(benchmark, capsys: pytest.CaptureFixture) -> None:
    module = benchmark("spectrum", "--size", "96", "--base", "96", "--tries", "1")
    ran(module)
    said = capsys.readouterr().out
    assert float(re.search(r"error of the singular values (\S+)", said)[1]) < 1e-6
    counts = re.findall(r"(\d+) intruders", said)
    assert len(counts) == 2 and counts[0] == counts[1]


def test_bootstrap_against_a_loop(benchmark) -> None:
    given = ["--prompts", "60", "--curves", "3", "--resamples", "50", "--limit", "60"]
    assert ran(benchmark("bootstrap", *given)) == 0


def test_merging_streamed_and_whole(benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Each rule's two sides in this process: equal bits."""
    module = benchmark("merging", "--size", "32", "--rank", "4", "--matrices", "2")

    def here(args, folder: Path, rule: str, side: str) -> tuple[float, float]:
        vars(args).update(folder=folder, rule=rule, side=side)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            module.one_side(args)
        return tuple(json.loads(said.getvalue()))

    monkeypatch.setattr(module, "measured", here)
    ran(module)
    assert capsys.readouterr().out.count("equal: True") == len(module.RULES)


def test_scoring_against_the_plain_way(benchmark, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """In this process: equal numbers, of one milestone and of two."""
    sizes = {"prompts": 1, "samples": 2, "prompt": 200, "response": 20, "milestones": 2, "layers": 1, "hidden": 64}
    module = benchmark("scoring", *(f"--{name}={size}" for name, size in sizes.items()), "--vocabulary=600", "--rank=2")
    monkeypatch.setattr(module, "alone", lambda side, *given: side(*given))
    ran(module)
    apart = re.findall(r"largest difference between numbers (\S+)", capsys.readouterr().out)
    assert len(apart) == 2 and max(map(float, apart)) < 1e-4


def test_planning_of_a_small_study(benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """One method, seed and shard: a finished study has nothing to be done, which the benchmark itself asserts."""
    module = benchmark("dag")
    whole = module.study
    monkeypatch.setattr(module, "study", lambda methods: whole(methods, datasets=2, seeds=1, shards=1))
    fresh, finished = module.measure(1)
    assert fresh.gigabytes < 1 and "Nothing to be done" in finished.text
    assert int(re.search(r"(\d+) files", capsys.readouterr().out)[1]) > 30


def test_memes_are_built_and_seen(benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """In this process; a view over the limit is a failure."""
    sizes = {"memes": 60, "seeds": 1, "samples": 2, "tokens": 8, "side": 60, "limit": 60, "folder": tmp_path}
    module = benchmark("report_memes", *(f"--{name}={size}" for name, size in sizes.items()))
    monkeypatch.setattr(module, "apart", lambda does, *given: does(*given))
    monkeypatch.setattr(module, "first_view", lambda browser, address: 59.0)
    assert ran(module) == 0 and "60 memes, 3 runs" in capsys.readouterr().out
    monkeypatch.setattr(module, "views", lambda report: {"file": 61.0, "http": 1.0})
    assert ran(module) == 1


def test_fingerprints_kept_and_read_anew(benchmark, capsys: pytest.CaptureFixture) -> None:
    benchmark("fingerprints", "--times", "1").main()
    assert "equal: True" in capsys.readouterr().out


def test_what_snakemake_itself_costs(benchmark, tmp_path: Path) -> None:
    spent, seconds = benchmark("pace").measured(tmp_path / "workflow", jobs=4, at_once=4, once=True)
    assert spent > 0 and seconds > 1
    assert len(list((tmp_path / "workflow/made").iterdir())) == 4


def test_plans_by_both_ways(benchmark, capsys: pytest.CaptureFixture) -> None:
    """A claim of speed may fail under load; that the plans are equal may not."""
    benchmark("quick_plans", "--methods", "1", "--turns", "1").main()
    assert "plans equal" in capsys.readouterr().out


def test_memory_kept_and_given_back(benchmark, capsys: pytest.CaptureFixture) -> None:
    benchmark("malloc", "--steps", "1", "--memes", "16").main()
    assert "bytes equal: True" in capsys.readouterr().out
