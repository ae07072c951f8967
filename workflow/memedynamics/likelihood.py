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

from collections.abc import Mapping, Sequence
from itertools import combinations

import polars as pl

from memedynamics import curves
from memedynamics.curves import Views
from memedynamics.errors import InputError
from memedynamics.gather import BASE, CURVE, MEME, finish
from memedynamics.preferences import Rule
from memedynamics.probe_pairs import pairs
from memedynamics.rank_correlation import correlation
from memedynamics.stats import ratio

TEXTS = ("chosen", "rejected", "correct_other", "other_image", "gold_answer", "greedy", "permuted")
PREDICTORS = ("ches", "ches_normalised")
ALL = "all"
NO_BETA = "it was trained without the β that scales an implicit reward"
NOT_TO_BASE = "its loss compared with another policy than the base, so that β times a change from the base is no reward"
NOT_DPO = "it minimised another loss than DPO’s"

RESPONSES = ["fraction", "probe_kind", *MEME, "sample", "logp", "ref_logp", "num_tokens", *PREDICTORS]
TEXT_COLUMNS = ["present", "logp", "tokens", "change", "fell", "noise"]
PAIR_COLUMNS = ["present", "margin", "wider", "displaced", "reward_chosen", "reward_rejected", "reward_margin", "loss"]
CHES_CHANGES = [f"{name}_change" for name in PREDICTORS]
PAIR_COLUMNS += [*PREDICTORS, *CHES_CHANGES]
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


