"""Every artefact's schema, declared once: columns, types, what they hold and in which unit."""

import pyarrow as pa

CATEGORY = pa.dictionary(pa.int32(), pa.string())


def field(name: str, kind: pa.DataType, description: str, unit: str = "", null: bool = False) -> pa.Field:
    """An Arrow field whose metadata carry `description` and `unit`; `null` says whether it may be empty."""
    return pa.field(name, kind, nullable=null, metadata={"description": description, "unit": unit})


_study = field("study", CATEGORY, "name of the study, so that tables of several studies stack")
_fraction = field("fraction", pa.float64(), "milestone: fraction of training; 0 is the run's own start", "1")
_meme = [
    field("dataset", CATEGORY, "dataset's name in the study"),
    field("split", CATEGORY, "train, val or test"),
    field("id", CATEGORY, "the meme's id within its dataset"),
]
_sample = field("sample", pa.int16(), "index of the response among those to the same prompt")
_probe_kind = field("probe_kind", CATEGORY, "which fixed text: base_sample, own_sample, …")
_tokens = field("token_ids", pa.list_(pa.int32()), "the response's tokens, its end token included")
_format_ok = field("format_ok", pa.bool_(), "the response keeps the prompt's format strictly")
_correct = field("correct", pa.bool_(), "the parsed answer equals the label; an invalid answer is wrong")
_reward = field("reward", pa.float64(), "weighted sum of the study's rewards", "1")
_logp = field("logp", pa.float64(), "log π(response | prompt), summed over its tokens", "nat")
_decision = [
    field("p_hateful", pa.float64(), "P(Yes) / (P(Yes) + P(No)) at the answer", "1"),
    field("label_mass", pa.float64(), "P(Yes) + P(No) at the answer", "1"),
]
_forced = field("forced", pa.bool_(), "the response had no answer block: a canonical answer header was appended")
_drawn = [
    _fraction,
    *_meme,
    _sample,
    _tokens,
    field(
        "tokens",
        CATEGORY,
        "drawn, or the text's where an engine gives text alone: as many as it drew (text), or not (recut)",
    ),
    field("text", pa.string(), "the response without its end token"),
    field("finish_reason", CATEGORY, "stop (end token drawn) or length (cut at max_new_tokens)"),
    _logp,
    *_decision,
    _forced,
]

