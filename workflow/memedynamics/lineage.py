"""Which runs are made of which: methods that begin at another's end (`from`) and merges, checked before any job.

Runs of one seed are made of runs of that seed; a checkpoint trained elsewhere stands for every seed.
"""

import difflib
import math
from collections.abc import Mapping

from memedynamics.config import Study
from memedynamics.errors import InputError
from memedynamics.methods import LORA, SOFT, Adapter, ExternalMethod, MergedMethod, Method, TrainedMethod

NO_WEIGHT = "changes no weight (prompt and prefix tuning), so there is nothing to merge"


def parents(method: Method) -> list[str]:
    """The methods that `method` is made of: none, the one it begins at, or those it merges."""
    start = getattr(method, "start", None)
    return [start] if start else list(getattr(method, "of", []))


def seeds(study: Study, name: str) -> list[int]:
    """The seeds of the runs of method `name`; 0 alone where no training of the study is in it."""
    method = study.methods[name]
    if isinstance(method, TrainedMethod):
        return study.seeds
    return study.seeds if any(seeds(study, parent) != [0] for parent in parents(method)) else [0]


def seed_of(study: Study, parent: str, seed: int) -> int:
    """The seed of the run of `parent` that goes into a run of `seed`."""
    return seed if seed in seeds(study, parent) else 0


def check(study: Study) -> None:
    """Raise InputError where a method is made of unknown ones, of itself, or of what it cannot be made of."""
    check_paths(study)
    for name, method in study.methods.items():
        key = "from" if isinstance(method, TrainedMethod) else "of"
        for parent in parents(method):
            if parent not in study.methods:
                others = [other for other in study.methods if other != name]
                raise InputError(f"study file: methods.{name}.{key}: {_no_method(parent, others)}")
        _check_cycle(study, name, key)
        if isinstance(method, MergedMethod) and (reason := _no_mean(method)):
            raise InputError(f"study file: methods.{name}.weights: {reason}")
    for name, method in study.methods.items():
        for parent in parents(method):
            if reason := _misfit(study, method, study.methods[parent]):
                key = "from" if isinstance(method, TrainedMethod) else "of"
                raise InputError(f"study file: methods.{name}.{key}: {parent} {reason}")


def _no_mean(method: MergedMethod) -> str:
    """Why the runs of a merge cannot be weighed so (module `merging`); empty where they can."""
    given = method.weights or [1.0]
    if method.how in ("slerp", "ties") and min(given) < 0:
        return f"{min(given):g} is negative, which {method.how} cannot take; use task_arithmetic"
    averaged = method.how in ("linear", "slerp", "ties")
    return f"sum to 0, so {method.how} has no mean; give others" if averaged and math.fsum(given) == 0 else ""


def check_paths(study: Study) -> None:
    """Raise InputError where a path of merges runs between what is no method, or cannot be merged, or runs twice."""
    seen: set[frozenset[str]] = set()
    for place, pair in enumerate(study.merge_path.pairs):
        if reason := _no_path(study, pair, seen):
            raise InputError(f"study file: merge_path.pairs.{place}: {reason}")
        seen.add(frozenset(pair))


def _no_path(study: Study, pair: tuple[str, str], seen: set[frozenset[str]]) -> str:
    """Why no path runs between the two, where `seen` are the pairs before; empty where one does."""
    for name in pair:
        if name not in study.methods:
            return _no_method(name, list(study.methods))
        if _is_soft(study, study.methods[name]):
            return f"{name} {NO_WEIGHT}"
        if "__" in name:
            return f"{name} holds '__', which stands between the two in names of files; rename the method"
    if pair[0] == pair[1]:
        return f"a path from {pair[0]} to itself; name two methods"
    return f"{pair[0]} and {pair[1]} are named already; remove one of both" if frozenset(pair) in seen else ""


def _no_method(name: str, others: list[str]) -> str:
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.0)
    return f"no method {name!r}; " + (f"did you mean {near[0]!r}?" if near else "there is no other one")


def _is_soft(study: Study, method: Method) -> bool:
    return isinstance(method, TrainedMethod) and (method.adapter or study.adapter).kind in SOFT


def _check_cycle(study: Study, name: str, key: str) -> None:
    path, waiting = [name], [[name, parent] for parent in parents(study.methods[name])]
    while waiting:
        path = waiting.pop()
        if path[-1] == name:
            raise InputError(f"study file: methods.{name}.{key}: a cycle, {' → '.join(reversed(path))}; break it")
        if path[-1] not in path[:-1]:
            waiting += [[*path, parent] for parent in parents(study.methods[path[-1]])]


def is_full(study: Study, method: Method) -> bool:
    """Whether the run's milestones are full weights; a checkpoint trained elsewhere is looked at when imported."""
    if not isinstance(method, TrainedMethod):
        return not isinstance(method, ExternalMethod)
    return (method.adapter or study.adapter).kind == "full"


def _settings(adapter: Adapter) -> dict[str, object]:
    """What makes an adapter of its kind what it is; an empty alpha is 2r."""
    found = {"kind": adapter.kind, "options": adapter.options}
    if adapter.kind in LORA:
        found |= {"r": adapter.r, "alpha": adapter.alpha or 2 * adapter.r, "dropout": adapter.dropout}
    if adapter.kind in SOFT:
        return {**found, "tokens": adapter.tokens}
    return found if adapter.kind == "full" else {**found, "layers": adapter.layers}


def _misfit(study: Study, method: Method, parent: Method) -> str:
    """Why `method` cannot be made of `parent`; empty where it can."""
    if not isinstance(method, TrainedMethod):
        return NO_WEIGHT if _is_soft(study, parent) else ""
    own = method.adapter or study.adapter
    if isinstance(parent, ExternalMethod):
        return ""
    if is_full(study, parent) != (own.kind == "full"):
        return f"{'is' if is_full(study, parent) else 'is not'} full weights; set adapter.kind to fit"
    theirs = (parent.adapter or study.adapter) if isinstance(parent, TrainedMethod) else own
    ours, theirs = _settings(own), _settings(theirs)
    differ = [key for key in ours if ours[key] != theirs.get(key)]
    return f"has another adapter ({', '.join(differ)}): what it learnt goes on in the same one" if differ else ""


def twins(methods: Mapping[str, Method]) -> list[tuple[str, str]]:
    """(TRL's, LLaMA-Factory's) method names of every two that differ in `backend` alone."""
    trained = {name: method for name, method in methods.items() if isinstance(method, TrainedMethod)}
    by_trl = {name: method for name, method in trained.items() if method.backend == "trl"}
    others = {name: method for name, method in trained.items() if method.backend == "llamafactory"}
    return [
        (name, other)
        for other, theirs in others.items()
        for name, ours in by_trl.items()
        if ours == theirs.model_copy(update={"backend": "trl"})
    ]
