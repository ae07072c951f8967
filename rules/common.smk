"""What the rules share: the study, its runs, and `task`, which makes a rule's parameters. No rules here."""

import hashlib
import json
from functools import cache, partial
from pathlib import Path

from snakemake.exceptions import WorkflowError

from memedynamics import environment, readers
from memedynamics.errors import InputError
from memedynamics.failures import print_failures
from memedynamics.fingerprint import fingerprint, user_files
from memedynamics.milestones import label
from memedynamics.prompts import load_prompt
from memedynamics.study import TRIAL_ROWS, load_study, plain, warnings_of

try:
    FULL = load_study({**config, "trial": False})
    STUDY = load_study(config)
    PROMPT = load_prompt(Path(workflow.basedir, "config/prompts", f"{STUDY.prompt}.yaml"))
except InputError as error:
    raise WorkflowError(str(error)) from None

environment.expose(Path(workflow.basedir, "workflow"))

ROOT = f"results/{STUDY.study}"
CHANGED = environment.changes(Path(ROOT, "environment.json"))
if workflow.is_main_process:
    for line in warnings_of(STUDY) + CHANGED:
        logger.warning(line)

IN_DOMAIN = STUDY.in_domain
SPLITS = [(IN_DOMAIN, "train"), (IN_DOMAIN, "val"), (IN_DOMAIN, "test")] + [(d, "test") for d in STUDY.out_of_domain]
QUESTIONS = {name: source.question for name, source in STUDY.datasets.items()}
FRACTIONS = STUDY.milestones
RUNS = [(m, s) for m, method in STUDY.methods.items() for s in (STUDY.seeds if method.kind != "external" else [0])]
RUN_NAMES = [f"{method}/seed{seed}" for method, seed in RUNS]
BASE = plain(STUDY.base_model)


scattergather:
    sample=STUDY.sampling.shards,
    score=STUDY.scoring.shards,


wildcard_constraints:
    method="|".join(["base", *STUDY.methods]),
    seed="[0-9]+",
    dataset="|".join(STUDY.datasets),
    split="train|val|test",


def task(rule, cfg=None, **folders):
    """Parameters of `rule`: `cfg` and `code` are tracked by Snakemake; `job`, the script's one argument, is not.

    `cfg` is a dict or a function of the wildcards. `folders` name, for scripts whose inputs are too many for one
    command line, the folders that hold them.
    """
    cfg = cfg or {}
    script = f"workflow/scripts/{rule}.py"
    return {"script": script, "cfg": cfg, "code": code_of(script), "job": partial(job_argument, rule, cfg, folders)}


@cache
def code_of(script):
    """Fingerprint of a script, the library it reaches and the user's own rewards where it grades."""
    own = user_files(STUDY.rewards, Path.cwd())
    pins = [Path(workflow.basedir, "envs/main.txt")] if STUDY.strict_env else []
    here = Path(workflow.basedir)
    return fingerprint(here / script, here / "workflow/memedynamics", rewards=own, verbatim=pins)


def job_argument(rule, cfg, folders, wildcards, input, output, threads, resources):
    """The script's JSON argument. Unnamed inputs stay out of it: one command is limited to 128 KiB."""
    cfg = cfg(wildcards) if callable(cfg) else cfg
    code = code_of(f"workflow/scripts/{rule}.py")
    digest = hashlib.sha256(json.dumps([cfg, code], sort_keys=True).encode()).hexdigest()[:16]
    where = Path(*dict(wildcards).values()) if dict(wildcards) else "all"
    job = {
        "rule": rule,
        "root": ROOT,
        "study": STUDY.study,
        "digest": digest,
        "code": code,
        "input": {**named(input), **folders},
        "output": named(output),
        "wildcards": dict(wildcards),
        "cfg": cfg,
        "threads": threads,
        "gpu": resources.get("gpu", 0),
        "work": f"{ROOT}/.work/{rule}/{where}",
        "timing": f"{ROOT}/benchmarks/timing/{rule}/{where}.json",
    }
    return json.dumps(job, ensure_ascii=True)


def named(files):
    """The named entries of an input or output list: a path, or a list of paths."""
    return {name: list(value) if isinstance(value, list) else str(value) for name, value in files.items()}