SCHEMAS: dict[str, pa.Schema] = {
    "data": pa.schema(
        [
            _study,
            *_meme,
            field("image", pa.string(), "path of the picture, relative to the working directory where possible"),
            field("image_sha256", pa.string(), "SHA-256 of the decoded RGB pixels"),
            field("width", pa.int32(), "picture width", "px"),
            field("height", pa.int32(), "picture height", "px"),
            field("text", pa.string(), "caption"),
            field("label", pa.int8(), "0 benign, 1 hateful"),
            field("groups", pa.list_(pa.string()), "groups of people the meme is about; may be empty"),
        ]
    ),
    "rejected": pa.schema(
        [
            _study,
            field("dataset", CATEGORY, "dataset's name in the study"),
            field("split", pa.string(), "split the row was in"),
            field("row", pa.int64(), "1-based row in its source file"),
            field("id", pa.string(), "id where one could be read", null=True),
            field("source", pa.string(), "file the row came from"),
            field("reason", pa.string(), "why it was left out"),
        ]
    ),
    "quality": pa.schema(
        [
            _study,
            field("dataset", CATEGORY, "dataset's name in the study"),
            field("split", pa.string(), "split, two splits joined by '+', or 'all'"),
            field("statistic", pa.string(), "what was counted"),
            field("value", pa.float64(), "the count or share"),
            field("expected", pa.float64(), "published value where one is known", null=True),
            field("unit", pa.string(), "unit of the value"),
        ]
    ),
    "drawn": pa.schema([_study, *_drawn]),
    "samples": pa.schema(
        [_study, *_drawn, field("answer", CATEGORY, "yes, no or invalid"), _format_ok, _correct, _reward]
    ),
    "preferences": pa.schema(
        [
            _study,
            field("dataset", CATEGORY, "dataset's name in the study"),
            field("id", CATEGORY, "the meme's id within its dataset"),
            field("prompt", pa.string(), "the user message"),
            field("chosen", pa.string(), "preferred response"),
            field("rejected", pa.string(), "dispreferred response"),
            field("chosen_sample", pa.int16(), "its index among the base samples"),
            field("rejected_sample", pa.int16(), "its index among the base samples"),
            field("pair_type", CATEGORY, "wrong_answer, bad_format, or judge: a judge chose, not the labels"),
            field("num_correct", pa.int16(), "correct base samples of this prompt"),
        ]
    ),
    "outcomes": pa.schema(
        [
            _study,
            field("dataset", CATEGORY, "dataset's name in the study"),
            field("id", CATEGORY, "the meme's id within its dataset"),
            field("label", pa.int8(), "0 benign, 1 hateful"),
            field("outcome", CATEGORY, "paired, or why the prompt gave no pair: no_chosen, no_rejected"),
            field("num_samples", pa.int16(), "base samples of this prompt"),
            field("num_correct", pa.int16(), "correct base samples of this prompt"),
            field("num_format_ok", pa.int16(), "well-formed base samples of this prompt"),
        ]
    ),
    "probes": pa.schema([_study, _probe_kind, *_meme, _sample, _tokens, _correct, _format_ok, _reward]),
    "history": pa.schema(
        [
            _study,
            field("step", pa.int64(), "optimiser steps done when the value was logged"),
            field("metric", CATEGORY, "the trainer's own name"),
            field("value", pa.float64(), "logged value"),
        ]
    ),
    "rollouts": pa.schema(
        [
            _study,
            field("step", pa.int64(), "optimiser step the rollout was drawn for"),
            field("id", CATEGORY, "the meme's id within its dataset"),
            field("sample", pa.int16(), "index within the group of completions to one prompt"),
            field("text", pa.string(), "completion"),
            field("rewards", pa.map_(pa.string(), pa.float64()), "each reward by name, unweighted"),
            field("reward", pa.float64(), "weighted sum of the rewards"),
            field(
                "advantage",
                pa.float64(),
                "reward relative to its group, as the trainer computes it (rloo: before its KL)",
            ),
        ]
    ),
    "traces": pa.schema(
        [
            _study,
            _fraction,
            _probe_kind,
            *_meme,
            _sample,
            field("position", pa.int16(), "0-based position in the response"),
            field("token_id", pa.int32(), "token at this position"),
            field("span", CATEGORY, "format, rationale, answer or end"),
            field("logp", pa.float32(), "log π of the token", "nat"),
            field("ref_logp", pa.float32(), "log π0 of the token", "nat"),
            field("kl_forward", pa.float32(), "KL(π0‖π) over the vocabulary", "nat"),
            field("kl_reverse", pa.float32(), "KL(π‖π0) over the vocabulary", "nat"),
            field("entropy", pa.float32(), "entropy of π over the vocabulary", "nat"),
            field("acceptance", pa.float32(), "Σ min(π, π0) over the vocabulary: 1 − total variation", "1"),
            field("rank", pa.int32(), "0-based rank of the token under π"),
        ]
    ),
    "responses": pa.schema(
        [
            _study,
            _fraction,
            _probe_kind,
            *_meme,
            _sample,
            _logp,
            field("ref_logp", pa.float64(), "log π0(response | prompt), summed over its tokens", "nat"),
            field("kl_forward", pa.float64(), "KL(π0‖π), summed over the response's positions", "nat"),
            field("kl_reverse", pa.float64(), "KL(π‖π0), summed over the response's positions", "nat"),
            *_decision,
            field("ref_p_hateful", pa.float64(), "p_hateful under π0", "1"),
            _forced,
            field("ches", pa.float64(), "⟨S+, S−⟩ − ‖S+‖² against the rejected response of the pair", "1", null=True),
            field("ches_normalised", pa.float64(), "the same with each sum S divided by its tokens", "1", null=True),
            field("num_tokens", pa.int32(), "tokens of the response, its end token included"),
        ]
    ),
}


def analysis_schema(*keys: pa.Field) -> pa.Schema:
    """The schema of an analysis: the common keys, its own `keys`, and a statistic with interval, n and unit.

    A measure that a run does not have is a row all the same: its value is empty and `missing` says why.
    """
    return pa.schema(
        [
            _study,
            field("method", CATEGORY, "recipe's name in the study, or base"),
            field("seed", pa.int32(), "training seed; empty where seeds are aggregated", null=True),
            _fraction,
            field("step", pa.int64(), "optimiser steps done at this milestone", null=True),
            field("reference", CATEGORY, "what the policy is compared with"),
            field("dataset", CATEGORY, "dataset's name in the study"),
            field("split", CATEGORY, "train, val or test"),
            *keys,
            field("statistic", CATEGORY, "what was computed"),
            field("value", pa.float64(), "point estimate; empty where undefined", null=True),
            field("ci_low", pa.float64(), "lower end of the 95 % interval", null=True),
            field("ci_high", pa.float64(), "upper end of the 95 % interval", null=True),
            field("n", pa.int64(), "items (not rows) the value rests on"),
            field("unit", CATEGORY, "unit of the value"),
            field("missing", CATEGORY, "why the run has no such value; empty where it has one", null=True),
        ]
    )


