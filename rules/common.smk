"""What the rules share: the study, its runs, and `task`, which makes a rule's parameters. No rules here."""

import gc
import hashlib
import json
import os
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

from memedynamics import (
    array_tasks,
    disk,
    environment,
    job_signals,
    lineage,
    lock,
    noted,
    outside,
    pace,
    quick_plans,
    readers,
)
from memedynamics.definitions import definition
from memedynamics.errors import InputError
from memedynamics.failures import print_failures
from memedynamics.fingerprint import fingerprint, user_files
from memedynamics.methods import GRPO, ON_POLICY, WITHOUT_PAIRS, is_plain, rule_of
from memedynamics.milestones import label
from memedynamics.judge_prompts import load_judge_prompt
from memedynamics.prompts import load_prompt
from memedynamics.study import TRIAL_ROWS, check_questions, launched, load_study, plain, settings_of, warnings_of

# Planning makes many objects that stay: looking for garbage among them would be a sixth of a large study's plan.
gc.set_threshold(100_000, 50, 100)

try:
    FULL = load_study({**config, "trial": False})
    STUDY = load_study(config)
    PROMPT = load_prompt(Path(workflow.basedir, "config/prompts", f"{STUDY.prompt}.yaml"))
    check_questions(STUDY, PROMPT)
    LAUNCHES = {name: launched(STUDY, method) for name, method in STUDY.methods.items()}
    SHARED = {name: settings_of(launch) for name, launch in LAUNCHES.items()}
    JUDGE = STUDY.judge
    JUDGE_PROMPT = (
        plain(load_judge_prompt(Path(workflow.basedir, "config/prompts", f"{JUDGE.prompt}.yaml"))) if JUDGE else None
    )
except InputError as error:
    raise WorkflowError(str(error)) from None


def or_stop(check, *given):
    """What `check` returns; where it refuses its input, Snakemake stops with that one line."""
    try:
        return check(*given)
    except InputError as error:
        raise WorkflowError(str(error)) from None


for mend in (pace.look_once, quick_plans.use, array_tasks.submit_in_pieces, array_tasks.keep_to_own_output):
    or_stop(mend)
if not workflow.is_main_process:
    or_stop(job_signals.pass_on)
    or_stop(noted.leave_it_to_main)
logger.addFilter(environment.unsaid)
environment.expose(Path(workflow.basedir, "workflow"), STUDY.model_dump_json())

ROOT = f"results/{STUDY.study}"
# Where a storage (S3) holds the study, Snakemake puts copies of what jobs need below this folder, and jobs work there.
COPIES = str(workflow.modifier.path_modifier.apply_default_storage(ROOT)).removesuffix(ROOT)
HOME = Path(COPIES, ROOT)
CHANGED = environment.changes(HOME / "environment.json")
UNMATCHED = warnings_of(STUDY)
HELD = []
if workflow.is_main_process:
    for line in [*UNMATCHED, *CHANGED, *filter(None, [disk.unwritable(HOME)])]:
        logger.warning(line)
    lock.forget_killed(HOME, Path(".snakemake/locks"))

IN_DOMAIN = STUDY.in_domain
SPLITS = [(IN_DOMAIN, "train"), (IN_DOMAIN, "val"), (IN_DOMAIN, "test")] + [(d, "test") for d in STUDY.out_of_domain]
FRACTIONS = STUDY.milestones
RUNS = [(method, seed) for method in STUDY.methods for seed in lineage.seeds(STUDY, method)]
RUN_NAMES = [f"{method}/seed{seed}" for method, seed in RUNS]


scattergather:
    sample=STUDY.sampling.shards,
    score=STUDY.scoring.shards,


ANY_METHOD = "|".join(STUDY.methods)


wildcard_constraints:
    method="|".join(["base", *STUDY.methods]),
    one=ANY_METHOD,
    other=ANY_METHOD,
    seed="[0-9]+",
    dataset="|".join(STUDY.datasets),
    split="train|val|test",


