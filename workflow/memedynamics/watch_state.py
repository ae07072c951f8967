"""A running study as one picture: what `snakemake watch` shows, from the study's files alone."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from memedynamics import figures, watch_curves, watch_eta, watch_jobs
from memedynamics.watch_curves import Curves
from memedynamics.watch_failures import failures
from memedynamics.watch_jobs import Done, Holder
from memedynamics.watch_log import Follower
from memedynamics.watch_processes import Running
from memedynamics.watch_told import Told


def state(folder: Path, project: Path, stages: dict[str, str], now: float | None = None) -> dict[str, object]:
    """What is known, at `now`, of the study in `folder`, which Snakemake runs from `project`; ready for JSON.

    stages: the stage of every rule (`watch_stages.stages`).
    """
    now = time.time() if now is None else now
    held = watch_jobs.holder(folder)
    began = held.began if held else now
    told, done = _told(held), watch_jobs.done(folder)
    at_work = watch_jobs.running(folder, held)
    ended = [job for job in done if job.at >= began]
    failed = failures(told, done, at_work, began, [project, folder])
    runs = watch_curves.found(folder)
    given_up = Counter(job["rule"] for job in failed if job["now"] == "given up")
    counts = _counts(told, ended, stages)
    how = _how(held, told, bool(given_up))
    busy = sum(job.seconds for job in ended) + sum(now - job.since for job in at_work)
    left = {rule: jobs - ended_well - given_up[rule] for rule, (ended_well, jobs) in counts.items() if jobs}
    estimate = watch_eta.estimate(left, stages, _took(done), _under_way(at_work, runs, now), busy, now - began)
    return {
        "study": folder.name,
        "state": how,
        "now": now,
        "began": held and held.began,
        "heard": max([told.heard or began, *(job.at for job in ended), *(job.since for job in at_work)]),
        "eta": estimate._asdict() if how == "running" and told.jobs else None,
        "stages": _stages(counts, stages, at_work, given_up, _took(done)),
        "jobs": [{**job._asdict(), "seconds": now - job.since} for job in at_work],
        "failures": failed,
        "runs": _drawn(runs, {f"{job.rule}/{job.where}" for job in at_work}),
        "metrics": watch_curves.METRICS,
    }


def _told(held: Holder | None) -> Told:
    try:
        return _follower(held.log).told() if held and held.log else Told()
    except OSError:
        return Told()


@lru_cache(maxsize=4)
def _follower(log: Path) -> Follower:
    return Follower(log)


def _how(held: Holder | None, told: Told, given_up: bool) -> str:
    """waiting (nothing ever ran), running, finished, failed, or stopped: ended or killed before its end."""
    if held is None:
        return "waiting"
    if told.ended:
        return "stopped" if told.interrupted else "failed" if told.gave_up or given_up else "finished"
    return "stopped" if held.alive is False else "running"


def _counts(told: Told, ended: Sequence[Done], stages: dict[str, str]) -> dict[str, tuple[int, int | None]]:
    """By rule, in the order of the stages, how many jobs have ended well and how many there are.

    Where Snakemake was told to say nothing (`--quiet progress`), what the jobs wrote down themselves counts.
    """
    own = Counter(job.rule for job in ended)
    if not told.jobs:
        return {rule: (own[rule], None) for rule in stages if own[rule]}
    return {rule: (len(told.finished.get(rule, ())), told.jobs[rule]) for rule in stages if rule in told.jobs}


def _took(done: Sequence[Done]) -> dict[str, list[float]]:
    found = defaultdict(list)
    for job in done:
        found[job.rule].append(job.seconds)
    return found


def _under_way(
    at_work: Sequence[Running], runs: Sequence[Curves], now: float
) -> dict[str, list[tuple[float, float | None]]]:
    """By rule, each running job's seconds so far and, of a training that has a pace, its seconds to go."""
    to_go = {run.job: run.pace * (run.steps - run.step) for run in runs if run.job and run.pace}
    found = defaultdict(list)
    for job in at_work:
        found[job.rule].append((now - job.since, to_go.get(f"{job.rule}/{job.where}")))
    return found


def _stages(
    counts: dict[str, tuple[int, int | None]],
    stages: dict[str, str],
    at_work: Sequence[Running],
    given_up: Counter,
    took: dict[str, list[float]],
) -> list[dict[str, object]]:
    """One entry a stage with jobs in this run: how many of them ended, run and failed, and the seconds of one."""
    found = []
    for stage in dict.fromkeys(stages[rule] for rule in counts):
        rules = [rule for rule in counts if stages[rule] == stage]
        totals = [counts[rule][1] for rule in rules]
        seconds = [second for rule in rules for second in took.get(rule, [])]
        found.append(
            {
                "name": stage,
                "done": sum(counts[rule][0] for rule in rules),
                "jobs": None if None in totals else sum(totals),
                "running": sum(stages.get(job.rule) == stage for job in at_work),
                "failed": sum(given_up[rule] for rule in rules),
                "seconds": sum(seconds) / len(seconds) if seconds else None,
            }
        )
    return found


def _drawn(runs: Sequence[Curves], at_work: set[str]) -> list[dict[str, object]]:
    """The runs in the figures' order, each with its colour and dash."""
    methods = figures.ordered([run.method for run in runs])
    palette = figures.colours(methods)
    seeds = {method: sorted(run.seed for run in runs if run.method == method) for method in methods}
    places = {(method, seed): place for method in methods for place, seed in enumerate(seeds[method])}
    return [
        {
            **run._asdict(),
            "name": figures.name(run.method),
            "running": run.job in at_work,
            "colour": palette[run.method],
            "dash": figures.DASHES[places[run.method, run.seed] % len(figures.DASHES)],
        }
        for run in sorted(runs, key=lambda run: (methods.index(run.method), run.seed))
    ]
