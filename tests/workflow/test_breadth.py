"""Runs of every sort in one study, each a line of configuration, and what all analyses say of them: `make long`."""

import json
import shutil

import polars as pl
import pytest
import yaml

from smoke_study import copy_tree, llamafactory_made_here, planned, snakemake, stand_everywhere

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.timeout(2400)]

STUDY = "tests/workflow/breadth.yaml"
ROOT = "results/breadth"
# What only some studies have.
TRAINED = [f"{ROOT}/analyses/{name}.parquet" for name in ("parity", "judgement", "merge_path")]
TRAINED += [f"{ROOT}/runs/{run}/run.json" for run in ("gspo-reward/seed1", "dpo-judge/seed1", "ties/seed1")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which every run is made, and the analyses that only some studies have."""
    folder = copy_tree(tmp_path_factory.mktemp("breadth") / "project")
    snakemake(folder, *TRAINED, "--cores", "2", config=STUDY, **llamafactory_made_here())
    return folder


@pytest.fixture(scope="module")
def breadth(trained):
    """The folder in which the study has run to its end: about six minutes more on two cores."""
    snakemake(trained, "--cores", "2", config=STUDY, **llamafactory_made_here())
    return trained


@pytest.fixture(scope="module")
def methods(breadth):
    return yaml.safe_load((breadth / STUDY).read_text())["methods"]


def table(folder, name):
    return pl.read_parquet(folder / ROOT / f"analyses/{name}.parquet")


def responses_kl(folder):
    """Exact KL of whole responses, a row a run, milestone, reference, split and probe."""
    found = table(folder, "kl").filter(statistic="per_response", estimator="exact", span="all")
    return found.filter(pl.col("value").is_not_null() & pl.col("versus").is_null())


def record(folder, method):
    return json.loads((folder / ROOT / f"runs/{method}/seed1/run.json").read_text())


def test_every_run_stands_in_every_analysis(breadth, methods):
    stand_everywhere(breadth / ROOT, methods)


def test_nothing_is_left_to_do(breadth):
    assert not planned(breadth, config=STUDY)


def test_runs_begin_where_they_say(trained):
    assert [record(trained, name)["starts_at"] for name in ("sft", "sft-dpo", "dpo-judge")] == ["base", "sft", "own"]


def test_runs_are_measured_where_they_begin(breadth):
    # Away from the base, each response by itself: KL of whole responses, not of their spans or against another run.
    kl = responses_kl(breadth)
    started = kl.filter((pl.col("fraction") == 0) & pl.col("method").is_in(["sft-dpo", "dpo-judge"]))
    assert set(started["method"]) == {"sft-dpo", "dpo-judge"} and (started["value"] > 5e-5).all()
    # The chained run where its parent ended, read by the base's own responses.
    keys, ahead = ["dataset", "split"], kl.filter(direction="forward", reference="base")
    first, last = (ahead.filter(method=name, fraction=at) for name, at in (("sft-dpo", 0.0), ("sft", 1.0)))
    both = first.join(last, on=keys, validate="1:1")
    assert len(both) == len(first) == len(last) == 3
    assert both["value"].to_list() == pytest.approx(both["value_right"].to_list(), rel=1e-4)


def test_a_chained_run_is_measured_against_base_and_parent(breadth):
    found = table(breadth, "kl").filter(pl.col("method") == "sft-dpo")
    assert set(found["reference"]) == {"base", "sft"}
    assert {"forward", "reverse"} <= set(found.filter(pl.col("reference") == "sft")["direction"])


def test_kinds_of_weights(trained):
    kinds = {name: record(trained, name)["kind"] for name in ("gspo-reward", "dpo-judge", "ties")}
    assert kinds == {"gspo-reward": "adapter", "dpo-judge": "adapter", "ties": "full"}


def test_prefix_tuning_has_no_spectrum_and_says_so(breadth):
    reason = table(breadth, "spectrum").filter(pl.col("method") == "dpo-judge")["missing"].drop_nulls()
    assert len(reason)


def test_both_backends_train_alike(trained):
    """DPO from the same data, seed and settings: ln 2 at first, and the same losses at every step."""
    found = table(trained, "parity").filter(pl.col("metric") == "loss")
    first = found.filter((pl.col("statistic") == "logged") & (pl.col("step") == 1))
    assert len(first) == 2 and ((first["value"] - 0.693147).abs() < 1e-5).all()
    apart = found.filter(pl.col("statistic") == "difference")
    assert len(apart) == 3 and (apart["value"].abs() < 1e-5).all()


def test_the_reward_model_graded_and_the_judge_chose(trained):
    rollouts = pl.read_parquet(trained / ROOT / "runs/gspo-reward/seed1/rollouts.parquet")
    # What was trained on is its reward; the study's own are recorded and weigh nothing.
    rewards = [dict(row) for row in rollouts["rewards"]]
    assert rollouts["reward"].to_list() == pytest.approx([row["reward_model"] for row in rewards], abs=1e-6)
    assert rollouts["reward"].n_unique() > 8
    judged, labelled = (
        pl.read_parquet(trained / ROOT / f"{name}.parquet") for name in ("preferences/judged", "preferences")
    )
    assert set(judged["pair_type"]) == {"judge"} and "judge" not in set(labelled["pair_type"])
    assert "agreement" in set(table(trained, "judgement")["statistic"])


def test_the_path_of_merges_ends_at_the_runs(breadth):
    """At t = 0 and 1 it is the two runs, as the analyses of the runs themselves measure them on the same memes."""
    found = table(breadth, "merge_path")
    assert set(found["way"]) == {"linear", "slerp"} and found["t"].n_unique() == 11
    val = {"fraction": 1.0, "split": "val", "reference": "base"}
    kl = responses_kl(breadth).filter(**val, direction="forward")
    accuracy = table(breadth, "accuracy").filter(**val, statistic="probe_accuracy", probe_kind="base_sample")
    for name, runs in (("kl_forward", kl), ("accuracy", accuracy)):
        ends = [runs.filter(method=method)["value"].item() for method in ("sft", "sft-dpo")]
        for t, end in enumerate(ends):
            there = found.filter(statistic=name, t=float(t))
            assert there["value"].to_list() == pytest.approx([end, end], rel=1e-3), (name, t)
    assert kl.filter(method="sft-dpo")["value"].item() > 1.5 * kl.filter(method="sft")["value"].item()


def test_an_exported_run_is_checked_and_described(breadth):
    folder = f"{ROOT}/exports/gspo-reward/seed1"
    snakemake(breadth, "--cores", "1", folder, config=STUDY)
    check = json.loads((breadth / folder / "check.json").read_text())
    assert check["rms_logit_gap"] < 1e-5 < check["rms_logit_moved"] and check["argmax_agreement"] > 0.99
    card = (breadth / folder / "README.md").read_text()
    # The numbers of the study's own tables, and how it was made.
    val = pl.col("method").eq("gspo-reward") & pl.col("split").eq("val") & pl.col("fraction").eq(1)
    of_run = {"accuracy": table(breadth, "accuracy").filter(val, statistic="accuracy", probe_kind="own_sample"),
              "kl": responses_kl(breadth).filter(val, direction="reverse", reference="base")}  # fmt: skip
    for name, rows in of_run.items():
        found = rows.filter(pl.col("versus").is_null()) if "versus" in rows.columns else rows
        value, low, high = found.select("value", "ci_low", "ci_high").row(0)
        assert f"{value:.3f} ({low:.3f} to {high:.3f})" in card, name
    assert card.startswith("---\n") and "gspo" in card and "qv\\_high" in card
    assert (breadth / folder / "model.safetensors").exists() or list((breadth / folder).glob("model-*.safetensors"))


def test_what_a_change_retrains(breadth, tmp_path):
    """A parent retrains its children and merges; LLaMA-Factory's run follows its own arguments, not its environment."""
    copied = tmp_path / "project"
    shutil.copytree(breadth, copied, symlinks=True)
    (copied / ".environments/llamafactory.json").touch()
    assert not planned(copied, config=STUDY)
    study = yaml.safe_load((copied / STUDY).read_text())
    study["methods"]["sft"]["args"] = {"learning_rate": 2.0e-3}
    (copied / STUDY).write_text(yaml.safe_dump(study, sort_keys=False))
    jobs = planned(copied, config=STUDY)
    assert (jobs["train_sft"], jobs["train_dpo"], jobs["extract_merge_path"]) == (1, 1, 1)
    assert jobs["merge"] == 1
    assert not jobs.keys() & {"train_llamafactory", "train_grpo", "train_reward_model", "judge", "sample_base"}
    study["methods"]["dpo-llamafactory"]["args"] = {"beta": 0.2}
    (copied / STUDY).write_text(yaml.safe_dump(study, sort_keys=False))
    assert planned(copied, config=STUDY)["train_llamafactory"] == 1
