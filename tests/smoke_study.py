"""The smoke study: its folder, and what Snakemake does, says or plans there."""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import polars as pl

HERE = Path(__file__).resolve().parents[1]
TREE = ("Snakefile", "rules", "workflow", "config", "envs", "slurm", "workstation", "tests", "docs")
SMOKE = "tests/workflow/smoke.yaml"
ANALYSES = ("accuracy", "kl", "likelihood", "rewards", "spectrum", "sharpe", "attention", "entropy", "gradients")
# Recognisable ones, to be looked for in what a run leaves behind.
TOKENS = (
    "HF_TOKEN HUGGING_FACE_HUB_TOKEN OPENAI_API_KEY WANDB_API_KEY GITHUB_TOKEN "
    "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"
)
PLANTED = {name: f"planted-{number}-never-write-this-down" for number, name in enumerate(TOKENS.split())}


def snakemake(folder, *arguments, check=True, config=SMOKE, **environment):
    """Runs Snakemake in `folder`; its combined output."""
    study = ["--configfile", config] if config else []
    done = subprocess.run(
        ["snakemake", *arguments, *study],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert not check or done.returncode == 0, done.stdout[-8000:]
    return done


def planned(folder, *arguments, **options):
    """Which rules a dry run lists, and how many jobs of each."""
    text = snakemake(folder, "--dry-run", *arguments, **options).stdout
    stats = re.search(r"^job +count\n-+ +-+\n(.*?)^total", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^(\w+) +(\d+)$", stats.group(1), re.MULTILINE) if stats else []
    # Aggregates have no job of their own.
    aggregates = {"all", "samples", "training", "analyses", "figures", "paper", "report"}
    return Counter({rule: int(count) for rule, count in rows if rule not in aggregates})


def told(folder, rule, *holding, **options):
    """The JSON argument of the first job of `rule` in a dry run whose command holds the texts `holding`.

    A dry run lists jobs in no order.
    """
    text = snakemake(folder, "--dry-run", "--printshellcmds", "--forceall", **options).stdout
    commands = [
        line for line in text.splitlines() if f"scripts/{rule}.py" in line and all(part in line for part in holding)
    ]
    return json.loads(re.search(r"'({.*})'", commands[0]).group(1))


def stand_everywhere(results, methods):
    """Every method stands in every analysis, with a value or with the reason why there is none, and in the summary."""
    tables = {name: pl.read_parquet(results / f"analyses/{name}.parquet") for name in ANALYSES}
    for name, table in tables.items():
        assert set(methods) <= set(table["method"]), name
        told = (pl.col("value").is_not_null() | pl.col("missing").is_not_null()).any()
        given = table.filter(pl.col("method").is_in(list(methods))).group_by("method").agg(told=told)
        assert given["told"].all(), name
    summary = pl.read_parquet(results / "analyses/summary.parquet")
    gained = summary.filter(pl.col("value").is_not_null() & pl.col("method").is_in(list(methods)))
    assert set(gained["method"]) == set(methods)


def llamafactory_made_here():
    """What gives a copy of the project the LLaMA-Factory that was made here; without one the workflow makes its own."""
    name, made = "MEMEDYNAMICS_LLAMAFACTORY", HERE / ".environments/llamafactory.json"
    return {name: json.loads(made.read_text())["python"]} if made.exists() and name not in os.environ else {}


def copy_tree(folder):
    """The project's files, as a fresh clone would have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TREE:
        source = HERE / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def guard_network(folder):
    """Let no process that finds its modules in `folder` reach beyond this machine; `network.txt` says who tried."""
    shutil.copy(HERE / "tests/workflow/no_network.py", folder / "sitecustomize.py")
