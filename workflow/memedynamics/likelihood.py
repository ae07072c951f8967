"""What training did to the likelihood of the chosen and the rejected response, and of texts beside them.

The pair of a prompt is two fixed base samples (`preferences`), so no policy chooses what it is measured on; `split`
val and the other datasets were never trained on. Natural logarithms, nat.

1. change = log π(y) − log π0(y), summed over the response's tokens, mean over prompts; `change_per_token` is a ratio of
   sums, so that long responses count by their length. `fell_share`: prompts whose response became less likely.
2. margin = change of the chosen minus change of the rejected; the implicit reward is β·change (Rafailov et al.
   2305.18290). `accuracy`: share of margins above 0, a tie counting ½. Rewards need the β a method was trained with and
   a loss that compared with π0, as the change does; other runs have the margin alone. `dpo_loss` −log σ(β·margin) is
   DPO's alone.
3. Likelihood displacement (Razin et al. 2410.08847): the chosen falls and the margin is above 0. `displaced_share`.
4. Its predictor: `ches` is the pairs' mean ⟨S+, S−⟩ − ‖S+‖² under the policy itself at each milestone, and of the
   base under π0; `ches_normalised` divides each sum of states by its response's tokens (same paper). It scales with
   the square of the states' size, and not normalised with the responses' length: compare milestones, not base models.
   `…_change` is the policy's less the base's on the same pairs. `ches_correlation` is Spearman's between CHES under
   π0 and the change of the chosen over the pairs, a negative one as published.
5. Squeezing (Ren & Sutherland 2407.10490): the same for the texts of `probe_texts`, val alone. Sums grow with length
   and a text that was never plausible can lose hundreds of nat: compare per token.
6. The base's change is 0 by definition, so a change is itself the paired difference with the base. What rounding makes
   of it, π0 against itself through the other code path, is `noise_floor`: mean |change|. Smaller changes have no sign.
7. Strata: `pair_type` wrong_answer, bad_format (where every well-formed sample was right) and all. Spearman on few
   pairs is wide; n says how many.
"""

from collections.abc import Sequence
from itertools import combinations

import polars as pl

from memedynamics import curves
from memedynamics.curves import Views
from memedynamics.gather import BASE, MEME, finish
from memedynamics.likelihood_changes import CHES_CHANGES, PAIR_COLUMNS, PREDICTORS, TEXT_COLUMNS, per_pair
from memedynamics.rank_correlation import correlation
from memedynamics.stats import ratio

ALL = "all"
REWARDS = ("reward_chosen", "reward_rejected", "reward_margin")


def _mean(column: str) -> tuple:
    return lambda sums: ratio(sums[column], sums["present"])


def _per_token(column: str) -> tuple:
    return lambda sums: ratio(sums[column], sums["tokens"])


TEXT_STATISTICS: curves.Statistics = {
    "logp": ("nat", _mean("logp")),
    "logp_per_token": ("nat/token", _per_token("logp")),
    "change": ("nat", _mean("change")),
    "change_per_token": ("nat/token", _per_token("change")),
    "fell_share": ("1", _mean("fell")),
    "noise_floor": ("nat", _mean("noise")),
}
PAIR_STATISTICS: curves.Statistics = {
    "margin": ("nat", _mean("margin")),
    "accuracy": ("1", _mean("wider")),
    "displaced_share": ("1", _mean("displaced")),
    "reward_chosen": ("nat", _mean("reward_chosen")),
    "reward_rejected": ("nat", _mean("reward_rejected")),
    "reward_margin": ("nat", _mean("reward_margin")),
    "dpo_loss": ("nat", _mean("loss")),
    **{name: ("1", _mean(name)) for name in (*PREDICTORS, *CHES_CHANGES)},
}
COMPARED = ("change", "change_per_token", "margin", "accuracy", "displaced_share")