def texts(probes: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """Which probes are measured: probe_kind, MEME, sample, text (one of TEXTS) and pair_type.

    `probes`: schema `probes`; its base samples give the pairs by `rule`. Raises InputError where none gives one.
    """
    if probes.is_empty() or (paired := pairs(probes, rule)).is_empty():
        raise InputError("probes: no prompt gives a pair; raise sampling.num_samples or probe more prompts")
    keys = ["probe_kind", *MEME, "sample", "text", "pair_type"]
    roles = [
        paired.with_columns(probe_kind=pl.lit("base_sample"), sample=f"{role}_sample", text=pl.lit(role)).select(keys)
        for role in ("chosen", "rejected")
    ]
    beside = probes.filter(pl.col("probe_kind").is_in(TEXTS)).with_columns(text="probe_kind").join(paired, MEME)
    return pl.concat([*roles, beside.select(keys)])


def per_text(responses: pl.DataFrame, wanted: pl.DataFrame) -> pl.DataFrame:
    """TEXT_COLUMNS, pair_type and PREDICTORS by CURVE and MEME, the text in place of CURVE's probe_kind.

    `responses`: RESPONSES with method and seed, of one run or more; `wanted` from `texts`. Raises InputError naming
    run and text where a milestone lacks one: the probes have changed since they were scored; or where a chosen response
    has no CHES, as it had another partner or none then.
    """
    found = responses.join(wanted, ["probe_kind", *MEME, "sample"]).drop("probe_kind")
    _refuse_gaps(found, responses, wanted)
    _refuse_without_ches(found)
    base, change = pl.col("method") == BASE, pl.col("logp") - pl.col("ref_logp")
    return found.with_columns(
        probe_kind="text",
        present=pl.lit(1.0),
        logp=pl.when(base).then("ref_logp").otherwise("logp"),
        tokens=pl.col("num_tokens").cast(pl.Float64),
        change=pl.when(base).then(0.0).otherwise(change),
        fell=(~base & (change < 0)).cast(pl.Float64),
        noise=pl.when(base).then(change.abs()).otherwise(0.0),
    ).select(*CURVE, *MEME, "pair_type", *TEXT_COLUMNS, *PREDICTORS)


def _refuse_gaps(found: pl.DataFrame, responses: pl.DataFrame, wanted: pl.DataFrame) -> None:
    milestones = responses.filter(pl.col("probe_kind") != "own_sample").select("method", "seed", "fraction").unique()
    every = milestones.join(wanted.select("text", *MEME, "sample"), how="cross")
    keys = ["method", "seed", "fraction", "text", *MEME]
    lost = every.join(found, keys, "anti", nulls_equal=True).sort(keys)
    if len(lost):
        method, seed, fraction, text, *meme = lost.select(keys).row(0)
        whose = method if seed is None else f"{method}/seed{seed}"
        raise InputError(
            f"responses/{whose}: at fraction {fraction:g} {len(lost)} texts of the probes are not scored "
            f"(the {text} of {'/'.join(meme)} is the first); score it again"
        )


def _refuse_without_ches(found: pl.DataFrame) -> None:
    chosen = found.filter(pl.col("text") == "chosen")
    for name in PREDICTORS:
        empty = chosen.filter(pl.col(name).is_null()).sort("method", "seed", "fraction", *MEME)
        for method, seed, fraction, *meme in empty.select("method", "seed", "fraction", *MEME).head(1).rows():
            whose = method if seed is None else f"{method}/seed{seed}"
            raise InputError(
                f"responses/{whose}, column {name}: empty on {len(empty)} chosen responses (that to {'/'.join(meme)} "
                f"at fraction {fraction:g} is the first); score it again"
            )


def scales(runs: pl.DataFrame, beta: Mapping[str, float], dpo: Sequence[str]) -> pl.DataFrame:
    """β of every run's implicit rewards, or why it has none: method, seed, beta, no_reward, no_loss.

    `runs` from gather.milestones; `beta` by method; `dpo`: those that minimised DPO's loss. The base's rewards are 0
    whatever its β is.
    """
    known = pl.col("method").replace_strict({**beta, BASE: 0.0}, default=None, return_dtype=pl.Float64)
    others = pl.col("loss_reference").is_null() | (pl.col("loss_reference") != BASE)
    why = pl.when(known.is_null()).then(pl.lit(NO_BETA)).when(others).then(pl.lit(NOT_TO_BASE))
    another = ~pl.col("method").is_in([*dpo, BASE])
    return (
        runs.select("method", "seed", "loss_reference")
        .unique()
        .select("method", "seed", known.alias("beta"), why.alias("no_reward"), another.alias("another"))
        .with_columns(
            beta=pl.when(pl.col("no_reward").is_null()).then("beta").otherwise(float("nan")),
            no_loss=pl.coalesce("no_reward", pl.when("another").then(pl.lit(NOT_DPO))),
        )
        .drop("another")
    )


def per_pair(measured: pl.DataFrame, scale: pl.DataFrame) -> pl.DataFrame:
    """PAIR_COLUMNS by CURVE and MEME, with probe_kind pair; `measured` from `per_text`, `scale` from `scales`.

    Rewards and loss are NaN for runs without them.
    """
    keys = ["method", "seed", "fraction", *MEME]
    own = [*keys, "pair_type", *PREDICTORS]
    side = {role: measured.filter(probe_kind=role).select(*own, role="change") for role in TEXTS[:2]}
    pairs_of = side["chosen"].join(side["rejected"], keys, suffix="_rejected", nulls_equal=True)
    base = pairs_of.filter(method=BASE).select(*MEME, *PREDICTORS)
    pairs_of = pairs_of.join(base, MEME, "left", suffix="_base")
    both = pairs_of.join(scale, ["method", "seed"], "left", nulls_equal=True)
    plus, minus, beta = pl.col("role"), pl.col("role_rejected"), pl.col("beta")
    margin = plus - minus
    return both.with_columns(
        probe_kind=pl.lit("pair"),
        present=pl.lit(1.0),
        margin=margin,
        wider=(margin > 0).cast(pl.Float64) + (margin == 0).cast(pl.Float64) / 2,
        displaced=((plus < 0) & (margin > 0)).cast(pl.Float64),
        **{f"{name}_change": pl.col(name) - pl.col(f"{name}_base") for name in PREDICTORS},
        reward_chosen=beta * plus,
        reward_rejected=beta * minus,
        reward_margin=beta * margin,
        loss=pl.when(pl.col("no_loss").is_null()).then(_softplus(-beta * margin)).otherwise(float("nan")),
    ).select(*CURVE, *MEME, "pair_type", *PAIR_COLUMNS)


def _softplus(x: pl.Expr) -> pl.Expr:
    """log(1 + e^x) without overflow."""
    return pl.max_horizontal(x, 0.0 * x) + (-x.abs()).exp().log1p()


def measure(
    measured: pl.DataFrame, scale: pl.DataFrame, prompts: pl.DataFrame, runs: pl.DataFrame, resamples: int
) -> pl.DataFrame:
    """The analysis `likelihood`, in its schema (`study` left to the writer).

    `measured` from `per_text`, of all runs and the base; `scale` from `scales`, `prompts` from gather.prompts, `runs`
    from gather.milestones.
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
