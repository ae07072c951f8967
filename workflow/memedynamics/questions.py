"""The study's questions: which claims each one is, what they rest on, and what this data says.

1. Of each claim one row a seed with the paired `difference`; one without a seed, `seeds_agree` (1: all runs of the one
   method lie on the same side of all of the other; n: seeds both have); and one, `p_holm`, with the verdict (`claims`).
   All claims of a study are one Holm family. Relations across runs: `correlation`, n = runs, method "all runs"; their
   `p_holm` has n = methods.
2. Runs that are made of other runs (curricula, merges) are in no question: they would count their parents twice. A
   question is asked of the first method of each kind as `kinds` has them: those whose objective alone is their own
   come first. Kinds without a method are left out; every answer stands with the names of the two methods.
3. The gap between train and val is that of the decision after the base's own texts, the only ones all policies have on
   train. SFT and DPO were trained on some of these texts, GRPO and EM were not: a wider gap of theirs is in part that.
4. Leaning on the picture: where attention looks, and how many right answers go with the picture. The first alone is no
   evidence that the answer rests on it.
5. The surer model: ρ across runs says whether more accurate runs are surer. A difference at equal accuracy is no answer
   to that, but says that accuracy is not all: two methods' entropies at the highest accuracy that both reach. It
   belongs to a pair of equal seed, so seeds are not crossed.
6. Staying right under noise: how many answers are right under the strongest, and how many fewer than without. A method
   that is wrong throughout loses nothing. Both are of the policies' own answers, which only the strongest noise has;
   beside them `noise_accuracy_after_header` at every level, `measure`.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import polars as pl

from memedynamics import claims
from memedynamics.cells import END, MATCHED, TABLE, Cell, Tables, noise_rows, noises, perturbed
from memedynamics.perturbations import BLANK
from memedynamics.weighing import Claim, Judged, Relation, clusters, related, weighed

COMPARED = ("sft", "dpo", "grpo")  # kinds that every pair of is compared


BETTER = "Is GRPO better than DPO?"
GAP = "Why do train and test accuracy agree so well for GRPO?"
FEWER = "Does SFT change fewer directions than DPO and GRPO?"
PREDICTS = "Does KL in domain predict the change out of domain?"
SURER = "Is the more accurate model the less entropic one?"
LEANS = "Which method leans on the picture?"
NOISE = "Which method stays right under noise?"
QUESTIONS = (BETTER, GAP, FEWER, PREDICTS, SURER, LEANS, NOISE)
BESIDE = {GAP: ("train_val_gap", "overfit_index"), FEWER: ("effective_rank_at_norm",)}
BESIDE |= {SURER: ("auroc_error", "milestone_correlation"), LEANS: ("blank_accuracy_change",)}
BESIDE |= {NOISE: ("noise_accuracy", "noise_accuracy_change")}
RELATIONS = (
    Relation(PREDICTS, "forward_kl", "forward_kl_out_of_domain", ("yes", "no: the reverse")),
    Relation(PREDICTS, "forward_kl", "accuracy_gain_out_of_domain", ("more KL, more gain", "more KL, less gain")),
    Relation(SURER, "accuracy", "decision_entropy", ("no: the reverse", "yes")),
)


def asked(kinds: Mapping[str, str], noise: str | None) -> list[Claim]:
    """The claims of a study with methods of `kinds`, in order; `noise`: its strongest perturbation by noise."""
    first = {kind: method for method, kind in reversed(list(kinds.items()))}
    grpo_dpo, every = [("grpo", "dpo")], list(combinations(COMPARED, 2))
    found = []
    for place in ("val", "test", "out"):
        found += _pairs(first, BETTER, TABLE["accuracy"]._replace(place=place), grpo_dpo, ("yes", "no: {b} is"))
    gap = ("{a}’s gap is wider", "{b}’s gap is wider")
    found += _pairs(first, GAP, TABLE["train_val_gap"], [("grpo", "sft"), *grpo_dpo], gap)
    directions = [("sft", "dpo"), ("sft", "grpo")]
    found += _pairs(first, FEWER, TABLE["effective_rank_at_norm"], directions, ("no: more", "yes"))
    surer = ("{b} is surer at equal accuracy", "{a} is surer at equal accuracy")
    found += _pairs(first, SURER, MATCHED, every, surer)
    found += _pairs(first, LEANS, TABLE["image_attention"], every, ("{a} looks more", "{b} looks more"))
    found += _pairs(first, LEANS, perturbed(BLANK), every, ("{b} loses more", "{a} loses more"))
    if noise:
        right = ("{a} is right more often", "{b} is right more often")
        found += _pairs(first, NOISE, perturbed(noise, "decision_accuracy"), every, right)
        found += _pairs(first, NOISE, perturbed(noise), every, ("{b} loses more", "{a} loses more"))
    return found


def _pairs(
    first: Mapping[str, str], question: str, cell: Cell, pairs: Sequence[tuple[str, str]], answers: tuple[str, str]
) -> list[Claim]:
    named = [(first[a], first[b]) for a, b in pairs if a in first and b in first]
    return [Claim(question, cell, a, b, tuple(text.format(a=a, b=b) for text in answers)) for a, b in named]


def answer_rows(
    tables: Tables,
    table: Sequence[dict],
    prompts: pl.DataFrame,
    runs: pl.DataFrame,
    kinds: Mapping[str, str],
    in_domain: str,
) -> list[dict]:
    """The questions: differences by seed, correlations, what stands beside them, and verdicts under one Holm family.

    `table`: cells.table_rows; `prompts` and `runs` from gather.
    """
    judged: list[Judged] = []
    shares = clusters(tables, prompts)
    for claim in asked(kinds, next(reversed(noises(tables)), None)):
        judged += weighed(tables, claim, shares, runs, in_domain)
    for relation in RELATIONS:
        judged += related(tables, relation, in_domain, list(kinds))
    p, said = claims.verdicts([each.evidence for each in judged], [each.answers for each in judged])
    rows = []
    for each, adjusted, verdict in zip(judged, p, said, strict=True):
        own = {"statistic": "p_holm", "value": adjusted, "n": each.n, "unit": "1", "verdict": verdict}
        rows += [*each.rows, {**each.key, **END, **own}]
    rows += [{**row, "question": NOISE} for row in noise_rows(tables, in_domain)]
    return rows + [
        {**row, "question": question}
        for question, names in BESIDE.items()
        for row in table
        if row["statistic"] in names
    ]