def task(script, cfg=None, rule=None, aside=None, **folders):
    """Parameters of a rule: `cfg` and `code` are tracked by Snakemake; `job`, the script's one argument, is not.

    `cfg` is a dict or a function of the wildcards. `rule` is told where two rules run one script on the same wildcards.
    `aside` is a dict of what the script is told besides, which changes no result.
    `folders` name, for scripts whose inputs are too many for one command line, the folders that hold them.
    """
    cfg, aside, rule = cfg or {}, aside or {}, rule or script
    script = f"workflow/scripts/{script}.py"

    def job(wildcards, input, output, threads, resources):
        return job_argument(rule, script, cfg, aside, folders, wildcards, input, output, threads, resources)

    def code(wildcards):
        return code_of(script)  # a job on a cluster works out its own alone

    return {"script": script, "cfg": cfg, "code": code, "job": job}


@cache
def code_of(script):
    """Fingerprint of a script, the library it reaches and the user's own rewards where it grades."""
    own = user_files(STUDY.rewards, Path.cwd())
    names = ["main", "llamafactory"] if "llamafactory" in script else ["main"]
    pins = [Path(workflow.basedir, f"envs/{name}.txt") for name in names] if STUDY.strict_env else []
    here = Path(workflow.basedir)
    pages = sorted((here / "workflow/web").iterdir()) if "scripts/report_" in script else []
    return fingerprint(here / script, here / "workflow/memedynamics", rewards=own, verbatim=[*pins, *pages])


class Argument(dict):
    """A script's JSON argument as text; for the cache between studies (`cache: True`), which hashes it, nothing.

    It names this study's folders, while what the result depends on is in `cfg` and `code`.
    """

    def __init__(self, text):
        super().__init__()
        self.text = text

    def __str__(self):
        return self.text

    __repr__ = __str__


def job_argument(rule, script, cfg, aside, folders, wildcards, input, output, threads, resources):
    """The script's JSON argument. Unnamed inputs stay out of it: one command is limited to 128 KiB."""
    cfg = cfg(wildcards) if callable(cfg) else cfg
    code = code_of(script)
    digest = hashlib.sha256(json.dumps([cfg, code], sort_keys=True).encode()).hexdigest()[:16]
    where = Path(*dict(wildcards).values()) if dict(wildcards) else "all"
    job = {
        "rule": rule,
        "at": COPIES,
        "root": ROOT,
        "renew": STUDY.strict_env,
        "study": STUDY.study,
        "digest": digest,
        "code": code,
        "input": {**named(input), **brought(folders, input)},
        "output": named(output),
        "wildcards": dict(wildcards),
        "cfg": cfg,
        "aside": aside,
        "threads": threads,
        "gpu": resources.get("gpu", 0),
        "nodes": resources.get("nodes", 1),
        "work": f"{ROOT}/.work/{rule}/{where}",
        "timing": f"{ROOT}/benchmarks/timing/{rule}/{where}.json",
    }
    return Argument(json.dumps(job, ensure_ascii=True))


def claim(logs):
    """Keep the study to this Snakemake, which writes `logs`, while it runs.

    Stops where another has it, or where nothing can be written. What only prints or shows, as `plan` and `watch` do,
    may run beside it.
    """
    kept = workflow.persistence
    if not list(kept.all_outputfiles()):
        # When it ends, Snakemake takes all locks in this folder away. This one has none, and those of others stay.
        if not list(kept.all_inputfiles()):
            kept.unlock = kept.noop
        return
    if told := disk.unwritable(HOME):
        raise WorkflowError(told)
    HELD.append(or_stop(lock.hold_study, HOME, next(iter(logs), "")))
    noted.forget((job for job in workflow.dag.jobs if not workflow.dag.needrun(job)), HOME, COPIES)
    or_stop(noted.clear_up, HOME, COPIES)


def named(files):
    """The named entries of an input or output list, as jobs see them: a path, or a list of paths."""
    return {
        name: [placed(path) for path in value] if isinstance(value, list) else placed(value)
        for name, value in files.items()
    }


