"""Sentences on analyses that compare no methods' policies: gradients, judge, merge path, backends, summary."""

from collections import Counter

import polars as pl

from memedynamics import claims, figures, ranked, wording
from memedynamics.few_clusters import few
from memedynamics.figure_gradients import OBJECTIVES
from memedynamics.gather import BASE
from memedynamics.judged_pairs import doubt
from memedynamics.verdicts import claims_table
from memedynamics.wording import PERCENT, PLAIN, POINTS, interval, sentence

HALVES = {"below": "below one half", "above": "above one half"}
EXPECTED = {"below": -1, "above": 1}
UNDECIDED = "not decided"


def gradients(frame: pl.DataFrame) -> list[str]:
    """Whether entropy minimisation of the decision pulls with or against its reward, and which objectives have none."""
    base = frame.filter((pl.col("method") == BASE) & (pl.col("module") == "all"))
    pair = pl.col("objective").is_in(["em_decision", "grpo_decision"])
    pair &= pl.col("other").is_in(["em_decision", "grpo_decision"]) & (pl.col("objective") != pl.col("other"))
    rows = {row["bin"]: row for row in base.filter(pair, statistic="cosine").to_dicts()}
    told = [_turned(rows[key], key) for key in HALVES if key in rows]
    halves = base.filter(statistic="split_half", bin="all").drop_nulls("value")
    idle = halves.filter(~(pl.col("ci_low") > 0).fill_null(False))["objective"].to_list()
    names = wording.listed([_objective(name) for name in idle])
    none = f"no direction beyond this batch (halves of the memes disagree): {names}" if idle else ""
    start = "on the base, entropy minimisation of the decision against GRPO of the decision"
    return [sentence(f"{start}: {'; '.join(told)}" if told else ""), sentence(_extremes(base)), sentence(none)]


def _turned(row: dict, key: str) -> str:
    """The cosine in one bin of p, and whether it has the sign that theory expects."""
    where = f"where the share of correct samples is {HALVES[key]}"
    if row["value"] is None:
        return f"{where}, no cosine ({row['missing'] or 'no reason given'})"
    low, high = row["ci_low"], row["ci_high"]
    sign = 0 if low is None or high is None else (low > 0) - (high < 0)
    said = "as theory expects" if sign == EXPECTED[key] else "against theory"
    said = claims.FEW if few([row]) else f"{said}, {ranked.UNCORRECTED}" if sign else UNDECIDED
    return f"{where}, a cosine of {interval(row, PLAIN)}, n = {row['n']} prompts ({said})"


def _extremes(base: pl.DataFrame) -> str:
    """The two objectives that are most alike over all prompts, and the two that are least."""
    rows = base.filter((pl.col("objective") != pl.col("other")), statistic="cosine", bin="all").drop_nulls("value")
    rows = rows.sort("value", descending=True).to_dicts()
    if len(rows) < 2:
        return ""
    most, least = (
        f"{_objective(row['objective'])} and {_objective(row['other'])} are {words}, {interval(row, PLAIN)}"
        for row, words in ((rows[0], "most alike"), (rows[-1], "least"))
    )
    return f"of {len(rows)} pairs of objectives {most}, {least}"


def _objective(name: str) -> str:
    return f"“{OBJECTIVES.get(name, name)}”"


def judgement(frame: pl.DataFrame) -> list[str]:
    """How often the judge agrees with the labels, how much the first place counts, and whether it judges at all."""
    labels, drawn = (frame.filter(source=source, pair_type="all") for source in ("labels", "drawn"))
    agree, first = (_only(labels, name) for name in ("agreement", "position_bias"))
    found = []
    if agree:
        found.append(
            f"the judge prefers what the labels prefer in {interval(agree, PERCENT)} of the label pairs, "
            f"{_against(agree, 0.5, 'a coin', 'more often than', 'less often than')}; n = {agree['n']} pairs"
        )
    if first:
        side = _against(first, 0.0, "no preference", "above", "below")
        found.append(f"it prefers whatever stands first by {interval(first, POINTS)}, {side}")
    numbers = [_only(drawn, name) for name in ("label_mass", "consistency")]
    if all(numbers):
        found.append(doubt(*(row["value"] for row in numbers)) or "")
    return list(map(sentence, found))


