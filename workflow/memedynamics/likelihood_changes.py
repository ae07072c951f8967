"""What of the likelihood is measured on each prompt: its texts' changes, and margin, rewards and loss of its pair.

The definitions are those of `likelihood`, which sums them up.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from memedynamics.errors import InputError
from memedynamics.gather import BASE, CURVE, MEME
from memedynamics.preferences import Rule
from memedynamics.probe_pairs import pairs

TEXTS = ("chosen", "rejected", "correct_other", "other_image", "gold_answer", "greedy", "permuted")
PREDICTORS = ("ches", "ches_normalised")
NO_BETA = "it was trained without the β that scales an implicit reward"
NOT_TO_BASE = "its loss compared with another policy than the base, so that β times a change from the base is no reward"
NOT_DPO = "it minimised another loss than DPO’s"

RESPONSES = ["fraction", "probe_kind", *MEME, "sample", "logp", "ref_logp", "num_tokens", *PREDICTORS]
TEXT_COLUMNS = ["present", "logp", "tokens", "change", "fell", "noise"]
PAIR_COLUMNS = ["present", "margin", "wider", "displaced", "reward_chosen", "reward_rejected", "reward_margin", "loss"]
CHES_CHANGES = [f"{name}_change" for name in PREDICTORS]
PAIR_COLUMNS += [*PREDICTORS, *CHES_CHANGES]


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