def brought(folders, input):
    """Those of `folders` whose files are a rule's inputs: a storage brings no others to its job."""
    there = {placed(path) for path in input}
    there |= {os.path.dirname(path) for path in there}
    return {name: paths for name, paths in folders.items() if there.issuperset(paths)}


def placed(path):
    """`path` from where jobs work."""
    return path.removeprefix(COPIES) if path.startswith(COPIES) else os.path.abspath(path)


def in_storage(folder):
    """Whether a storage holds `folder` of the study file: all that is relative."""
    return bool(COPIES and folder) and not Path(folder).is_absolute()


def drawn(name):
    """The outputs of a figure: a page of its own, and the drawing that the report and the paper take."""
    page = shown(f"{ROOT}/figures/{name}.html", name, "Figures", "figure")
    return {"figure": page, "drawing": f"{ROOT}/figures/{name}.json"}


def shown(file, name, category, caption):
    """`file` of the analysis `name` as Snakemake's own report shows it, with a caption of workflow/report."""
    about = definition(name)
    labels = {"analysis": about.title, "question": about.question or about.words}
    return report(file, caption=f"../workflow/report/{caption}.rst", category=category, labels=labels)


def without(settings, *keys):
    """`settings` without `keys`."""
    return {key: value for key, value in settings.items() if key not in keys}


def grows(amount):
    """A resource that grows with every attempt."""
    return lambda wildcards, attempt: amount * attempt


def on_nodes(amount):
    """A resource of trainings on several machines: `amount` of their number; unset for the others."""

    def found(wildcards):
        nodes = LAUNCHES[wildcards.method].nodes
        return amount(nodes) if nodes > 1 else None

    return found


# Several machines: Slurm's plugin then leaves it to the job to start something on each (module launch).
TRAINING = {
    "gpu": lambda wildcards: LAUNCHES[wildcards.method].processes,
    "nodes": lambda wildcards: LAUNCHES[wildcards.method].nodes,
    "tasks": on_nodes(lambda nodes: nodes),
    "tasks_per_gpu": on_nodes(lambda nodes: 0),
    "mpi": on_nodes(lambda nodes: "srun"),
    "mem_mb": grows(64000),
    "runtime": grows(1440),
}


def trainer_argument(kinds, name, default):
    """A trainer argument of every method of these kinds, by method."""
    of_kind = {method: given for method, given in STUDY.methods.items() if given.kind in kinds}
    return {method: {**STUDY.training, **given.args}.get(name, default) for method, given in of_kind.items()}


def made_by(rule):
    """Pattern of the methods whose runs `rule` makes; matches nothing where the study has none."""
    return "|".join(name for name, method in STUDY.methods.items() if rule_of(method) == rule) or "(?!)"


def pictures(*names):
    """What jobs that look at memes of the datasets `names` open beside the tables; a storage must be told to bring it."""
    kept = [f"{ROOT}/data/{name}/pictures" for name in names] if COPIES else []
    roots = [STUDY.datasets[name].root for name in names]
    return kept + [os.path.normpath(root) for root in roots if in_storage(root)]


def own_pictures(wildcards):
    """The pictures of one dataset."""
    return pictures(wildcards.dataset)


