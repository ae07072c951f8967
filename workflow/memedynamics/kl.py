"""How far a policy π has moved from the reference π0, in nat.

1. exact: KL_t = Σ_v p log p/q over the vocabulary at every position of a sampled response, summed (`per_response`) or
   divided by tokens (`per_token`, a ratio of sums); Rao-Blackwellised, so never noisier than Monte Carlo
   (Amini et al. 2504.10637). Forward KL(π0‖π) on base samples, reverse KL(π‖π0) on the policy's own.
2. k1, k3: the Monte Carlo check. With y drawn from the first distribution of the divergence and r = second/first per
   token, k1 = −log r and k3 = r − 1 − log r; both have mean KL_t (Schulman 2020, kl-approx). Forward r = π/π0.
3. By span the exact value adds up to the whole. A position's span is that of the token drawn there, which k1 and k3
   depend on too: they are unbiased for the whole response alone, and given for it alone.
4. decision: between the Bernoulli distributions of P(Yes) at the answer, responses with an answer block of their own;
   `per_response_forced` is that of the others. Probabilities are kept 1e-7 from 0 and 1, float32's resolution.
5. Noise floors. `versus` other_path: π0 against itself through the plain full-sequence code path. Between seeds no
   on-policy samples are scored under both, so `between_seeds` is KL_t(π_a‖π_b) at the positions of base samples: for
   y ~ π0 and w = π_a/π0 per token, w(r − 1 − log r) with r = π_b/π_a has mean KL_t(π_a‖π_b) exactly, at π0's prefixes,
   where the forward KL is taken too. `per_response_difference` between seeds is the spread of the KL itself.
6. A run that began at another's end (its parent) is also measured against it, `reference` in the table: forward on
   the parent's samples (probe_kind parent_sample), reverse on its own.
7. A response without an end token was cut at max_new_tokens: `cut_share`.
"""

from collections.abc import Sequence
from itertools import combinations

import polars as pl
import polars.selectors as cs

from memedynamics import curves, kl_between_seeds
from memedynamics.gather import BASE, CURVE, MEME, finish
from memedynamics.stats import ratio

SPANS = ("format", "rationale", "answer", "end")
# Of texts that the reference drew, and all that KL is measured on.
OF_REFERENCE = ("base_sample", "parent_sample")
PROBE_KINDS = (*OF_REFERENCE, "own_sample")
RESOLUTION = 1e-7

MEASURES = ["exact", "k1", "k3", "tokens"]
COLUMNS = ["present", *MEASURES, "cut", "decision", "unforced", "decision_forced", "forced"]
COLUMNS += [f"{measure}_{span}" for span in SPANS for measure in ("exact", "tokens")]


def _per(numerator: str, denominator: str) -> tuple:
    return lambda sums: ratio(sums[numerator], sums[denominator])


# estimator, span, statistic of each: a row's own keys.
STATISTICS: curves.Statistics = (
    {f"{name}/all/per_response": ("nat", _per(name, "present")) for name in ("exact", "k1", "k3")}
    | {f"{name}/all/per_token": ("nat/token", _per(name, "tokens")) for name in ("exact", "k1", "k3")}
    | {f"exact/{span}/per_response": ("nat", _per(f"exact_{span}", "present")) for span in SPANS}
    | {f"exact/{span}/per_token": ("nat/token", _per(f"exact_{span}", f"tokens_{span}")) for span in SPANS}
    | {
        "decision/answer/per_response": ("nat", _per("decision", "unforced")),
        "decision/answer/per_response_forced": ("nat", _per("decision_forced", "forced")),
        "count/all/forced_share": ("1", _per("forced", "present")),
        "count/all/cut_share": ("1", _per("cut", "present")),
        "count/all/length": ("token", _per("tokens", "present")),
    }
)
COMPARED = ("exact/all/per_response", "exact/all/per_token")


def per_response(traces: pl.LazyFrame) -> pl.DataFrame:
    """Sums over each response's tokens, by span: exact, k1, k3, tokens. Streams: `traces` need not fit in memory."""
    forward = pl.col("probe_kind").is_in(OF_REFERENCE)
    moved = pl.col("logp").cast(pl.Float64) - pl.col("ref_logp")
    log_ratio = pl.when(forward).then(moved).otherwise(-moved)
    exact = pl.when(forward).then("kl_forward").otherwise("kl_reverse").cast(pl.Float64)
    tokens = traces.filter(pl.col("probe_kind").is_in(PROBE_KINDS)).with_columns(log_ratio=log_ratio, exact=exact)
    summed = tokens.group_by("fraction", "probe_kind", *MEME, "sample", "span").agg(
        pl.col("exact").sum(),
        k1=-pl.col("log_ratio").sum(),
        k3=(pl.col("log_ratio").exp() - 1 - pl.col("log_ratio")).sum(),
        tokens=pl.len().cast(pl.Float64),
    )
    return summed.collect(engine="streaming")


