"""Known answers of the plan."""

import pytest

from memedynamics import loads, plan
from memedynamics.study import load_study


def test_steps_and_saves():
    """1,000 / 4 = 250 batches; 250 / 4 = 62.5, so 63 steps an epoch; 3 epochs: 189; thirds: 63, 126, 189."""
    found = plan.schedule(1000, batch=4, accumulation=4, epochs=3, warmup=0.1, fractions=(1 / 3, 2 / 3, 1.0))
    assert found.steps_per_epoch == 63
    assert found.total_steps == 189
    assert list(found.saves.values()) == [63, 126, 189]
    assert found.effective_batch == 16
    assert found.warmup_steps == 19


def test_groups_of_completions():
    """GRPO, 100 prompts, 8 completions each, 8 rows × 4: 4 prompts a step, 25 steps an epoch."""
    assert plan.schedule(100, batch=8, accumulation=4, group=8).total_steps == 25


@pytest.mark.parametrize(("parameters", "gigabytes"), [(7e9, 112), (70e9, 1120)])
def test_memory_of_full_fine_tuning(parameters, gigabytes):
    assert plan.memory(parameters, parameters, full=True) == gigabytes * plan.GB
    assert plan.memory(parameters, parameters, full=True, reference=True) == 1.25 * gigabytes * plan.GB


def test_memory_of_full_fine_tuning_beside_a_frozen_tower():
    """7 B of 8 B: 112 GB; the tower's 1 B in float32, and the reference's 8 B: 4 and 32 GB."""
    assert plan.memory(8e9, 7e9, "bfloat16", full=True) == 116 * plan.GB
    assert plan.memory(8e9, 7e9, "bfloat16", full=True, reference=True) == 148 * plan.GB


def test_memory_of_adapters():
    """7 B frozen in bfloat16: 14 GB; 40 M trained: 0.64 GB. 6 B of them in nf4, 4.127 bits each: 2 + 3.095 GB."""
    assert plan.memory(7e9, 40e6, "bfloat16") == pytest.approx(14.64 * plan.GB)
    assert plan.memory(7e9, 40e6, "bfloat16", quantised=6e9) == pytest.approx(5.73525 * plan.GB)


def test_loads_by_hand():
    study = load_study(
        {
            "study": "x",
            "base_model": {"source": "demo"},
            "datasets": {"p": {"reader": "pictograms"}, "q": {"reader": "pictograms"}},
            "in_domain": "p",
            "out_of_domain": ["q"],
            "methods": {"sft": {"kind": "sft"}, "mine": {"kind": "external", "path": "x"}},
            "seeds": [1, 2],
            "milestones": [0, 0.5, 1],
            "sampling": {"num_samples": 4},
            "probes": {"train": 10, "val": 5, "out_of_domain": 5},
            "own_samples": {"milestones": 3},
        }
    )
    rows = {("p", "train"): 100, ("p", "val"): 20, ("p", "test"): 20, ("q", "test"): 20}
    found = {load.rule: load for load in loads.planned(study, rows, {"sft": plan.schedule(80, batch=8)})}
    assert found["sample_base"].units == 160 * 4
    assert found["train sft"].units == 2 * 10 * 8
    # The end on 60 memes, and, of the 2 trained runs alone, the milestone between on 3: 4 samples each.
    assert found["sample_policy"].units == 4 * (3 * 60 + 2 * 3)
    # Base once, 2 trained runs × 2 later milestones, 1 external run × 1 on 20 probed prompts; everybody's own samples.
    assert found["score"].units == (1 + 2 * 2 + 1) * 20 * 4 + 4 * (3 * 60 + 2 * 3)
    assert found["score"].jobs == 4


def test_loads_of_what_is_made_of_others_by_hand():
    """Two seeds; one curriculum, one merge, one path of merges, a judge and a reward model on 100 train memes."""
    study = load_study(
        {
            "study": "x",
            "base_model": {"source": "demo"},
            "datasets": {"p": {"reader": "pictograms"}},
            "in_domain": "p",
            "methods": {
                "sft": {"kind": "sft"},
                "then": {"kind": "dpo", "from": "sft", "reference": "base"},
                "soup": {"kind": "merge", "how": "linear", "of": ["sft", "then"]},
            },
            "judge": {},
            "reward_model": {"args": {"num_train_epochs": 2}},
            "merge_path": {"pairs": [["sft", "then"]], "memes": 8},
            "seeds": [1, 2],
            "milestones": [0, 0.5, 1],
            "sampling": {"num_samples": 4},
            "own_samples": {"milestones": 3},
        }
    )
    rows = {("p", "train"): 100, ("p", "val"): 20, ("p", "test"): 20}
    schedules = {name: plan.schedule(80, batch=8) for name in ("sft", "then")}
    found = {load.rule: load for load in loads.planned(study, rows, schedules)}
    # 100 / 8 = 12.5 steps an epoch, 2 epochs.
    assert found["train_reward_model"].units == 25 and found["judge"].units == 200
    assert found["merge"].units == found["extract_merge_path"].jobs == 2
    assert found["extract_merge_path"].units == 2 * 20 * 8
    # Each curriculum: at 2 milestones the parent's and its own 12 answers, and 160 at its end.
    assert found["score_to_parent"].units == 2 * (2 * 2 * 12 + 160)
    # 3 methods × 2 seeds at the end; trained ones between on 3 memes; a curriculum at its start too.
    assert found["sample_policy"].units == 4 * (6 * 40 + 4 * 3 + 2 * 3)