def measure(
    measured: pl.DataFrame, scale: pl.DataFrame, prompts: pl.DataFrame, runs: pl.DataFrame, resamples: int
) -> pl.DataFrame:
    """The analysis `likelihood`, in its schema (`study` left to the writer).

    `measured` from likelihood_changes.per_text, of all runs and the base; `scale` from its `scales`; `prompts` from
    gather.prompts, `runs` from gather.milestones.
    """
    rows: list[dict] = []
    for part in curves.by_split(measured):
        rows += _rows(part, TEXT_COLUMNS, TEXT_STATISTICS, prompts, resamples)
        rows += _correlations(part, prompts, resamples)
    for part in curves.by_split(per_pair(measured, scale)):
        rows += _rows(part, PAIR_COLUMNS, PAIR_STATISTICS, prompts, resamples)
    is_base, floor = pl.col("method") == BASE, pl.col("statistic") == "noise_floor"
    table = pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"seed": pl.Int32}).filter(~floor | is_base)
    lacking = pl.when(pl.col("statistic").is_in(REWARDS)).then("no_reward")
    missing = lacking.when(pl.col("statistic") == "dpo_loss").then("no_loss")
    known = table.join(scale, ["method", "seed"], "left", nulls_equal=True).with_columns(missing=missing)
    return finish(known.drop("beta", "no_reward", "no_loss"), runs)


def _rows(
    frame: pl.DataFrame, columns: list[str], statistics: curves.Statistics, prompts: pl.DataFrame, resamples: int
) -> list[dict]:
    memes, who, views = curves.place(frame, prompts, columns)
    keys, index = _strata(frame, memes, who, views)
    compared = [(a, b) for a, b in combinations(range(len(who)), 2) if _comparable(who[a], who[b])]
    pairs_of_views = [views.pair(*pair) for pair in compared]
    against = [{**_key(memes, who[a]), "versus": who[b]["method"]} for a, b in compared]
    estimates = curves.evaluate(views, columns, statistics, *curves.resampling(memes, resamples))
    gaps = {name: estimates[name] for name in COMPARED if name in estimates}
    return curves.level_rows(keys, views, index, estimates) + curves.difference_rows(
        against, views, pairs_of_views, gaps
    )


def _strata(
    frame: pl.DataFrame, memes: pl.DataFrame, who: Sequence[dict], views: Views
) -> tuple[list[dict], list[int]]:
    """A key and a view of every curve of `who` on all its prompts and on those of each pair type."""
    types = memes.join(frame.select(*MEME, "pair_type").unique(), MEME, "left", maintain_order="left")["pair_type"]
    masks = {ALL: None} | {name: (types == name).to_numpy() for name in sorted(set(types))}
    keys, index = [], []
    for curve, one in enumerate(who):
        for name, mask in masks.items():
            keys.append(_key(memes, one, name))
            index.append(views.add(curve, mask))
    return keys, index


def _key(memes: pl.DataFrame, curve: dict, pair_type: str = ALL) -> dict:
    named = {"text" if name == "probe_kind" else name: value for name, value in curve.items()}
    where = {name: memes[name][0] for name in ("dataset", "split")}
    return {**where, **named, "pair_type": pair_type, "versus": None}


def _comparable(one: dict, other: dict) -> bool:
    """Two methods on the same text at equal seed and milestone."""
    same = all(one[name] == other[name] for name in ("seed", "fraction", "probe_kind"))
    return same and BASE not in (one["method"], other["method"]) and one["method"] != other["method"]


def _correlations(frame: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    """Rows of Spearman's correlation between π0's predictors and the change of the chosen, over prompts."""
    chosen = frame.filter(probe_kind="chosen")
    base = chosen.filter(method=BASE).select(*MEME, *PREDICTORS)
    policies = chosen.filter(pl.col("method") != BASE)
    if policies.is_empty():
        return []
    memes, who, views = curves.place(policies, prompts, ["present", "change"])
    keys, index = _strata(policies, memes, who, views)
    cluster, weights = curves.resampling(memes, resamples)
    known = memes.join(base, MEME, "left", maintain_order="left")
    estimates = {
        f"{name}_correlation": correlation(views, 1, known[name].to_numpy(), cluster, weights) for name in PREDICTORS
    }
    keys = [{**key, "text": "pair"} for key in keys]
    return curves.level_rows(keys, views, index, estimates)