def per_prompt(responses: pl.DataFrame) -> pl.DataFrame:
    """Means over each prompt's responses, by CURVE and MEME; `responses` from `per_response`, with method and seed."""
    at = {span: pl.col("span") == span for span in SPANS}
    by_span = {f"{m}_{span}": pl.col(m).filter(at[span]).sum() for span in SPANS for m in ("exact", "tokens")}
    summed = responses.group_by(*CURVE, *MEME).agg(
        *(pl.col(measure).sum() for measure in MEASURES),
        **by_span,
        ended=pl.col("sample").filter(at["end"]).n_unique().cast(pl.Float64),
        samples=pl.col("sample").n_unique(),
    )
    means = [pl.col(name) / pl.col("samples") for name in (*MEASURES, *by_span)]
    named = cs.categorical().cast(pl.String)
    return summed.with_columns(*means, named, present=pl.lit(1.0), cut=1 - pl.col("ended") / pl.col("samples"))


def decision_kl(p: pl.Expr, q: pl.Expr) -> pl.Expr:
    """KL(Bernoulli(p)‖Bernoulli(q)), nat, element-wise."""
    p, q = (x.clip(RESOLUTION, 1 - RESOLUTION) for x in (p, q))
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


def decisions(responses: pl.DataFrame) -> pl.DataFrame:
    """Decision KL of each prompt, mean over its responses, apart for those with a forced answer header.

    `responses`: schema `responses` with method and seed.
    """
    policy, reference = pl.col("p_hateful"), pl.col("ref_p_hateful")
    forward = pl.col("probe_kind").is_in(OF_REFERENCE)
    value = pl.when(forward).then(decision_kl(reference, policy)).otherwise(decision_kl(policy, reference))
    scored = responses.filter(pl.col("probe_kind").is_in(PROBE_KINDS)).with_columns(decision=value)
    forced = pl.col("forced").cast(pl.Float64)
    return scored.group_by(*CURVE, *MEME).agg(
        decision=(pl.col("decision") * (1 - forced)).mean(),
        decision_forced=(pl.col("decision") * forced).mean(),
        forced=forced.mean(),
        unforced=(1 - forced).mean(),
    )


def measure(
    tokens: pl.DataFrame,
    responses: pl.DataFrame,
    pairs: Sequence[tuple[str, pl.DataFrame]],
    prompts: pl.DataFrame,
    runs: pl.DataFrame,
    resamples: int,
) -> pl.DataFrame:
    """The analysis `kl`, in its schema (`study` left to the writer).

    `tokens` from `per_response` with method and seed, `responses` of the same texts, `pairs` from
    kl_between_seeds.seed_pairs.
    """
    moved = per_prompt(tokens).join(decisions(responses), on=[*CURVE, *MEME], nulls_equal=True)
    rows: list[dict] = []
    for part in curves.by_split(moved):
        rows += _rows(part, prompts, resamples)
    for versus, frame in pairs:
        for part in curves.by_split(frame):
            rows += kl_between_seeds.rows(part, versus, prompts, resamples)
    names = pl.col("statistic").str.split("/")
    table = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        estimator=names.list.get(0), span=names.list.get(1), statistic=names.list.get(2)
    )
    return finish(table, runs)


def _rows(frame: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    memes, who, views = curves.place(frame, prompts, COLUMNS)
    index = [views.add(curve) for curve in range(len(who))]
    compared = [(a, b) for a, b in combinations(range(len(who)), 2) if _comparable(who[a], who[b])]
    pairs = [views.pair(*pair) for pair in compared]
    estimates = curves.evaluate(views, COLUMNS, STATISTICS, *curves.resampling(memes, resamples))
    keys = [_key(memes, curve) for curve in who]
    against = [{**keys[a], "versus": _name(who[a], who[b])} for a, b in compared]
    rows = curves.level_rows(keys, views, index, estimates)
    return rows + curves.difference_rows(against, views, pairs, {name: estimates[name] for name in COMPARED})


def _key(memes: pl.DataFrame, curve: dict) -> dict:
    direction = "forward" if curve["probe_kind"] in OF_REFERENCE else "reverse"
    versus = "other_path" if curve["method"] == BASE else None
    return {"dataset": memes["dataset"][0], "split": memes["split"][0], **curve} | {
        "direction": direction,
        "versus": versus,
    }


def _comparable(one: dict, other: dict) -> bool:
    """Two policies at equal milestone on the same kind of text that differ in method or in seed, not in both."""
    if BASE in (one["method"], other["method"]):
        return False
    same = [one[name] == other[name] for name in ("method", "seed")]
    return sum(same) == 1 and all(one[name] == other[name] for name in ("fraction", "probe_kind"))


def _name(one: dict, other: dict) -> str:
    return f"seed{other['seed']}" if one["method"] == other["method"] else other["method"]
