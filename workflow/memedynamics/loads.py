"""What every costly rule of a study has to do: jobs and units of work. Arithmetic alone: no torch, no files."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from memedynamics import lineage
from memedynamics.config import Study, TrainedMethod
from memedynamics.methods import ON_POLICY, SOFT, MergedMethod
from memedynamics.plan import Schedule
from memedynamics.study import launched

# Perturbed pictures besides noise: clean, blur, JPEG, blank, another picture.
PERTURBATIONS = 5


# Policies on a path of merges: eleven points, two ways, which share their ends.
POINTS = 20


class Load(NamedTuple):
    """What one rule has to do in the whole study: jobs, and units of work (`unit` says which)."""

    rule: str
    jobs: int
    units: int
    unit: str
    gpu: int  # GPUs of a job


def planned(study: Study, rows: dict[tuple[str, str], int], schedules: dict[str, Schedule]) -> list[Load]:
    """The work of every costly rule, from the number of memes by (dataset, split) and each method's schedule."""
    samples, seeds = study.sampling.num_samples, len(study.seeds)
    between, final = own_responses(study, rows)
    trained = [name for name, method in study.methods.items() if isinstance(method, TrainedMethod)]
    # A run that was not trained here has no milestone but its end.
    runs = sum(len(lineage.seeds(study, name)) for name in study.methods)
    # Runs that do not begin at the base have a start of their own.
    starts = seeds * sum(_starts_elsewhere(study, study.methods[name]) for name in trained)
    inner = len(study.milestones) - 2
    own = runs * final + (len(trained) * seeds * inner + starts) * between
    scored = 1 + runs + len(trained) * seeds * inner + starts
    probes = probed(study, rows) * samples
    shards = study.scoring.shards
    return [
        Load("prepare_dataset", len({d for d, _ in rows}), sum(rows.values()), "memes", False),
        Load("sample_base", len(rows) * study.sampling.shards, sum(rows.values()) * samples, "responses", True),
        Load("preflight", len(trained), len(trained), "methods", True),
        *[
            Load(f"train {name}", seeds, seeds * schedules[name].total_steps * schedules[name].effective_batch, what, n)
            for name in trained
            for what, n in [(_unit(study.methods[name]), launched(study, study.methods[name]).processes)]
        ],
        Load("sample_policy", runs, own, "responses", True),
        Load("score", (runs + 1) * shards, scored * probes + own, "responses", True),
        *extractions(study, rows, runs, scored),
        *made_of_others(study, rows),
    ]


def made_of_others(study: Study, rows: Mapping[tuple[str, str], int]) -> list[Load]:
    """Judge, reward model, curricula and merges, where the study has them; pairs as if every prompt gave one."""
    train, val = rows[study.in_domain, "train"], rows[study.in_domain, "val"]
    seeds, between = len(study.seeds), study.sampling.num_samples * min(study.own_samples.milestones, val)
    chained = seeds * sum(bool(getattr(method, "start", None)) for method in study.methods.values())
    # On the parent's answers at every milestone, and on its own there and at its end.
    against = 2 * between * (len(study.milestones) - 1) + own_responses(study, rows)[1]
    merged = sum(len(lineage.seeds(study, name)) for name, m in study.methods.items() if isinstance(m, MergedMethod))
    paths = seeds * len(study.merge_path.pairs)
    given = {**study.training, **study.reward_model.args} if study.reward_model else {}
    batch = int(given.get("per_device_train_batch_size", 8)) * int(given.get("gradient_accumulation_steps", 1))
    epochs = float(given.get("num_train_epochs", 3))
    steps = max(0, int(given.get("max_steps", -1))) or math.ceil(train / batch * epochs)
    found = [
        Load("judge", study.judge is not None, 2 * train, "pairs", True),
        Load("train_reward_model", study.reward_model is not None, steps, "steps", True),
        Load("score_to_parent", chained * study.scoring.shards, chained * against, "responses", True),
        Load("merge", merged, merged, "merges", False),
        Load("extract_merge_path", paths, paths * POINTS * min(study.merge_path.memes, val), "memes", True),
    ]
    return [load for load in found if load.jobs]


def _starts_elsewhere(study: Study, method: TrainedMethod) -> bool:
    return method.start is not None or (method.adapter or study.adapter).kind in SOFT


def _unit(method: TrainedMethod) -> str:
    return "pairs" if method.kind == "dpo" else "completions" if method.kind in ON_POLICY else "examples"


def own_responses(study: Study, rows: dict[tuple[str, str], int]) -> tuple[int, int]:
    """Responses that one run draws itself: at a milestone before its end (some val prompts), and at it (final sets)."""
    samples = study.sampling.num_samples
    val = rows.get((study.in_domain, "val"), 0)
    final = {
        "val": val,
        "test": rows.get((study.in_domain, "test"), 0),
        "out_of_domain": sum(rows.get((name, "test"), 0) for name in study.out_of_domain),
    }
    between = min(study.own_samples.milestones, val)
    return samples * between, samples * sum(final[part] for part in study.own_samples.final)


def probed(study: Study, rows: dict[tuple[str, str], int]) -> int:
    """Prompts whose base samples every policy scores."""

    def of(name: str, split: str, limit: int | None) -> int:
        return min(rows.get((name, split), 0), limit if limit is not None else 1 << 60)

    inside = of(study.in_domain, "train", study.probes.train) + of(study.in_domain, "val", study.probes.val)
    return inside + sum(of(name, "test", study.probes.out_of_domain) for name in study.out_of_domain)


def extractions(study: Study, rows: Mapping[tuple[str, str], int], runs: int, policies: int) -> list[Load]:
    """Jobs and units of every extraction; `rows`: memes by (dataset, split), `policies`: runs' milestones in all."""
    home = study.in_domain
    probed = [count for (name, split), count in rows.items() if (name, split) != (home, "test")]
    looked = sum(min(study.attention.memes, count) for count in rows.values())
    pictures = looked * (len(study.attention.noise) + PERTURBATIONS)
    return [
        Load("extract_attention", runs + 1, (policies + runs) * pictures, "pictures", True),
        Load("extract_sharpe", runs + 1, policies * sum(min(study.sharpe.memes, n) for n in probed), "memes", True),
        Load("extract_gradients", runs + 1, policies * min(study.gradients.memes, rows[home, "val"]), "memes", True),
        Load("extract_spectrum", runs, policies - 1, "milestones", True),
    ]