SCHEMAS["accuracy"] = analysis_schema(
    field("probe_kind", CATEGORY, "whose samples: base_sample or own_sample"),
    field("versus", CATEGORY, "the other method of a paired comparison", null=True),
)
SCHEMAS["kl"] = analysis_schema(
    field("probe_kind", CATEGORY, "on whose samples: base_sample or own_sample"),
    field("direction", CATEGORY, "forward KL(π0‖π), reverse KL(π‖π0)"),
    field("estimator", CATEGORY, "exact (over the vocabulary), k1, k3, decision"),
    field("span", CATEGORY, "all, format, rationale, answer or end"),
    field("versus", CATEGORY, "noise floor's other side: other code path, other seed", null=True),
)
SCHEMAS["rewards"] = analysis_schema(
    field("source", CATEGORY, "samples, rollouts, forecast, history (trainer's log), check (of the log), reward_model"),
    field("over", CATEGORY, "prompts: split, paired, held_out, or drawn in a step, window, run or quarter of it"),
)
SCHEMAS["entropy"] = analysis_schema(
    field("probe_kind", CATEGORY, "on whose samples: base_sample or own_sample"),
    field("estimator", CATEGORY, "exact (jackknifed), exact_uncorrected, plug_in, posterior, unbiased", null=True),
    field("invalid", CATEGORY, "responses without an answer: forced (decided all the same), dropped, third", null=True),
    field("span", CATEGORY, "all, format, rationale, answer or end, of token_entropy", null=True),
    field("coverage", pa.float64(), "share of prompts answered, the most confident first, of risk", "1", null=True),
    field("versus", CATEGORY, "the other method of a paired comparison", null=True),
)
SCHEMAS["likelihood"] = analysis_schema(
    field("text", CATEGORY, "chosen, rejected, pair (both), or a text beside them: correct_other, other_image, …"),
    field("pair_type", CATEGORY, "wrong_answer, bad_format or all: how the rejected response fails"),
    field("versus", CATEGORY, "the other method of a paired comparison", null=True),
)
SCHEMAS["extract_sharpe"] = pa.schema(
    [
        _study,
        _fraction,
        *_meme,
        field("label", pa.int8(), "0 benign, 1 hateful"),
        field("group", CATEGORY, "feature group: all, image, caption, …, cell_0 … cell_15, word:…"),
        field("phi", pa.float64(), "gradient × input of the decision log-odds toward the label", "nat"),
        field("occlusion", pa.float64(), "change of the log-odds when the group is occluded", "nat", null=True),
        field("log_odds", pa.float64(), "log P(gold label) − log P(other label)", "nat"),
        field("gradient", pa.list_(pa.float32()), "sketch of the gradient of the answer's NLL, group all", null=True),
    ]
)
SCHEMAS["extract_signal"] = pa.schema(
    [
        _study,
        _fraction,
        field("dataset", CATEGORY, "dataset's name in the study"),
        field("split", CATEGORY, "train or val"),
        field("module", CATEGORY, "adapted layer, whose factor B the gradient is of"),
        field("n", pa.int64(), "memes"),
        field("parameters", pa.int64(), "entries of the factor"),
        field("mean_sq", pa.float64(), "Σ ḡ² over the entries"),
        field("var", pa.float64(), "Σ s² over the entries, s² the sample variance"),
        field("ratio", pa.float64(), "mean of ḡ²/s² over the entries that vary", "1", null=True),
        field("varying", pa.int64(), "entries with s² > 0; 0 where ratio is empty"),
        field("snr_without", pa.list_(pa.float64()), "Σḡ²/Σs² without one group of memes, group by group", null=True),
        field("gsnr_without", pa.list_(pa.float64()), "mean of ḡ²/s², likewise", null=True),
    ]
)
SCHEMAS["sharpe"] = analysis_schema(
    field("group", CATEGORY, "feature group of an attribution; gradient for what is of the gradients"),
    field("module", CATEGORY, "adapted layer, all for the whole adapter; empty for attributions", null=True),
    field("label", CATEGORY, "memes of which label: all, benign or hateful"),
    field("versus", CATEGORY, "the other method of a paired comparison", null=True),
)