# What the scripts are told. Snakemake tracks it, so it is what a result depends on and no more. The number of shards
# changes no result, nor does where a server is, nor the question of a dataset that is not used. The size of batches
# does, by rounding.
USED = list(dict.fromkeys(dataset for dataset, _ in SPLITS))
PROBED = [(dataset, split) for dataset, split in SPLITS if (dataset, split) != (IN_DOMAIN, "test")]
QUESTIONS = {name: STUDY.datasets[name].question for name in USED}
ASKED = {key: PROMPT.questions[key] for key in sorted(set(QUESTIONS.values()))}
ASKING = {"base": plain(STUDY.base_model), "prompt": {**plain(PROMPT), "questions": ASKED}}
# What another engine than this project's own is told besides.
ENGINE = {"openai": {"engine": "openai"}, "vllm": {"engine": "vllm", "vllm": STUDY.sampling.vllm}}
DRAWING_HERE = {**ASKING, "sampling": without(plain(STUDY.sampling), "shards", "engine", "server", "vllm")}
DRAWING = {**ASKING, "sampling": {**DRAWING_HERE["sampling"], **ENGINE.get(STUDY.sampling.engine, {})}}
# A server has the base model alone.
DRAWING_OWN = DRAWING if STUDY.sampling.engine == "vllm" else DRAWING_HERE
SERVER = {"server": plain(STUDY.sampling)["server"]}
GRADING = {"prompt": ASKING["prompt"], "rewards": STUDY.rewards}
LIKE_BASE = {key: plain(STUDY.sampling)[key] for key in ("temperature", "max_new_tokens")}
TRAINED_ON = {"prompt": ASKING["prompt"], "question": QUESTIONS[IN_DOMAIN]}
MATCHED = {"base": ASKING["base"], "adapter": plain(STUDY.adapter), "training": STUDY.training, **TRAINED_ON}
REWARDS_USED = {getattr(method, "reward", None) for method in STUDY.methods.values()}
REWARD_MODEL = plain(STUDY.reward_model) if STUDY.reward_model else None
GRADED_BY = {"report": f"{ROOT}/reward_model/report.json"} if REWARD_MODEL and "model" in REWARDS_USED else {}
LLAMAFACTORY = ".environments/llamafactory.json"
PREFERENCES = {"rule": STUDY.preferences.rule, **TRAINED_ON}
JUDGING = {
    "base": plain((JUDGE and JUDGE.model) or STUDY.base_model),
    "judge_prompt": JUDGE_PROMPT,
    "batch_size": JUDGE.batch_size if JUDGE else None,
    **TRAINED_ON,
}
OWN = {"questions": QUESTIONS, "own": plain(STUDY.own_samples), "fractions": FRACTIONS, "in_domain": IN_DOMAIN}
SCORE = {
    **ASKING,
    "questions": QUESTIONS,
    "scoring": without(plain(STUDY.scoring), "shards"),
    "pair_rule": STUDY.preferences.rule,
    "fractions": FRACTIONS,
}
ROOTS = {name: STUDY.datasets[name].root for name in USED}
MISSING = {
    name: [str(f) for f in files]
    for name in USED
    if not in_storage(ROOTS[name]) and (files := readers.missing_files(STUDY.datasets[name]))
}
FOUND = [name for name in USED if name not in MISSING]
if workflow.is_main_process:
    or_stop(outside.refuse_future, [file for name in USED for file in readers.source_files(STUDY.datasets[name])])
    or_stop(outside.refuse_future, Path(STUDY.base_model.source).glob("*"))
