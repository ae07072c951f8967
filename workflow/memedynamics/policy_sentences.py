"""Sentences on what policies say: accuracy, distance from the base, likelihood of fixed responses, rewards."""

import polars as pl

from memedynamics import claims, ranked, wording
from memedynamics.cells import TABLE, Cell
from memedynamics.few_clusters import few
from memedynamics.gather import BASE
from memedynamics.numbers_of import differences, home, levels, of_base
from memedynamics.ranked import lead, ranking, signs
from memedynamics.wording import PERCENT, PLAIN, Unit, place, sentence

NAT = Unit(" nat a response")
CHOSEN = Cell("likelihood", "change", "val", {"text": "chosen", "pair_type": "all", "versus": None})
REWARD = Cell("rewards", "reward", "val", {"source": "samples", "over": "split"})
TAUGHT = {"statistic": "zero_share", "source": "rollouts", "over": "run"}
MOST_SETS = 3  # out-of-domain sets that are told one by one


def accuracy(frame: pl.DataFrame) -> list[str]:
    """Who is right most often on val, whether that is sure, and who gained out of domain."""
    cell = TABLE["accuracy"]
    rows = levels(frame, cell)
    if not (told := ranking(rows, PERCENT, "{} is right most often, in {}", "{} least often, in {}")):
        return []
    base = of_base(frame, cell, PERCENT)
    start = f"the base’s answers are right in {base}; after training " if base else "after training "
    return [
        sentence(f"on {place(rows)} {start}{told}"),
        sentence(lead(rows, differences(frame, cell))),
        sentence(_out_of_domain(levels(frame, TABLE["accuracy_gain_out_of_domain"]))),
    ]


def _out_of_domain(gains: pl.DataFrame) -> str:
    above, below = "more accurate than the base in every seed", "less accurate in every seed"
    parts = ranked.policies(gains).sort("dataset").partition_by("dataset", maintain_order=True)
    told = [f"on {place(part)}, {signs(part, above, below)}" for part in parts[:MOST_SETS]]
    more = f"; {len(parts) - MOST_SETS} further sets are in the table" if len(parts) > MOST_SETS else ""
    return f"out of domain, {'; '.join(told)}{more}" if told else ""


def kl(frame: pl.DataFrame) -> list[str]:
    """Who moved furthest from the base on val, whether that is sure, and whether it is more than seeds differ."""
    frame = frame.filter(pl.col("reference") == BASE)
    rows = levels(frame, TABLE["forward_kl"])
    if not (told := ranking(rows, NAT, "{} moved furthest from the base, {}", "{} least, {}")):
        return []
    return [sentence(f"on {place(rows)} {told}"), sentence(lead(rows)), sentence(_noise(frame, rows))]


def _noise(frame: pl.DataFrame, rows: pl.DataFrame) -> str:
    """Whether methods moved further than their own seeds lie apart, by the ends of the intervals."""
    cell = TABLE["forward_kl"]
    apart = levels(frame, Cell("kl", "per_response", "val", {"direction": "between_seeds", "span": "all"}))
    far, near, unknown = [], [], []
    for method in ranked.by_mean(apart):
        widest = apart.filter(method=method).select(pl.coalesce("ci_high", "value").max()).item()
        own = rows.filter(method=method)
        least = own.select(pl.coalesce("ci_low", "value").min()).item()
        if least is not None and few([*own.to_dicts(), *apart.filter(method=method).to_dicts()]):
            unknown.append(method)
        elif least is not None:
            (far if least > widest else near).append(method)
    told = (
        [f"further than their own seeds lie apart, whatever the seed: {wording.named(far)} ({ranked.UNCORRECTED})"]
        if far
        else []
    )
    told += [f"not further than that: {wording.named(near)}"] if near else []
    told += [f"whether further than that, {claims.FEW} ({wording.named(unknown)})"] if unknown else []
    keys = {**cell.keys, "versus": "other_path"}
    floor = of_base(frame, cell._replace(keys=keys), NAT)
    return "; ".join(
        [*told, *([f"the base differs from itself by {floor} through another code path"] if floor else [])]
    )


def likelihood(frame: pl.DataFrame) -> list[str]:
    """What became of the chosen response on val, and how often it fell while its margin grew."""
    rows, displaced = levels(frame, CHOSEN), levels(frame, TABLE["displaced_share"])
    found = [
        (rows, ranking(rows, Unit(" nat", 1, "{:+.3g}"), "most under {}, {}", "least under {}, {}", "pairs")),
        (displaced, ranking(displaced, PERCENT, "most of {}’s, {}", "least of {}’s, {}", "pairs")),
    ]  # fmt: skip
    told = signs(rows, "more likely in every seed", "less likely in every seed")
    return [
        sentence(
            f"change of the chosen response’s log-probability on {place(rows)}: {found[0][1]}" if found[0][1] else ""
        ),
        sentence(f"the chosen response became {told}" if told else ""),
        sentence(f"pairs whose chosen response fell while its margin grew: {found[1][1]}" if found[1][1] else ""),
    ]


def rewards(frame: pl.DataFrame) -> list[str]:
    """Whose answers earn most on val, whether that is sure, and how many groups taught nothing."""
    rows = levels(frame, REWARD)
    told = ranking(rows, PLAIN, "{} earns most, {}", "{} least, {}")
    base = of_base(frame, REWARD, PLAIN)
    idle = frame.filter(*(pl.col(key) == value for key, value in TAUGHT.items()), pl.col("dataset") == home(frame))
    groups = ranking(idle, PERCENT, "most of {}’s, {}", "least of {}’s, {}")
    start = f"the base earns {base}; after training " if base else "after training "
    return [
        sentence(f"mean reward of own answers on {place(rows)}: {start}{told}" if told else ""),
        sentence(lead(rows)),
        sentence(f"groups of completions that all got one reward, and so taught nothing: {groups}" if groups else ""),
    ]
