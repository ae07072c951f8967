"""Trainings on a real Slurm that nobody warned, or that are preempted: `make long`."""

import os

import pytest

import one_node_slurm
import stopped_trainings

pytestmark = [pytest.mark.workflow, pytest.mark.long]


@pytest.fixture(scope="module")
def stopped(finished, tmp_path_factory):
    if not one_node_slurm.available():
        assert not os.environ.get("CI"), "CI must have slurm-wlm and munge, and run as root"
        pytest.skip("needs Debian's slurm-wlm and munge, as root")
    return stopped_trainings.train(finished, tmp_path_factory.mktemp("stopped"), ["overdue", "preempted"])


def test_a_training_that_nobody_warned_is_retried_with_more_time(stopped):
    first, second = sorted(
        (job for job in stopped.jobs if job["Rule"] == "train_rft"), key=lambda job: job["TimeLimit"]
    )
    assert (first["JobState"], second["JobState"]) == ("TIMEOUT", "COMPLETED")
    assert (first["TimeLimit"], second["TimeLimit"]) == ("00:01:00", "00:02:00")
    assert stopped_trainings.memory([second]) == [2 * megabytes for megabytes in stopped_trainings.memory([first])]


def test_a_preempted_training_is_the_same_job_again(stopped):
    (job,) = (job for job in stopped.jobs if job["Rule"] == "train_grpo")
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")


def test_a_training_goes_on_from_where_it_was_stopped(stopped):
    stopped_trainings.went_on(stopped)