BETAS = {method: float(beta) for method, beta in trainer_argument(["dpo", "kto"], "beta", 0.1).items()}
# A forecast from the base samples is about the study's own rewards.
GROUPS = {
    method: int(size)
    for method, size in trainer_argument(ON_POLICY, "num_generations", 8).items()
    if STUDY.methods[method].reward == "rules"
}
BOOTSTRAP = {"resamples": STUDY.resamples, "in_domain": IN_DOMAIN}
# Methods that minimise −log σ(β · margin) itself.
SIGMOID = [
    name for name, loss in trainer_argument(["dpo"], "loss_type", "sigmoid").items() if loss in ("sigmoid", ["sigmoid"])
]
LIKELIHOOD = {"resamples": STUDY.resamples, "beta": BETAS, "dpo": SIGMOID, "pair_rule": STUDY.preferences.rule}
REWARDS = {**BOOTSTRAP, **GRADING, "groups": GROUPS}
EXTRACT = {**ASKING, "questions": QUESTIONS}
ATTENTION = {**EXTRACT, "settings": plain(STUDY.attention), "max_new_tokens": STUDY.sampling.max_new_tokens}
SHARPE = {**EXTRACT, "settings": plain(STUDY.sharpe), "adapter": plain(STUDY.adapter), "in_domain": IN_DOMAIN}
GRADIENTS = {
    **without(SHARPE, "settings"),
    "questions": {IN_DOMAIN: QUESTIONS[IN_DOMAIN]},
    "settings": plain(STUDY.gradients),
    "sampling_seed": STUDY.sampling.seed,
    # Of the first of these methods in the study: one number for all runs.
    "beta": float(next(iter(trainer_argument(["dpo"], "beta", 0.1).values()), 0.1)),
    "group": int(next(iter(trainer_argument(GRPO, "num_generations", 8).values()), 8)),
}
PROBES = {"sizes": plain(STUDY.probes), "in_domain": IN_DOMAIN}
GREEDY = {**DRAWING_HERE, **PROBES, "question": QUESTIONS[IN_DOMAIN]}
TEXTS = {**PROBES, **GRADING, "pair_rule": STUDY.preferences.rule}
# The study's questions are about the first method of a kind: plain ones, which are matched, stand before the others.
# Those made of other runs are in no question.
ASKED_ABOUT = [name for name, method in STUDY.methods.items() if not lineage.parents(method)]
KINDS = {name: STUDY.methods[name].kind for name in sorted(ASKED_ABOUT, key=lambda m: not is_plain(STUDY.methods[m]))}
COMPARED = [
    name for name, method in STUDY.methods.items() if method.kind in ("sft", "dpo", "grpo") and is_plain(method)
]
# The base's decomposition covers every layer that a run may have changed.
ATTENTION_ALONE = all(getattr(method, "adapter", None) is None for method in STUDY.methods.values())
ATTENTION_ALONE &= STUDY.adapter.layers == "attention" and all(
    method.kind != "external" for method in STUDY.methods.values()
)
# Full weights change every layer, whatever the optimiser projects.
ATTENTION_ALONE &= STUDY.adapter.kind != "full"
ADAPTED = "attention" if ATTENTION_ALONE else "all"
PREFETCH = {
    "source": plain(STUDY.base_model),
    "datasets": {name: plain(STUDY.datasets[name]) for name in USED},
    "methods": {name: plain(method) for name, method in STUDY.methods.items() if method.kind == "external"},
    "judge": plain(JUDGE.model) if JUDGE and JUDGE.model else None,
}
# The demo's model is made from its memes; any other is what it is, whatever it is asked.
DEMO = STUDY.base_model.source == "demo"
DEMO_DATA = {"train": f"{ROOT}/data/{IN_DOMAIN}/train.parquet"} if DEMO else {}
BASE_MODEL = {"source": plain(STUDY.base_model), **(TRAINED_ON if DEMO else {})}
# Without `exec` a signal would end the shell, and the job with it, while the training still saves itself.
LAUNCH = "exec python -m memedynamics.launch"
PLAN = {"study": plain(FULL), "splits": SPLITS}
# Runs of LLaMA-Factory beside the same ones of TRL.
TWINS = lineage.twins(STUDY.methods)
ANALYSES = [
    "accuracy",
    "kl",
    "likelihood",
    "rewards",
    "spectrum",
    "sharpe",
    "attention",
    "entropy",
    "gradients",
    "summary",
    *(["judgement"] if JUDGE else []),
    *(["merge_path"] if STUDY.merge_path.pairs else []),
    *(["parity"] if TWINS else []),
]
# The report: its pages (file, name in the header), what they share, and what the first one is told.
PAGES = [["index.html", "Summary"], ["memes.html", "Memes"]]
SHELL = ["style.css", "load.js", "filters.js"]
REPORT = {"study": plain(STUDY), "notes": UNMATCHED, "pages": PAGES}
# Where analyses find what they reduce: folders for the scripts, the same file by file for Snakemake.
SCORED = ["base/seed0", *RUN_NAMES]
FOLDERS = {
    "traces": [f"{ROOT}/traces/{name}" for name in SCORED],
    "responses": [f"{ROOT}/responses/{name}" for name in SCORED],
    "samples": [f"{ROOT}/samples/{name}.parquet" for name in RUN_NAMES],
    "base": [f"{ROOT}/samples/base/{dataset}/{split}.parquet" for dataset, split in SPLITS],
    "runs": [f"{ROOT}/runs/{name}/run.json" for name in RUN_NAMES],
    "histories": [f"{ROOT}/runs/{name}/history.parquet" for name in RUN_NAMES],
    "rollouts": [f"{ROOT}/runs/{name}/rollouts.parquet" for name in RUN_NAMES],
    "data": [f"{ROOT}/data/{dataset}/{split}.parquet" for dataset, split in SPLITS],
}
# What every run leaves behind, however it was made.
RUN = {
    "milestones": directory(f"{ROOT}/runs/{{method}}/seed{{seed}}/milestones"),
    "history": f"{ROOT}/runs/{{method}}/seed{{seed}}/history.parquet",
    "rollouts": f"{ROOT}/runs/{{method}}/seed{{seed}}/rollouts.parquet",
    "run": f"{ROOT}/runs/{{method}}/seed{{seed}}/run.json",
}
# Runs that began at another's end are scored against it too.
PARENTS = {name: method.start for name, method in STUDY.methods.items() if getattr(method, "start", None)}
CHAINED = [f"{method}/seed{seed}" for method, seed in RUNS if method in PARENTS]
TO_PARENT = {
    "traces_to_parent": [f"{ROOT}/to_parent/traces/{name}" for name in CHAINED],
    "responses_to_parent": [f"{ROOT}/to_parent/responses/{name}" for name in CHAINED],
}
SHARDS = [f"{i}-of-{STUDY.scoring.shards}" for i in range(1, STUDY.scoring.shards + 1)]
ANSWERED = [file for kind in ("samples", "base", "runs", "data") for file in FOLDERS[kind]]
TRACES = [f"{folder}/{shard}.parquet" for folder in FOLDERS["traces"] for shard in SHARDS]
RESPONSES = [f"{folder}/{shard}.parquet" for folder in FOLDERS["responses"] for shard in SHARDS]
# The memes browser shows what policies answer themselves, so nothing of train.
HELD_OUT = {
    **{name: FOLDERS[name] for name in ("samples", "traces", "responses")},
    **{name: FOLDERS[name][1:] for name in ("base", "data")},
    "attention": [f"{ROOT}/extracts/attention/{name}.parquet" for name in SCORED],
    "pictures": [f"{ROOT}/report/pictures/{d}/{s}" for d, s in SPLITS[1:] if STUDY.report.images != "none"],
}
BROWSED = [file for name in ("samples", "base", "data", "attention", "pictures") for file in HELD_OUT[name]]
SCORED_TO_PARENT = [f"{folder}/{shard}.parquet" for kept in TO_PARENT.values() for folder in kept for shard in SHARDS]


