"""What a trial measured and what follows for the whole study, by hand."""

import json

import pytest

from memedynamics import costs
from memedynamics.costs import Cost
from memedynamics.loads import Load


def timings(folder, *jobs):
    """One timing file a job, of (seconds, seconds spent on items)."""
    files = [folder / f"{number}.json" for number in range(len(jobs))]
    for file, (seconds, items) in zip(files, jobs, strict=True):
        file.write_text(json.dumps({"seconds": seconds, "items": items}))
    return files


def test_measured_by_hand(tmp_path):
    """Jobs of 30 s (20 on items) and 50 s (30): 15 s to start up each; 50 s for 100 units: 0.5 s a unit."""
    files = timings(tmp_path, (30, 20), (50, 30))
    found = costs.measured(files, units=100, tokens=4000, size=1000, job_size=600)
    assert found == Cost(startup=15, job_bytes=300, seconds=0.5, tokens=40, bytes=10)


def test_needed_by_hand():
    """2 jobs × 15 s + 7,140 units × 0.5 s = 3,600 s = 1 hour; 2 × 300 + 7,140 × 10 bytes = 72,000."""
    cost = Cost(startup=15, job_bytes=300, seconds=0.5, tokens=40, bytes=10)
    assert costs.needed(Load("score", 2, 7140, "responses", True), cost) == (pytest.approx(1), 72_000)


def test_the_trial_itself_costs_what_it_cost(tmp_path):
    """Extrapolated to its own size, a trial takes the seconds it took and the bytes it wrote."""
    files = timings(tmp_path, (30, 20), (50, 30), (12, 1))
    found = costs.needed(Load("score", 3, 70, "responses", True), costs.measured(files, 70, size=123, job_size=60))
    assert found.hours * 3600 == pytest.approx(92) and found.bytes == pytest.approx(183)


def test_a_rule_that_did_not_run_costs_nothing():
    assert costs.measured([], units=0) == Cost(0, 0, 0, 0, 0)


def test_costs_on_disk(tmp_path):
    known = {"score": Cost(1.5, 0.0, 0.25, 30.0, 12.5), "train sft": Cost(9.0, 7.0, 1.0, 0.0, 0.0)}
    costs.write(known, tmp_path / "costs.json")
    assert costs.read(tmp_path / "costs.json") == known
    assert costs.read(tmp_path / "absent.json") == {}
