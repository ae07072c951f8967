"""What a user meets around a run: the study file replaces the demo, errors in one line, plans, trials, GPUs."""

import json
import re
import shutil

import pytest
import yaml

from memedynamics.config import Dataset
from smoke_study import HERE, SMOKE, copy_tree, planned, snakemake, told

pytestmark = pytest.mark.workflow


@pytest.fixture
def project(tmp_path):
    return copy_tree(tmp_path / "project")


def change_study(project, **changes):
    study = yaml.safe_load((project / SMOKE).read_text()) | changes
    (project / SMOKE).write_text(yaml.safe_dump(study, sort_keys=False))


def test_the_study_file_replaces_the_demo(project):
    """A key that only the demo sets is at its default, not at the demo's value."""
    demo = yaml.safe_load((HERE / "config/demo.yaml").read_text())
    assert demo["sampling"]["batch_size"] != 8
    change_study(project, sampling={"num_samples": 4})
    sampling = told(project, "sample_base")["cfg"]["sampling"]
    assert sampling["num_samples"] == 4
    assert sampling["batch_size"] == 8
    for name, given in yaml.safe_load((project / SMOKE).read_text())["datasets"].items():
        seen = told(project, "prepare_dataset", f'"dataset": "{name}"')["cfg"]["source"]
        assert seen == Dataset(**given).model_dump(mode="json", exclude={"question"})


def test_an_unknown_key_stops_before_anything_is_planned(project):
    change_study(project, samplng={})
    done = snakemake(project, "--dry-run", check=False)
    assert done.returncode != 0
    assert "samplng: unknown key; did you mean 'sampling'?" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_failing_job_says_why_in_the_terminal(project):
    change_study(project, datasets={"mine": {"reader": "table", "root": "nowhere"}}, in_domain="mine", out_of_domain=[])
    done = snakemake(project, "--cores", "1", "data", check=False)
    assert done.returncode != 0
    assert re.search(r"^error: .*nowhere", done.stdout, re.MULTILINE)


def test_data_shows_what_is_found_beside_what_is_missing(project):
    study = yaml.safe_load((project / SMOKE).read_text())
    study["datasets"]["away"] = {"reader": "harmeme", "root": "nowhere", "splits": {"test": "test"}}
    change_study(project, datasets=study["datasets"], out_of_domain=["away"])
    done = snakemake(project, "--cores", "1", "data", check=False)
    assert done.returncode != 0
    assert re.search(r"pictograms +│ train +│ +96 ", done.stdout)
    assert "not found: datasets.away: nowhere; put the files there" in done.stdout


def test_unmatched_methods_are_warned_about(project):
    study = yaml.safe_load((project / SMOKE).read_text())
    study["methods"]["sft"]["adapter"] = {"r": 8}
    change_study(project, methods=study["methods"])
    assert "methods.sft.adapter.r = 8 but adapter.r = 4" in snakemake(project, "--dry-run").stdout


def test_the_real_study_is_planned_from_its_folder(project):
    """Only annotation files are needed to plan; rules, scripts and library are the demo's."""
    import drawn_datasets

    for name in ("hateful_memes", "harmeme", "mami"):
        getattr(drawn_datasets, name)(project / "data" / name)
    jobs = planned(project, config="config/hateful_memes.yaml")
    assert jobs["train_grpo"] == 3 and jobs["score"] == 9 * 4 and jobs["sample_base"] == 5 * 4


def test_prepared_data_is_printed(copied):
    text = snakemake(copied, "--cores", "1", "data").stdout
    assert "pictograms" in text and "96" in text


def test_a_version_that_changed_is_warned_about_and_redone_only_when_strict(copied):
    record = copied / "results/smoke/environment.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"trl": "0.9"}))
    pins = copied / "envs/main.txt"
    pins.write_text(pins.read_text() + "# another build\n")
    assert "trl was 0.9 when this study began" in snakemake(copied, "--dry-run").stdout
    assert not planned(copied)
    study = yaml.safe_load((copied / SMOKE).read_text()) | {"strict_env": True}
    (copied / SMOKE).write_text(yaml.safe_dump(study))
    assert planned(copied)["train_sft"] == 1


def test_gpu_jobs_of_one_machine_never_share_a_device(finished, tmp_path):
    """The finished study's scores again, with one fake device and two cores: jobs overlap, leases do not."""
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    folder = tmp_path / "project"
    shutil.rmtree(folder / "results/smoke/traces")
    shutil.rmtree(folder / "results/smoke/logs/score")
    locks = tmp_path / "locks"
    locks.mkdir()
    environment = {"MEMEDYNAMICS_GPUS": "0", "TMPDIR": str(locks)}
    wanted = [f"results/smoke/traces/{method}/seed1/1-of-1.parquet" for method in ("sft", "dpo")]
    snakemake(folder, *wanted, "--cores", "2", **environment)
    waited = [log.read_text() for log in (folder / "results/smoke/logs/score").rglob("*.log")]
    assert any("waiting for 1 of GPU 0" in text for text in waited)
    assert len(list(locks.rglob("*-0.lock"))) == 1