def source_files(wildcards):
    """The annotation files of a dataset: a changed file prepares it anew. Of one in a storage, its whole folder."""
    source = STUDY.datasets[wildcards.dataset]
    if in_storage(source.root):
        return os.path.normpath(source.root)
    return [here(file) for file in readers.source_files(source)]


def model_files(source, revision=None):
    """The files of a local model or adapter folder; none where `source` is a hub id, pinned by its revision."""
    if in_storage(source) and not revision and source != "demo":
        return os.path.normpath(source)
    return sorted(here(file) for file in Path(source).glob("*") if file.is_file())


def here(file):
    """`file` of this machine, whatever holds the study."""
    return local(str(file)) if COPIES else str(file)


def external_files(wildcards):
    """The files of a checkpoint trained elsewhere."""
    method = STUDY.methods[wildcards.method]
    return model_files(method.path, method.revision)


def dataset_cfg(wildcards):
    """What prepare_dataset is told; the question is asked later."""
    source = without(plain(STUDY.datasets[wildcards.dataset]), "question")
    content = outside.contents(readers.source_files(STUDY.datasets[wildcards.dataset]))
    return {"source": source, "limit": TRIAL_ROWS if STUDY.trial else None, "content": content}


def sample_base_cfg(wildcards):
    """What sample_base is told."""
    return {**DRAWING, "question": QUESTIONS[wildcards.dataset]}