SCHEMAS["extract_spectrum"] = pa.schema(
    [
        _study,
        _fraction,
        field("update", CATEGORY, "trained, or random: the control of equal norm and largest rank"),
        field("module", CATEGORY, "linear layer of the text decoder", null=True),
        field("layer", pa.int32(), "decoder layer it lies in", null=True),
        field("kind", CATEGORY, "its name within the layer: q_proj, …", null=True),
        field(
            "rank", pa.int32(), "largest rank its update can have: the adapter's r, else its smaller side", null=True
        ),
        field("frobenius", pa.float64(), "‖ΔW‖ Frobenius", "1", null=True),
        field("relative_frobenius", pa.float64(), "‖ΔW‖/‖W0‖, Frobenius norms", "1", null=True),
        field("relative_spectral", pa.float64(), "‖ΔW‖/‖W0‖, spectral norms", "1", null=True),
        field("stable_rank", pa.float64(), "‖ΔW‖²/σ₁², Frobenius", "1", null=True),
        field("effective_rank", pa.float64(), "exp of the entropy of σ/Σσ", "1", null=True),
        field("participation_ratio", pa.float64(), "(Σσ²)²/Σσ⁴", "1", null=True),
        field("k90", pa.float64(), "fewest σ² that reach 90 % of their sum", "1", null=True),
        field("singular_values", pa.list_(pa.float64()), "leading singular values of ΔW, falling", "1", null=True),
        field("spectral_shift", pa.float64(), "‖σ(W0+ΔW) − σ(W0)‖/‖σ(W0)‖, all singular values", "1", null=True),
        field("rotation", pa.float64(), "share of the leading left subspace turned out of the base's", "1", null=True),
        field("largest_angle", pa.float64(), "largest principal angle between the two", "rad", null=True),
        field("intruders", pa.float64(), "leading left vectors of W0+ΔW unlike any of W0's", "1", null=True),
        field("unchanged_float32", pa.float64(), "share of entries of W0+ΔW equal to W0's in float32", "1", null=True),
        field("unchanged_bfloat16", pa.float64(), "the same after rounding both to bfloat16", "1", null=True),
        field("drift", pa.float64(), "share of A's row space turned out of that of the initial A", "1", null=True),
        field("missing", CATEGORY, "why measures are empty; empty where none is", null=True),
    ]
)
SCHEMAS["spectrum"] = analysis_schema(
    field("update", CATEGORY, "trained, or random: the control of equal norm and largest rank"),
    field("kind", CATEGORY, "linear layers of this name (q_proj, …), or all"),
    field("layer", pa.int32(), "decoder layer; empty for all", null=True),
    field("index", pa.int32(), "1-based place of a singular value; empty for other statistics", null=True),
    field("versus", CATEGORY, "the other method, or other seed, of a comparison", null=True),
)
_segments = ("system", "image", "question", "caption", "header")
SCHEMAS["extract_attention"] = pa.schema(
    [
        _study,
        _fraction,
        field("policy", CATEGORY, "trained, or random: an update of the same norm in every module"),
        *_meme,
        field("perturbation", CATEGORY, "clean, noise_<σ of 255>, blur, jpeg, blank, natural_swap or other_image"),
        field("layer", pa.int16(), "decoder layer from 0; empty for a decision", null=True),
        field("head", CATEGORY, "mean or max over heads, or one head's number; empty for a decision", null=True),
        *(field(f"share_{s}", pa.float32(), f"attention on the {s}", "1", null=True) for s in _segments),
        *(field(f"sinkless_{s}", pa.float32(), f"{s}'s part of the rest but sinks", "1", null=True) for s in _segments),
        field("sink_share", pa.float32(), "attention on tokens with over 20 % of π0's clean row", "1", null=True),
        *(field(f"tokens_{s}", pa.int32(), f"tokens of the {s}", "token", null=True) for s in _segments),
        field("cells", pa.list_(pa.float32()), "attention on the picture's 4×4 cells; clean alone", null=True),
        field("tv", pa.float32(), "total variation from the policy's own clean row", "1", null=True),
        field("js", pa.float32(), "Jensen-Shannon divergence from the policy's own clean row", "nat", null=True),
        field("after", CATEGORY, "what a decision follows: header, rationale, redrawn; empty for attention", null=True),
        field("label", pa.int8(), "right answer of a decision: a natural swap turns the meme's own", null=True),
        field("log_odds", pa.float64(), "log P(Yes) / P(No) at the answer", "nat", null=True),
        field("label_mass", pa.float64(), "P(Yes) + P(No) at the answer", "1", null=True),
    ]
)
SCHEMAS["attention"] = analysis_schema(
    field("policy", CATEGORY, "trained, or random: an update of the same norm in every module"),
    field("perturbation", CATEGORY, "clean, noise_<σ of 255>, blur, jpeg, blank, natural_swap or other_image"),
    field("layer", pa.int16(), "decoder layer from 0; empty: mean over layers, or a decision", null=True),
    field("head", CATEGORY, "mean or max over heads; empty for a decision", null=True),
    field("cell", pa.int16(), "cell of the picture's 4×4 grid, row by row, where it is one's share", null=True),
    field("after", CATEGORY, "what a decision follows: header, rationale, redrawn; empty for attention", null=True),
    field("versus", CATEGORY, "the other side of a paired difference: a method, base, or random", null=True),
)
SCHEMAS["extract_gradients"] = pa.schema(
    [
        _study,
        _fraction,
        field("module", CATEGORY, "adapted module, or all: the whole adapter"),
        _meme[0],
        _meme[1],
        field("id", CATEGORY, "the meme's id; empty where gradients are summed over a group of memes"),
        field("place", pa.int16(), "number of the meme, or of the group, within its fraction and module"),
        field("group", pa.int16(), "group of memes it belongs to; equal captions are in one"),
        field("p", pa.float64(), "share of the meme's samples that are correct", "1", null=True),
        field("objective", CATEGORY, "objective whose ascent direction the gradient is"),
        field("inner", pa.list_(pa.float32()), "inner products with all rows of its fraction and module, in order"),
        field("parameters", pa.int64(), "parameters of the whole adapter that have a gradient"),
        field("missing", CATEGORY, "why the policy has no such gradients; empty where it has them", null=True),
    ]
)
SCHEMAS["gradients"] = analysis_schema(
    field("objective", CATEGORY, "objective of the methods, by its name in the study of gradients"),
    field("other", CATEGORY, "the objective it is compared with; itself for its own reliability and norm"),
    field("module", CATEGORY, "adapted module, or all: the whole adapter"),
    field("bin", CATEGORY, "prompts by the share of correct samples p"),
)

