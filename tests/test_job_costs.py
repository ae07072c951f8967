"""What jobs took, from benchmark files whose numbers are known; a job's own word on its GPUs."""

import sys
from types import SimpleNamespace

import pytest

import reported_study
from memedynamics import job
from memedynamics.job_costs import RuleCost, job_costs


@pytest.fixture
def benchmarks(tmp_path):
    reported_study._benchmarks(tmp_path)
    return tmp_path


def test_jobs_of_a_rule_are_summed_and_the_longest_rule_comes_first(benchmarks):
    """Wall time 90 + 30, the longest 90, memory the larger of 2048 and 1024, processor 80 + 20; the GPUs of train_dpo
    go to `train`, whose benchmarks it shares.
    """
    assert job_costs(benchmarks) == [
        RuleCost("train", 2, 120.0, 90.0, 2048.0, 100.0, 2, 4096.0),
        RuleCost("kl", 1, 2.0, 2.0, None, None, 0, None),
    ]


def test_a_rule_s_own_benchmarks_are_not_taken_for_those_of_a_longer_name(benchmarks):
    (benchmarks / "train_reward_model.tsv").write_text("s\tmax_rss\tcpu_time\n5\t10\t4\n")
    timing = benchmarks / "timing/train_reward_model/all.json"
    timing.parent.mkdir(parents=True)
    timing.write_text('{"gpus": 1, "gpu_memory": 7}')
    found = {cost.rule: (cost.gpus, cost.gpu_memory) for cost in job_costs(benchmarks)}
    assert found == {"train": (2, 4096.0), "train_reward_model": (1, 7), "kl": (0, None)}


def test_a_study_without_benchmarks_has_no_costs(tmp_path):
    assert job_costs(tmp_path / "none") == []


def test_a_job_tells_of_its_gpus_the_most_that_one_held(monkeypatch):
    held = [3 * 2**20, 5 * 2**20]
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2, max_memory_reserved=held.__getitem__)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert job._devices(2) == {"gpus": 2, "gpu_memory": 5.0}
    assert job._devices(0) == {}
    cuda.is_available = lambda: False
    assert job._devices(1) == {}