def external_cfg(wildcards):
    """What import_external is told."""
    content = outside.contents(sorted(Path(STUDY.methods[wildcards.method].path).glob("*")))
    return {"method": plain(STUDY.methods[wildcards.method]), "name": wildcards.method, "content": content}


def made_of(wildcards):
    """What the run of a trained method is made of besides the base: its pairs, and the run that it begins at.

    Preflight, which is told no seed, sees the first.
    """
    method = STUDY.methods[wildcards.method]
    seed = int(dict(wildcards).get("seed", STUDY.seeds[0]))
    found = {"preferences": f"{ROOT}/preferences.parquet"}
    if method.pairs == "judge":
        found["preferences"] = f"{ROOT}/preferences/judged.parquet"
    if method.start:
        found["start"] = f"{ROOT}/runs/{method.start}/seed{lineage.seed_of(STUDY, method.start, seed)}/milestones"
    # Preflight does not wait for it: any reward shows what it looks for.
    if method.reward == "model" and "seed" in dict(wildcards):
        found["reward_model"] = f"{ROOT}/reward_model/model"
    return found


# Seeds at which a path of merges is followed: one where both ends were trained elsewhere.
MERGE_PATHS = [
    (first, second, seed)
    for first, second in STUDY.merge_path.pairs
    for seed in (STUDY.seeds if STUDY.seeds in (lineage.seeds(STUDY, first), lineage.seeds(STUDY, second)) else [0])
]
MERGE_PATH = {
    **EXTRACT,
    "questions": {IN_DOMAIN: QUESTIONS[IN_DOMAIN]},
    "scoring": without(plain(STUDY.scoring), "shards"),
    "memes": STUDY.merge_path.memes,
    "in_domain": IN_DOMAIN,
}


def end_of(place, file):
    """The `file` of the run at one end, `place`, of a path of merges."""

    def found(wildcards):
        name = wildcards[place]
        return f"{ROOT}/runs/{name}/seed{lineage.seed_of(STUDY, name, int(wildcards.seed))}/{file}"

    return found


def export_cfg(wildcards):
    """What export is told: how the run was made, for its card."""
    return {
        **ASKING,
        "questions": QUESTIONS,
        "recipe": plain(STUDY.methods[wildcards.method]),
        "shared": {"adapter": plain(STUDY.adapter), "training": STUDY.training},
        "hub_datasets": {name: STUDY.datasets[name].hub_id for name in USED if STUDY.datasets[name].hub_id},
        "in_domain": IN_DOMAIN,
    }


def parents_of(file):
    """The `file` of every run that a merge is made of."""

    def found(wildcards):
        seed = int(wildcards.seed)
        parents = STUDY.methods[wildcards.method].of
        return [f"{ROOT}/runs/{name}/seed{lineage.seed_of(STUDY, name, seed)}/{file}" for name in parents]

    return found


def own_samples_of_parent(wildcards):
    """What the run that this one began at answered itself."""
    parent = PARENTS[wildcards.method]
    return f"{ROOT}/samples/{parent}/seed{lineage.seed_of(STUDY, parent, int(wildcards.seed))}.parquet"


def merge_cfg(wildcards):
    """What merge is told."""
    return {"method": plain(STUDY.methods[wildcards.method])}


def preflight_cfg(wildcards):
    """What preflight is told; only methods that learn on-policy draw responses and grade them."""
    method = STUDY.methods[wildcards.method]
    drawing = {"sampling": LIKE_BASE, "rewards": STUDY.rewards} if method.kind in ON_POLICY else {}
    return {"method": without(plain(method), "launch"), "matched": MATCHED, **drawing}


def train_cfg(wildcards):
    """What a training is told."""
    chooses = STUDY.methods[wildcards.method].kind in WITHOUT_PAIRS
    prompts = {"train_prompts": STUDY.train_prompts} if chooses else {}
    return {**preflight_cfg(wildcards), **prompts, "fractions": FRACTIONS, **SHARED[wildcards.method]}