def grows(amount):
    """A resource that grows with every attempt."""
    return lambda wildcards, attempt: amount * attempt


def one_of(*kinds):
    """Pattern of the methods of these kinds; matches nothing where the study has none."""
    return "|".join(name for name, method in STUDY.methods.items() if method.kind in kinds) or "(?!)"


# What the rules' scripts are told, by rule; tracked by Snakemake, so each holds what its rule depends on and no more.
ASKING = {"base": BASE, "prompt": plain(PROMPT)}
GRADING = {"sampling": plain(STUDY.sampling), "rewards": STUDY.rewards}
MATCHED = {"training": STUDY.training, "adapter": plain(STUDY.adapter), "question": QUESTIONS[IN_DOMAIN]}
USED = list(dict.fromkeys(dataset for dataset, _ in SPLITS))
PROBED = [(dataset, split) for dataset, split in SPLITS if (dataset, split) != (IN_DOMAIN, "test")]
BY_RUN = {"method": [m for m, _ in RUNS], "seed": [s for _, s in RUNS]}
DEMO_DATA = {"train": f"{ROOT}/data/{IN_DOMAIN}/train.parquet"} if STUDY.base_model.source == "demo" else {}
LAUNCH = "accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"
PREFETCH = {
    "source": BASE,
    "datasets": {name: plain(STUDY.datasets[name]) for name in USED},
    "methods": {name: plain(method) for name, method in STUDY.methods.items() if method.kind == "external"},
}
PREFERENCES = {"rule": STUDY.preferences.rule, "prompt": plain(PROMPT), "question": QUESTIONS[IN_DOMAIN]}
SAMPLE_POLICY = {
    **ASKING,
    **GRADING,
    "questions": QUESTIONS,
    "own": plain(STUDY.own_samples),
    "fractions": FRACTIONS,
    "in_domain": IN_DOMAIN,
}
SCORE = {**ASKING, "questions": QUESTIONS, "scoring": plain(STUDY.scoring), "fractions": FRACTIONS}
SCORE_BASE = {**SCORE, "fractions": [0.0]}
PLAN = {"study": plain(FULL), "splits": SPLITS}
# Where analyses find what they reduce; `ANALYSED` are the same files one by one.
SCORED = ["base/seed0", *RUN_NAMES]
FOLDERS = {
    "traces": [f"{ROOT}/traces/{name}" for name in SCORED],
    "responses": [f"{ROOT}/responses/{name}" for name in SCORED],
    "samples": [f"{ROOT}/samples/{name}.parquet" for name in RUN_NAMES],
    "base": [f"{ROOT}/samples/base/{dataset}/{split}.parquet" for dataset, split in SPLITS],
    "runs": [f"{ROOT}/runs/{name}/run.json" for name in RUN_NAMES],
    "data": [f"{ROOT}/data/{dataset}/{split}.parquet" for dataset, split in SPLITS],
}
SHARDS = [f"{i}-of-{STUDY.scoring.shards}" for i in range(1, STUDY.scoring.shards + 1)]
ANALYSED = [
    *[f"{folder}/{shard}.parquet" for folder in FOLDERS["traces"] + FOLDERS["responses"] for shard in SHARDS],
    *[file for kind in ("samples", "base", "runs", "data") for file in FOLDERS[kind]],
]


def source_files(wildcards):
    """The annotation files of a dataset: a changed file prepares it anew."""
    return readers.source_files(STUDY.datasets[wildcards.dataset])


def dataset_cfg(wildcards):
    """What prepare_dataset is told."""
    return {"source": plain(STUDY.datasets[wildcards.dataset]), "limit": TRIAL_ROWS if STUDY.trial else None}


def sample_base_cfg(wildcards):
    """What sample_base is told."""
    return {**ASKING, **GRADING, "question": QUESTIONS[wildcards.dataset]}


def method_cfg(wildcards):
    """One method's recipe."""
    return {"method": plain(STUDY.methods[wildcards.method]), "base": BASE}


def preflight_cfg(wildcards):
    """What preflight is told."""
    return {**ASKING, **GRADING, **MATCHED, **method_cfg(wildcards)}


def train_cfg(wildcards):
    """What a training is told."""
    return {**preflight_cfg(wildcards), "fractions": FRACTIONS, "train_prompts": STUDY.train_prompts}
