"""The sorts of run that `breadth` has no room for, through the whole study: `make long`."""

import json

import polars as pl
import pytest
import yaml

from smoke_study import copy_tree, llamafactory_made_here, planned, snakemake, stand_everywhere

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.timeout(2400)]

STUDY = "tests/workflow/kinds.yaml"


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """The results of the study, which has run to its end."""
    folder = copy_tree(tmp_path_factory.mktemp("kinds") / "project")
    snakemake(folder, "--cores", "2", config=STUDY, **llamafactory_made_here())
    assert not planned(folder, config=STUDY)
    return folder / "results/kinds"


def test_every_run_stands_in_every_analysis(kinds):
    stand_everywhere(kinds, yaml.safe_load((kinds.parents[1] / STUDY).read_text())["methods"])


def test_runs_begin_where_they_say(kinds):
    names = {"fine-grpo": "fine", "ia3-grpo": "ia3", "qlora": "base", "prompt": "own"}
    found = {name: json.loads((kinds / f"runs/{name}/seed1/run.json").read_text())["starts_at"] for name in names}
    assert found == names


def test_a_chained_run_is_measured_against_base_and_parent(kinds):
    kl = pl.read_parquet(kinds / "analyses/kl.parquet")
    for name, parent in (("fine-grpo", "fine"), ("ia3-grpo", "ia3")):
        assert set(kl.filter(method=name)["reference"]) == {"base", parent}


def test_every_trained_run_moved(kinds):
    """Few steps, but no method stands still: forward KL on val above that of the base through its other path."""
    kl = pl.read_parquet(kinds / "analyses/kl.parquet").filter(
        statistic="per_response", estimator="exact", span="all", direction="forward", split="val", reference="base"
    )
    ends = kl.filter(pl.col("versus").is_null() & (pl.col("fraction") == 1.0) & (pl.col("method") != "base"))
    floor = kl.filter(versus="other_path")["value"].max()
    assert (ends["value"] > 10 * floor).all(), (ends.select("method", "value").rows(), floor)
