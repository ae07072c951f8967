"""A study on S3, against a real server of this machine: inputs and results in the bucket, credentials nowhere."""

import json
import os
import signal
import subprocess
import sys

import polars as pl
import pytest
import yaml
from PIL import Image

import one_node_slurm
import tiny_models
from smoke_study import HERE, PLANTED, copy_tree, snakemake

from .test_hygiene import leaks

pytestmark = pytest.mark.workflow
PLUGIN = HERE / ".environments/storage"
SECRETS = {name: PLANTED[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
SERVER = """
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
time.sleep(3600)
"""
UPLOAD = """
import sys, boto3
from pathlib import Path
s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1")
s3.create_bucket(Bucket="studies")
for file in sorted(path for path in Path(sys.argv[2]).rglob("*") if path.is_file()):
    s3.upload_file(str(file), "studies", str(file.relative_to(sys.argv[2])))
"""
LISTED = """
import sys, boto3
s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1")
for page in s3.get_paginator("list_objects_v2").paginate(Bucket="studies"):
    for found in page.get("Contents", []):
        file = __import__("pathlib").Path(sys.argv[2], found["Key"])
        file.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file("studies", found["Key"], str(file))
"""


def inputs(folder):
    """A dataset and a model as they would lie in a bucket."""
    rows = [{"id": f"{split}{n}", "image": f"img/{n}.png", "text": "a cat", "label": n % 2, "split": split}
            for split in ("train", "val", "test") for n in range(4)]  # fmt: skip
    (folder / "memes/img").mkdir(parents=True)
    for n in range(4):
        Image.new("RGB", (56, 56), (60 * n, 0, 0)).save(folder / f"memes/img/{n}.png")
    for split in ("train", "val", "test"):
        lines = [json.dumps(row) for row in rows if row["split"] == split]
        (folder / f"memes/{split}.jsonl").write_text("\n".join(lines) + "\n")
    subprocess.run(["cp", "-rL", str(tiny_models.folder("qwen2_5_vl")), str(folder / "tiny")], check=True)


# Of this machine's pictograms, so that there are answers to train on: a run, its scores, an analysis and a figure.
TRAINED = {
    "study": "trained",
    "base_model": {"source": "demo", "dtype": "float32", "demo": {"steps": 80}},
    "datasets": {"pictograms": {"reader": "pictograms", "splits": {"train": 24, "val": 6, "test": 6}}},
    "prompt": "think_answer_text",
    "in_domain": "pictograms",
    "sampling": {"num_samples": 4, "max_new_tokens": 56, "batch_size": 12, "shards": 1},
    "own_samples": {"milestones": 2},
    "scoring": {"shards": 1},
    "adapter": {"r": 4},
    "training": {"max_steps": 3, "per_device_train_batch_size": 4, "gradient_checkpointing": False},
    "methods": {"sft": {"kind": "sft"}},
    "seeds": [1],
    "milestones": [0, 1],
    "resamples": 50,
}
STUDY = {
    "study": "stored",
    "base_model": {"source": "./tiny", "dtype": "float32"},
    "datasets": {"mine": {"reader": "table", "root": "memes",
                          "splits": {name: f"{name}.jsonl" for name in ("train", "val", "test")}}},
    "in_domain": "mine",
    "sampling": {"num_samples": 2, "max_new_tokens": 4, "batch_size": 4, "shards": 1},
    "methods": {"sft": {"kind": "sft"}},
    "seeds": [1],
}  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The project's folder, how to call Snakemake on the bucket, the bucket's address, and what the run said."""
    if not PLUGIN.is_dir():
        assert not os.environ.get("CI"), "CI must have run `make storage`"
        pytest.skip("needs `make storage`")
    folder = copy_tree(tmp_path_factory.mktemp("stored") / "project")
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    (folder / "trained.yaml").write_text(yaml.safe_dump(TRAINED))
    around = {**SECRETS, "PYTHONPATH": str(PLUGIN)}
    server = subprocess.Popen([sys.executable, "-c", SERVER], env={**os.environ, **around}, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
    bucket = tmp_path_factory.mktemp("bucket")
    inputs(bucket)
    subprocess.run([sys.executable, "-c", UPLOAD, url, str(bucket)], env={**os.environ, **around}, check=True)
    flags = ["--default-storage-provider", "s3", "--default-storage-prefix", "s3://studies"]
    flags += ["--cores", "2"]
    around["SNAKEMAKE_STORAGE_S3_ENDPOINT_URL"] = url
    wanted = ["results/stored/samples/base/mine/val.parquet"]

    def call(*arguments, targets=wanted, config="study.yaml", check=True):
        return snakemake(folder, *targets, *arguments, *flags, config=config, check=check, **around).stdout

    said = call()
    yield folder, call, url, said, around
    server.send_signal(signal.SIGTERM)
    server.wait()


def test_inputs_and_results_are_in_the_bucket_and_nothing_is_left_to_do(stored, tmp_path):
    folder, call, url, _, around = stored
    subprocess.run([sys.executable, "-c", LISTED, url, str(tmp_path)], env={**os.environ, **around}, check=True)
    results = tmp_path / "results/stored"
    assert (results / "samples/base/mine/val.parquet").is_file() and (results / "model/base.json").is_file()
    assert not (folder / "results/stored/samples").exists()
    assert "Nothing to be done" in call("--dry-run")
    assert not leaks(tmp_path, SECRETS)


@pytest.mark.long
def test_a_run_its_scores_an_analysis_and_its_figure_are_made_in_the_bucket(stored, tmp_path):
    folder, call, url, _, around = stored
    root = "results/trained"
    given = {"targets": [f"{root}/figures/accuracy.html"], "config": "trained.yaml"}
    said = call(**given)
    assert not any(secret in said for secret in SECRETS.values())
    subprocess.run([sys.executable, "-c", LISTED, url, str(tmp_path)], env={**os.environ, **around}, check=True)
    run = tmp_path / root / "runs/sft/seed1"
    assert json.loads((run / "run.json").read_text())["total_steps"] == 3
    assert all((run / "milestones" / name / "adapter_model.safetensors").is_file() for name in ("0", "1"))
    assert set(pl.read_parquet(tmp_path / root / "responses/sft/seed1/1-of-1.parquet")["fraction"]) == {1.0}
    table = pl.read_parquet(tmp_path / root / "analyses/accuracy.parquet")
    assert {"base", "sft"} <= set(table["method"]) and table["value"].is_not_null().any()
    assert "accuracy" in (tmp_path / root / "figures/accuracy.html").read_text()
    assert not [path for path in (folder / root).rglob("*.parquet") if ".work" not in path.parts]
    assert "Nothing to be done" in call("--dry-run", **given)
    assert not leaks(tmp_path, SECRETS)


@pytest.mark.long
def test_a_job_on_slurm_finds_the_plugin_where_pythonpath_has_it(stored, tmp_path):
    """The Snakemake that Slurm starts for it, which fetches its inputs and stores its outputs."""
    if not one_node_slurm.available():
        assert not os.environ.get("CI"), "CI must have slurm-wlm and munge, and run as root"
        pytest.skip("needs Debian's slurm-wlm and munge, as root")
    folder, call, _, _, _ = stored
    (folder / "on_slurm.yaml").write_text(yaml.safe_dump(STUDY | {"study": "on_slurm"}))
    given = {"targets": ["results/on_slurm/data/mine/val.parquet"], "config": "on_slurm.yaml"}
    with one_node_slurm.running(tmp_path / "slurm"):
        assert "add `--slurm-array-jobs ''`" in call(*one_node_slurm.FLAGS, check=False, **given)
        call(*one_node_slurm.FLAGS, "--slurm-array-jobs=", **given)
        assert [(job["Rule"], job["JobState"]) for job in one_node_slurm.records()] == [
            ("prepare_dataset", "COMPLETED")
        ]
    assert "Nothing to be done" in call("--dry-run", **given)


def test_no_credential_is_written_down(stored):
    folder, _, _, said, _ = stored
    assert not leaks(folder, SECRETS)
    assert not any(secret in said for secret in SECRETS.values())
