"""Sentences on what happened inside: weights, features, attention, entropy."""

from collections import Counter
from collections.abc import Iterable

import polars as pl

from memedynamics import ranked, wording
from memedynamics.cells import TABLE, Cell, noises, perturbed
from memedynamics.gather import BASE
from memedynamics.numbers_of import differences, levels, of_base
from memedynamics.perturbations import BLANK, NOISE
from memedynamics.ranked import lead, ranking, signs
from memedynamics.wording import PERCENT, PLAIN, POINTS, Unit, place, sentence

SIZE = TABLE["effective_rank"]._replace(statistic="relative_frobenius")
SIGNAL = Cell("sharpe", "snr", "train", {"module": "all", "versus": None})
ADDED = Cell("sharpe", "occlusion_overfit_index_difference", "train-val", {"label": "all", "versus": BASE})
NAT = Unit(" nat")
FINE = POINTS._replace(pattern="{:+.2f}")
LAYERS = "linear layers"


def spectrum(frame: pl.DataFrame) -> list[str]:
    """Whose update has most directions at equal norm, whether that is sure, and whose is largest."""
    cell = TABLE["effective_rank_at_norm"]
    rows, sizes = levels(frame, cell), levels(frame, SIZE)
    told = ranking(rows, PLAIN, "{}’s update has most directions, an effective rank of {}", "{}’s fewest, {}", LAYERS)
    size = ranking(sizes, PERCENT, "largest for {}, {}", "smallest for {}, {}", LAYERS)
    return [
        sentence(f"read at equal norm, {told}" if told else ""),
        sentence(lead(rows, differences(frame, cell))),
        sentence(f"size of the update relative to the weights at the end of training: {size}" if size else ""),
    ]


def sharpe(frame: pl.DataFrame) -> list[str]:
    """Which features training made more reliable on train than on val, and whose gradients have most signal left."""
    added = ranked.policies(levels(frame, ADDED)).filter(pl.col("group") != "all")
    signal = levels(frame, SIGNAL)
    told = ranking(signal, PLAIN, "highest for {}, {}", "lowest for {}, {}", "memes")
    return [
        *map(sentence, _overfitted(added)),
        sentence(f"signal to noise of the gradients on {place(signal)} at the end of training: {told}" if told else ""),
    ]


def _overfitted(added: pl.DataFrame) -> list[str]:
    """By feature, the methods under which it speaks more reliably for labels that were trained on, in every seed."""
    if added.is_empty():
        return []
    parts = added.partition_by("group", maintain_order=True, as_dict=True)
    found = {group: ranked.sided(rows) for (group,), rows in parts.items()}
    sides = Counter(side for by in found.values() for side in by.values())
    pairs = f"of {sides.total()} pairs of feature and method"
    up, down = (_features(found, side) for side in (1, -1))
    told = f"more reliable on train than on val through training, in every seed ({sides[1]} {pairs}"
    less = f"less reliable in every seed ({sides[-1]} {pairs}, {ranked.UNCORRECTED}): {down}" if down else ""
    why = [f"{reason} ({count})" for reason, count in sides.most_common() if isinstance(reason, str)]
    more = f"{told}, {ranked.UNCORRECTED}): {up}" if up else f"{told})"
    return [more, "; ".join(filter(None, [less, *why]))]


def _features(found: dict[str, dict[str, int | str]], side: int) -> str:
    """'the header under SFT; the system under SFT and DPO', where sides are so."""
    of = {group: [method for method, own in by.items() if own == side] for group, by in found.items()}
    return "; ".join(f"the {group} under {wording.named(methods)}" for group, methods in of.items() if methods)


def attention(frame: pl.DataFrame) -> list[str]:
    """Whose last prompt token looks more at the picture, and whose answers go with the picture, or under noise."""
    shift, blank = levels(frame, TABLE["image_attention_shift"]), levels(frame, perturbed(BLANK))
    told = signs(shift, "more in every seed", "less in every seed")
    most = ranking(shift, FINE, "most under {}, {}", "least under {}, {}")
    lost = ranking(blank, POINTS, "least change under {}, {}", "most under {}, {}")
    found = [
        f"attention on the picture against the base’s, {place(shift)}: {most}; {told}" if told else "",
        f"right answers when the picture is blank, {place(blank)}: {lost}" if lost else "",
        *_under_noise(frame),
    ]
    return list(map(sentence, found))


def _under_noise(frame: pl.DataFrame) -> Iterable[str]:
    for name in noises({"attention": frame})[-1:]:
        cell = perturbed(name, "decision_accuracy")
        rows = levels(frame, cell)
        if told := ranking(rows, PERCENT, "{} is right most often, in {}", "{} least often, in {}"):
            sure = lead(rows, differences(frame, cell))
            where = f"under noise of σ {name.removeprefix(NOISE)}/255, {place(rows)},"
            yield f"{where} {told}{'; ' if sure else ''}{sure}"


def entropy(frame: pl.DataFrame) -> list[str]:
    """Who is surest on val, whether that is sure, and whose entropy marks wrong decisions best."""
    cell, marks = TABLE["decision_entropy"], TABLE["auroc_error"]
    rows, errors = levels(frame, cell), levels(frame, marks)
    told = ranking(rows, NAT, "{} is least sure, with {}", "{} surest, with {}")
    marked = ranking(errors, PLAIN, "best for {}, {}", "worst for {}, {}")
    base = of_base(frame, cell, NAT)
    start = f"the base’s answers have {base}; after training " if base else ""
    sure = lead(rows, differences(frame, cell), upward=False)
    return [
        sentence(f"entropy of the answer on {place(rows)}: {start}{told}" if told else ""),
        sentence(sure),
        sentence(f"how well entropy marks wrong decisions there (AUROC; ½ says nothing): {marked}" if marked else ""),
    ]
