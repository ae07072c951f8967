"""When a study will be done, from the jobs that are."""

from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple


class Estimate(NamedTuple):
    """How long the study will still take, in seconds; None while nothing is known.

    `unseen` are rules with jobs left of which none has finished: they count like the mean of their stage, and as
    nothing where none of that has finished either (`least`).
    """

    seconds: float | None
    parallel: float | None  # jobs at a time, over the run so far
    unseen: list[str]
    least: bool


def estimate(
    left: Mapping[str, int],
    stages: Mapping[str, str],
    took: Mapping[str, list[float]],
    under_way: Mapping[str, list[tuple[float, float | None]]],
    busy: float,
    wall: float,
) -> Estimate:
    """Jobs left × mean seconds of the finished ones of their rule, over the number of jobs at a time so far.

    left: jobs of each rule that have not ended, those `under_way` among them, of which each has its seconds so far and,
    where it says itself how far it is, its seconds to go. took: seconds of finished jobs, by rule. busy: seconds that
    jobs took in `wall` seconds of this run.
    """
    if not any(took.values()) or busy <= 0 or wall <= 0:
        return Estimate(None, None, [], False)
    parallel, work = busy / wall, 0.0
    means = {rule: _mean(rule, stages, took) for rule, count in left.items() if count > 0}
    for rule, mean in means.items():
        begun = under_way.get(rule, [])
        work += (mean or 0.0) * max(0, left[rule] - len(begun))
        work += sum(max(0.0, (mean or 0.0) - so_far) if to_go is None else to_go for so_far, to_go in begun)
    unseen, least = [rule for rule in means if not took.get(rule)], None in means.values()
    if least and not work:  # of all that is left nothing is known
        return Estimate(None, None, [], False)
    return Estimate(work / parallel, parallel, unseen, least)


def _mean(rule: str, stages: Mapping[str, str], took: Mapping[str, list[float]]) -> float | None:
    own = took.get(rule) or [
        seconds for other, all_of_it in took.items() if stages.get(other) == stages.get(rule) for seconds in all_of_it
    ]
    return fmean(own) if own else None