def _only(rows: pl.DataFrame, statistic: str) -> dict | None:
    found = rows.filter(statistic=statistic).drop_nulls("value").to_dicts()
    return found[0] if found else None


def _against(row: dict, level: float, what: str, above: str, below: str) -> str:
    if row["ci_low"] is None or row["ci_high"] is None:
        return f"{UNDECIDED} against {what}"
    if few([row]):
        return claims.FEW
    side = (row["ci_low"] > level) - (row["ci_high"] < level)
    return f"{above if side > 0 else below} {what} ({ranked.UNCORRECTED})" if side else f"{UNDECIDED} against {what}"


def merge_path(frame: pl.DataFrame) -> list[str]:
    """Of each pair of runs the lowest point off the straight line; of one point only, whether it is a barrier.

    The lowest of several points was chosen for being low, and its interval knows nothing of that.
    """
    off = frame.filter((pl.col("t") > 0) & (pl.col("t") < 1), statistic="accuracy_off_line", way="linear")
    told = []
    for rows in off.drop_nulls("value").sort("method", "versus").partition_by("method", "versus", maintain_order=True):
        lowest = rows.sort("value").group_by("seed", maintain_order=True).first().sort("seed")
        one, other = (figures.name(rows[key][0]) for key in ("method", "versus"))
        said = _barrier(lowest, rows["t"].n_unique())
        values = wording.values(lowest, POINTS)
        told.append(f"between {one} and {other} accuracy is lowest against the straight line by {values}: {said}")
    more = f"{len(told) - 2} further pairs are in the table" if len(told) > 2 else ""
    return [sentence(text) for text in [*told[:2], more]]


def _barrier(lowest: pl.DataFrame, points: int) -> str:
    """Whether the `lowest` of so many points a seed are barriers."""
    if points > 1:
        return f"the interval is of the point chosen as lowest of {points}, and alone shows no barrier"
    sides = set(ranked.sided(lowest).values())
    return f"a barrier in every seed ({ranked.UNCORRECTED})" if sides == {-1} else "no barrier is decided"


def parity(frame: pl.DataFrame) -> list[str]:
    """The largest difference of the losses that two backends logged, of each pair of methods."""
    apart = frame.filter(statistic="difference", metric="loss").drop_nulls("value")
    told = []
    for rows in apart.sort("versus", "method").partition_by("versus", "method", maintain_order=True)[:3]:
        widest = rows.sort(pl.col("value").abs(), "seed", "step", descending=[True, False, False]).row(0, named=True)
        one, other = figures.name(widest["versus"]), figures.name(widest["method"])
        size = f"{abs(widest['value']):.2g}" if widest["value"] else "0"
        steps = f"{len(rows)} steps, seeds {wording.listed([str(seed) for seed in rows['seed'].unique().sort()])}"
        told.append(f"the losses of {one} and {other} differ by at most {size}, at step {widest['step']} ({steps})")
    return list(map(sentence, told))


def summary(frame: pl.DataFrame) -> list[str]:
    """How many of the study's claims its data decides, which, and why the others are not decided."""
    lines, asked, decided, reasons = claims_table(frame), "", [], Counter()
    for line in lines:
        asked = line.question or asked
        if line.verdict.startswith(UNDECIDED):
            reasons[line.verdict.removeprefix(UNDECIDED).strip()] += 1
        else:
            decided.append(f"{asked} {line.verdict} ({line.claim}; p = {line.p} after Holm’s correction)")
    if not lines:
        return [sentence("this study has no methods that its questions are about")]
    why = wording.listed([_why(reason, count) for reason, count in reasons.most_common()])
    found = [
        f"of {len(lines)} claims {len(decided) or 'none'} {'is' if len(decided) < 2 else 'are'} decided by this data"
    ]
    found += (
        ["; ".join(decided[:3]) + (f"; and {len(decided) - 3} more" if len(decided) > 3 else "")] if decided else []
    )
    found += [f"not decided: {why}"] if reasons else []
    return list(map(sentence, found))


def _why(reason: str, count: int) -> str:
    """'7 by this data', '3 (one seed)'."""
    return f"{count} ({reason.lstrip(': ')})" if reason.startswith(":") else f"{count} {reason}".strip()