SCHEMAS["judgements"] = pa.schema(
    [
        _study,
        _meme[0],
        _meme[2],
        field("source", CATEGORY, "drawn (without the labels), or labels: the label-based pair, the chosen as one"),
        field("sample_one", pa.int16(), "index of response one among the base samples"),
        field("sample_two", pa.int16(), "index of response two among the base samples"),
        field("p_first", pa.float64(), "P(the judge prefers one), mean over both orders", "1"),
        field("p_one_ab", pa.float64(), 'P("1") / (P("1") + P("2")) where one stands first', "1"),
        field("p_one_ba", pa.float64(), "the same where two stands first", "1"),
        field("label_mass_ab", pa.float64(), 'P("1") + P("2") where one stands first', "1"),
        field("label_mass_ba", pa.float64(), "the same where two stands first", "1"),
    ]
)
SCHEMAS["judgement"] = analysis_schema(
    field("source", CATEGORY, "labels: the label-based pairs; drawn: pairs drawn without the labels"),
    field("pair_type", CATEGORY, "wrong_answer, bad_format or all: how the response that the labels reject fails"),
    field("p_better_first", pa.float64(), "middle of the bin of P(better) where it stands first", "1", null=True),
    field("p_better_second", pa.float64(), "middle of the bin of P(better) where it stands second", "1", null=True),
)

SCHEMAS["extract_merge_path"] = pa.schema(
    [
        _study,
        field("way", CATEGORY, "linear (straight through weight space) or slerp (along the arc)"),
        field("t", pa.float64(), "place on the way: 0 is the first run, 1 the second", "1"),
        *_meme,
        _sample,
        _decision[0],
        _forced,
        field("kl_forward", pa.float64(), "KL(π0‖π) of the base's response, summed over its tokens", "nat"),
    ]
)
SCHEMAS["merge_path"] = analysis_schema(
    field("versus", CATEGORY, "the run at t = 1; method is the one at t = 0"),
    field("way", CATEGORY, "linear (straight through weight space) or slerp (along the arc)"),
    field("t", pa.float64(), "place on the way from one run to the other", "1"),
)

SCHEMAS["parity"] = analysis_schema(
    field("metric", CATEGORY, "the trainers' name of what was logged"),
    field("versus", CATEGORY, "the method of the other backend that a difference is taken from", null=True),
)
SCHEMAS["summary"] = analysis_schema(
    field("question", CATEGORY, "the question it answers; empty for the side-by-side table", null=True),
    field("versus", CATEGORY, "the other method of a claim, or the two numbers of a relation", null=True),
    field("measure", CATEGORY, "what a claim compares, or the level of noise; empty otherwise", null=True),
    field("verdict", CATEGORY, "what this data says to a claim, on its row p_holm", null=True),
)
