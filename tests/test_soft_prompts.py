"""Virtual tokens must do what real ones in their place would, in every family, and what PEFT's own forward does."""

import functools
import json
import math
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import DynamicCache

import tiny_models
import tiny_study
from memedynamics import milestones, reward_gaps, soft_prompts, tables, vlm
from memedynamics.adapters import activate, load_adapters
from memedynamics.config import Adapter, OwnSamples, Probes, Sampling, Scoring
from memedynamics.errors import InputError
from memedynamics.prefix import extend, grow, predicting, prefill
from memedynamics.sections import Attention, Gradients, Sharpe
from memedynamics.soft_prompts import CONFIGS
from test_invariants import OWN
from tiny_study import PROMPT, REWARDS, script, write_study

FAMILIES = [*tiny_models.FAMILIES, "idefics3"]
CONTENTS = ["Is it hateful? Think first.", "Is it?"]
PICTURES = [(1, 56, 56), (2, 84, 56)]
# Of Gemma 3's sequences only the first 16 tokens see real tokens at the start through its sliding window.
FULL = [family for family in FAMILIES if family != "gemma3"]
TOKENS = torch.tensor([61, 72, 99, 83])
V = len(TOKENS)
KINDS = ("prompt", "prefix")
QUESTIONS = {"memes": "hateful"}
SAMPLING = Sampling(num_samples=2, max_new_tokens=6, batch_size=3)
FILES = ["adapter_config.json", "adapter_model.safetensors", "checksums.json"]


def sharpened(family: str):
    """A tiny model whose attention matters: at its initial scale all tokens look alike."""
    model = vlm.load_model(tiny_models.folder(family))
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.mul_(4)
    return model


def prompts(family: str, contents=CONTENTS, pictures=PICTURES):
    processor = vlm.load_processor(tiny_models.folder(family))
    return vlm.encode(processor, contents, [tiny_models.picture(*picture) for picture in pictures])


def with_tokens(model, inputs, tokens=TOKENS):
    """`inputs` of an unpadded batch with the real `tokens` put before, on positions 0 … V-1."""
    count, shape = len(tokens), inputs["input_ids"].shape
    new = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    found = {
        name: torch.cat([new.get(name, 0 * tokens).expand(len(value), -1).to(value.dtype), value], 1)
        if value.shape == shape
        else value
        for name, value in inputs.items()
    }
    assert found["input_ids"].shape[1] == shape[1] + count
    return found


def of_real_tokens(model, kind: str, tokens=TOKENS):
    """A soft prompt of `kind` that holds what the real `tokens` give."""
    policy = soft_prompts.fresh(model, Adapter(kind=kind, tokens=len(tokens)), 0)
    decoder, cache = model.get_decoder(), DynamicCache()
    embedded = model.get_input_embeddings()(tokens)[None]
    with policy.disable_adapter():
        decoder(inputs_embeds=embedded, past_key_values=cache, use_cache=True)
    weight = policy.prompt_encoder["default"].embedding.weight
    if kind == "prompt":
        weight.data.copy_(embedded[0])
    else:
        # (V, layers · 2 · heads · D): PEFT's order.
        parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        weight.data.copy_(torch.stack(parts, 2).permute(0, 3, 2, 1, 4).reshape(len(tokens), -1))
    return policy.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FULL)
def test_virtual_tokens_that_hold_real_ones_are_those_tokens_put_before(family: str, kind: str) -> None:
    """On every axis the real tokens are at 0 … V-1 and the sequence V higher, as the model itself places text."""
    model = sharpened(family)
    inputs = prompts(family, CONTENTS[:1], PICTURES[:1])
    with torch.no_grad():
        without = model(**inputs).logits.log_softmax(-1)
        expected = model(**with_tokens(model, inputs)).logits[:, V:].log_softmax(-1)
        policy = of_real_tokens(model, kind)
        found = policy(**inputs).logits.log_softmax(-1)
        with policy.disable_adapter():
            assert torch.equal(policy(**inputs).logits.log_softmax(-1), without)
    assert (expected - without).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module", params=[(family, kind) for family in FAMILIES for kind in KINDS], ids="-".join)
def case(request):
    family, kind = request.param
    policy = of_real_tokens(sharpened(family), kind)
    alone = [prompts(family, [c], [p]) for c, p in zip(CONTENTS, PICTURES, strict=True)]
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(50, policy.get_output_embeddings().weight.shape[0], (6, 20), generator=random)
    mask = torch.arange(20) < torch.tensor([20, 4, 1, 20, 13, 20])[:, None]
    return policy, alone, prompts(family), tokens, mask.long()


def whole(policy, prompt, response):
    """Logits (R + 1, V) that predict the tokens of `response` and the one after, from the whole sequence."""
    inputs, shape = {}, prompt["input_ids"].shape
    for name, value in prompt.items():
        new = {"input_ids": response, "attention_mask": torch.ones_like(response)}.get(name, 0 * response)
        inputs[name] = torch.cat([value, new[None].to(value.dtype)], 1) if value.shape == shape else value
    return policy(**inputs).logits[0, shape[1] - 1 :]


@torch.no_grad()
def test_padding_changes_nothing(case) -> None:
    policy, alone, both, *_ = case
    assert (both["attention_mask"] == 0).any()
    logits = policy(**both).logits
    for row, prompt in enumerate(alone):
        expected = policy(**prompt).logits[0]
        torch.testing.assert_close(logits[row, -len(expected) :], expected, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_continued_prompts_equal_whole_sequences(case) -> None:
    policy, alone, both, tokens, mask = case
    prefix = prefill(policy, both).repeat(3)
    logits = vlm.project(policy, predicting(prefix, extend(policy, prefix, tokens, mask)))
    grown = grow(policy, prefix, tokens, mask)
    then = torch.tensor([[60, 61, 62]]).expand(6, -1)
    behind = extend(policy, grown, then, torch.ones(6, 3))
    behind = vlm.project(policy, torch.cat([grown.last_hidden[:, None], behind], 1))
    for row, length in enumerate(mask.sum(1).tolist()):
        expected = whole(policy, alone[row // 3], torch.cat([tokens[row, :length], then[row]]))
        torch.testing.assert_close(logits[row, :length], expected[:length], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(behind[row], expected[length:], atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_generate_decodes_what_whole_sequences_predict(case) -> None:
    policy, alone, both, *_ = case
    ends = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4}
    found = policy.generate(**both, **ends)[:, both["input_ids"].shape[1] :]
    for prompt, response in zip(alone, found, strict=True):
        greedy = whole(policy, prompt, response)[:-1]
        reached = greedy.gather(1, response[:, None])[:, 0]
        # The minimum length bars end tokens: they alone may be likelier.
        likelier = (greedy > reached[:, None] + 1e-4).sum(1)
        assert (likelier <= 2).all()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), num_memes=8)


def matched(kind: str):
    return tiny_study.MATCHED.model_copy(update={"adapter": Adapter(kind=kind, tokens=3)})


@pytest.fixture(
    scope="module", params=[(method, kind) for method in ("sft", "dpo", "grpo") for kind in KINDS], ids="-".join
)
def trained(request, study: Path, tmp_path_factory: pytest.TempPathFactory):
    """Two steps of a method on a prompt or a prefix, by its training script."""
    method, kind = request.param
    run = tmp_path_factory.mktemp(method)
    where = {**tiny_study.inputs(study), **tiny_study.outputs(run), "work": run / "work", "threads": 1}
    settings = tiny_study.settings(method, max_steps=2, gradient_checkpointing=kind == "prefix")
    script(f"train_{method}")(**where, **{**settings, "matched": matched(kind)})
    return method, kind, tiny_study.outputs(run)


def test_training_moves_virtual_tokens_alone_and_starts_at_its_own_reference(trained) -> None:
    method, kind, run = trained
    start, end = (load_file(run["milestones"] / f"{label}/adapter_model.safetensors") for label in ("0", "1"))
    assert start.keys() == end.keys() == {"prompt_embeddings"}
    assert len(end["prompt_embeddings"]) == 3 and not torch.equal(start["prompt_embeddings"], end["prompt_embeddings"])
    assert sorted(path.name for path in (run["milestones"] / "1").iterdir()) == FILES
    record = json.loads(run["run"].read_text())
    assert record["starts_at"] == "own" and record["trainable_parameters"] == end["prompt_embeddings"].numel()
    first = tables.read(run["history"], "history").filter(step=1)
    logged = dict(first.select("metric", "value").rows())
    if method == "dpo":
        assert math.isclose(logged["loss"], math.log(2), abs_tol=1e-6)
    if method == "grpo":
        assert abs(logged["kl"]) < 1e-9
    assert logged["grad_norm"] > 0


def test_milestones_load_switch_and_fit_plain_peft(trained) -> None:
    _, kind, run = trained
    folders = {label: run["milestones"] / label for label in ("0", "1")}
    both = prompts("qwen2_5_vl")
    policy = load_adapters(vlm.load_model(tiny_models.folder("qwen2_5_vl")), folders)
    found = {}
    for label in (None, "0", "1", None, "0"):
        activate(policy, label)
        with torch.inference_mode():
            logits = policy(**both).logits
        assert torch.equal(found.setdefault(label, logits), logits)
    assert torch.equal(found[None], policy.unload()(**both).logits)
    assert len({float(logits.double().sum()) for logits in found.values()}) == 3
    plain = PeftModel.from_pretrained(vlm.load_model(tiny_models.folder("qwen2_5_vl")), folders["1"])
    saved = load_file(folders["1"] / "adapter_model.safetensors")["prompt_embeddings"]
    assert torch.equal(plain.prompt_encoder["default"].embedding.weight, saved)
    assert {type(p.active_peft_config) for p in (plain, policy)} == {CONFIGS[kind]}


@pytest.mark.parametrize("kind", KINDS)
def test_plain_peft_gives_the_same_logits_where_nothing_of_its_own_is_lost(kind: str, tmp_path: Path) -> None:
    """LLaVA's decoder alone: one axis of positions, no picture, no padding."""
    model = sharpened("llava")
    policy = of_real_tokens(model, kind)
    policy.save_pretrained(tmp_path)
    inputs = {"input_ids": torch.arange(60, 72)[None], "attention_mask": torch.ones(1, 12, dtype=torch.long)}
    with torch.no_grad():
        ours = policy(**inputs).logits
        plain = PeftModel.from_pretrained(policy.unload(), tmp_path)
        theirs = plain(**inputs).logits
    torch.testing.assert_close(ours, theirs[:, -12:], atol=1e-5, rtol=1e-5)


def exact_norm(norm: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """RMSNorm without the model's own detour through float32."""
    return norm.weight * x * (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str, checkpointing: bool) -> None:
    """(f(x + h) − f(x − h)) / 2h of the padded batch's NLL, in float64, for some coordinates of the virtual tokens."""
    model = sharpened("qwen2_5_vl").double()
    for norm in (module for module in model.get_decoder().modules() if type(module).__name__.endswith("RMSNorm")):
        norm.forward = functools.partial(exact_norm, norm)
    both = prompts("qwen2_5_vl").to(torch.float64)
    policy = of_real_tokens(model, kind)
    weight = policy.prompt_encoder["default"].embedding.weight
    weight.data = weight.data.double()
    if checkpointing:
        model.gradient_checkpointing_enable()
        policy.train()

    def nll() -> torch.Tensor:
        logp = policy(**both, use_cache=False).logits[:, -4:-1].log_softmax(-1)
        return -logp.gather(-1, both["input_ids"][:, -3:, None]).sum()

    (gradient,) = torch.autograd.grad(nll(), weight)
    assert gradient.abs().min(1).values.max() > 0
    for place in [(0, 3), (1, 0), (3, 17)]:
        moved = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
                moved.append(nll().item())
                weight[place] -= step
        torch.testing.assert_close((moved[0] - moved[1]) / 2e-5, gradient[place].item(), rtol=1e-5, atol=1e-8)


MODEL = {"model": tiny_models.folder("qwen2_5_vl"), "base": tiny_study.MATCHED.base, "prompt": PROMPT, "threads": 1}


@pytest.fixture(scope="module")
def base(study: Path) -> dict[str, Path]:
    """Val memes, the base's samples of them, and the probes made of these."""
    memes = tables.read(study / "data.parquet", "data").with_columns(split=pl.lit("val", pl.Categorical))
    files = {name: study / f"val_{name}.parquet" for name in ("data", "drawn", "greedy", "samples", "probes")}
    tables.write(memes, files["data"], "data")
    asked = {"data": files["data"], "question": "hateful", **MODEL, "sampling": SAMPLING}
    script("sample_base")(
        **asked, samples=files["drawn"], dataset="memes", scatteritem="1-of-1", work=study / "work/sample"
    )
    sizes, grading = {"sizes": Probes(), "in_domain": "memes"}, {"prompt": PROMPT, "rewards": REWARDS}
    script("greedy_base")(**asked, **sizes, samples=files["greedy"], work=study / "work/greedy")
    script("gather_samples")(shards=[files["drawn"]], data=[files["data"]], samples=files["samples"], **grading)
    made = {"samples": [files["samples"]], "data": [files["data"]], "greedy": files["greedy"]}
    script("build_probes")(**made, model=MODEL["model"], **sizes, **grading, probes=files["probes"], pair_rule="paired")
    return files


@pytest.fixture(scope="module")
def own(trained, base: dict[str, Path]) -> Path:
    """The run's own samples, drawn at every fraction, its start among them."""
    folder = trained[2]["run"].parent
    script("sample_policy")(
        data=[base["data"]], **MODEL, **of_run(trained), samples=folder / "drawn.parquet", method="soft", seed="1",
        scatteritem="1-of-1", questions=QUESTIONS, sampling=SAMPLING, own=OwnSamples(milestones=4),
        fractions=[0.0, 1.0], in_domain="memes", work=folder / "work/own",
    )  # fmt: skip
    grading = {"prompt": PROMPT, "rewards": REWARDS}
    shards = {"shards": [folder / "drawn.parquet"], "samples": folder / "own.parquet"}
    script("gather_samples")(**shards, data=[base["data"]], **grading)
    return folder / "own.parquet"


def of_run(trained) -> dict[str, Path]:
    return {name: trained[2][name] for name in ("milestones", "run")}


SFT = pytest.mark.parametrize("trained", [("sft", kind) for kind in KINDS], indirect=True)


@SFT
def test_a_run_is_scored_at_its_own_start_and_as_it_was_sampled(trained, own: Path, base: dict[str, Path]) -> None:
    folder = own.parent
    outputs = {name: folder / f"{name}/soft/seed1/1-of-1.parquet" for name in ("traces", "responses")}
    for path in outputs.values():
        path.parent.mkdir(parents=True)
    script("score")(
        **MODEL, **of_run(trained), probes=base["probes"], data=[base["data"]], own=own, **outputs,
        scatteritem="1-of-1", questions=QUESTIONS, scoring=Scoring(batch_size=3), fractions=[0.0, 1.0],
        pair_rule="paired", work=folder / "work/score",
    )  # fmt: skip
    responses = tables.read(outputs["responses"], "responses")
    assert set(responses["fraction"]) == {0.0, 1.0}
    means = responses.filter(probe_kind="base_sample").group_by("fraction").agg(pl.col("kl_forward").mean())
    # The tiny model hardly attends; KL between equal policies is below 1e-9.
    assert means["kl_forward"].min() > 1e-5
    keys = ["fraction", "dataset", "split", "id", "sample"]
    drawn = tables.read(own, "samples").select(*keys, stored="logp", stored_p="p_hateful")
    both = responses.filter(probe_kind="own_sample").join(drawn, keys)
    assert len(both) == len(drawn) > 0
    assert (both["logp"] - both["stored"]).abs().max() < 1e-4
    assert (both["p_hateful"] - both["stored_p"]).abs().max() < 1e-4
    of_base = tables.read(base["samples"], "samples").select(*keys[1:], stored="logp")
    both = responses.filter(probe_kind="base_sample").join(of_base, keys[1:])
    assert (both["ref_logp"] - both["stored"]).abs().max() < 1e-4 < (both["logp"] - both["stored"]).abs().max()
    run = folder / "runs/soft/seed1/run.json"
    run.parent.mkdir(parents=True)
    record = json.loads(trained[2]["run"].read_text())
    run.write_text(json.dumps({**record, "steps": {label: record["steps"][label] for label in ("0", "1")}}))
    given = {name: [path] for name, path in outputs.items()}
    script("kl")(**given, runs=[run], data=[base["data"]], table=folder / "kl.parquet", resamples=20)
    whole = {"statistic": "per_response", "estimator": "exact", "span": "all", "reference": "base"}
    values = tables.read(folder / "kl.parquet", "kl").filter(**whole, fraction=0.0)
    assert set(values["probe_kind"]) == {"base_sample", "own_sample"} and values["value"].min() > 1e-5


@SFT
def test_every_extraction_takes_the_run(trained, own: Path, base: dict[str, Path]) -> None:
    """Attention and contributions as for any run; what needs factors or weights says why it has none."""
    folder = own.parent
    shared = {**MODEL, **of_run(trained), "data": [base["data"]], "questions": QUESTIONS, "fractions": [0.0, 1.0]}
    sampled = {"base_samples": [base["samples"]], "extract": folder / "extract.parquet"}
    script("extract_attention")(
        **shared, **sampled, settings=Attention(memes=4, kept=2, noise=[8], batch_size=2), max_new_tokens=4,
        work=folder / "work/attention",
    )  # fmt: skip
    looks = tables.read(folder / "extract.parquet", "extract_attention").filter(pl.col("head") == "mean")
    assert set(looks["fraction"]) == {0.0, 1.0} and set(looks["policy"]) == {"trained"}
    shares = [name for name in looks.columns if name.startswith("share_")]
    assert (looks.select(pl.sum_horizontal(shares)).to_series() - 1).abs().max() < 1e-5
    script("extract_sharpe")(
        **shared, probes=base["probes"], extract=folder / "sharpe.parquet", signal=folder / "signal.parquet",
        settings=Sharpe(memes=4, batch_size=2), adapter=Adapter(kind=trained[1]), in_domain="memes",
        work=folder / "work/sharpe",
    )  # fmt: skip
    found = tables.read(folder / "sharpe.parquet", "extract_sharpe")
    assert set(found["fraction"]) == {0.0, 1.0} and found["phi"].is_finite().all() and found["phi"].abs().max() > 0
    assert tables.read(folder / "signal.parquet", "extract_signal").is_empty()
    script("extract_gradients")(
        **shared, **sampled, own=own, settings=Gradients(memes=3, batch_size=2), adapter=Adapter(kind=trained[1]),
        sampling_seed=0, beta=0.1, group=2, in_domain="memes", work=folder / "work/gradients",
    )  # fmt: skip
    assert tables.read(folder / "extract.parquet", "extract_gradients")["missing"].null_count() == 0


@pytest.mark.parametrize("method", ["dpo", "kto", "grpo", "rloo", "em"])
@pytest.mark.parametrize("kind", KINDS)
def test_preflight_holds_against_the_runs_own_start(
    kind: str, method: str, study: Path, base: dict[str, Path], tmp_path: Path
) -> None:
    settings = tiny_study.settings(method, gradient_checkpointing=kind == "prefix")
    where = {**tiny_study.inputs(study), "samples": base["samples"], "report": tmp_path / "report.json"}
    script("preflight")(
        **where, method=settings["method"], matched=matched(kind), threads=1, work=tmp_path, rewards=REWARDS,
        sampling=SAMPLING,
    )  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text())
    assert report.pop("crc32")
    assert set(report) == {"sampled", "scored", "adapter_off", "prompts", "reloaded"} | OWN[method]
    assert report["adapter_off"]["value"] == 0 and all(found["ok"] for found in report.values())


def test_an_adapter_beside_the_active_one_is_frozen_and_can_be_removed() -> None:
    model = sharpened("llava")
    policy = soft_prompts.fresh(model, Adapter(kind="prompt", tokens=2), 3)
    policy.add_adapter("ref", policy.peft_config["default"])
    assert [name for name, p in policy.named_parameters() if p.requires_grad] == [
        "prompt_encoder.default.embedding.weight"
    ]
    policy.set_adapter("ref")
    assert policy.active_adapter == "ref"
    policy.set_adapter("default")
    policy.delete_adapter("ref")
    again = soft_prompts.fresh(policy.unload(), Adapter(kind="prompt", tokens=2), 3)
    other = soft_prompts.fresh(again.unload(), Adapter(kind="prompt", tokens=2), 4)
    drawn = [p.prompt_encoder["default"].embedding.weight for p in (policy, again, other)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_prompt_of_text_begins_with_its_embeddings() -> None:
    model = vlm.load_model(tiny_models.folder("llava"))
    options = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "Is it hateful?"}
    policy = soft_prompts.fresh(model, Adapter(kind="prompt", tokens=3, options=options), 0)
    ids = vlm.load_processor(tiny_models.folder("llava")).tokenizer("Is it hateful?")["input_ids"][:3]
    assert torch.equal(policy.prompt_encoder["default"].embedding.weight, model.get_input_embeddings().weight[ids])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prefix_projection": True},
            "prefix_projection: prompt tuning has no such option; it takes prompt_tuning_init,",
        ),
        ({"prompt_tuning_init": "VOCAB"}, "prompt_tuning_init 'VOCAB': is none of RANDOM, SAMPLE_VOCAB, TEXT"),
        ({"prompt_tuning_init": "TEXT"}, "prompt_tuning_init_text can't be None"),
    ],
)
def test_options_that_are_none_of_its_are_refused(options: dict, message: str) -> None:
    model = vlm.load_model(tiny_models.folder("llava"))
    with pytest.raises(InputError, match=message):
        soft_prompts.fresh(model, Adapter(kind="prompt", tokens=3, options=options), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_from_a_checkpoint_and_from_another_runs_end(kind: str, study: Path, tmp_path: Path) -> None:
    """DPO, whose frozen copy of the start lies in its checkpoints too; then a second run that begins at its end."""
    first, again, second = (tmp_path / f"{name}/seed1" for name in ("first", "again", "second"))

    def train(run: Path, **given: object) -> torch.Tensor:
        run.mkdir(parents=True, exist_ok=True)
        where = {**tiny_study.inputs(study), **tiny_study.outputs(run), "work": run / "work", "threads": 1, **given}
        settings = tiny_study.settings("dpo", max_steps=4, save_steps=2)
        script("train_dpo")(**where, **{**settings, "matched": matched(kind)})
        return load_file(run / "milestones/1/adapter_model.safetensors")["prompt_embeddings"]

    end = train(first)
    shutil.copytree(first / "work", again / "work")
    shutil.rmtree(again / "work/checkpoints/checkpoint-4")
    assert torch.equal(train(again), end)
    train(second, start=first / "milestones")
    begun = load_file(second / "milestones/0/adapter_model.safetensors")["prompt_embeddings"]
    assert torch.equal(begun, end)
    records = [json.loads((run / "run.json").read_text()) for run in (first, second)]
    assert [record["starts_at"] for record in records] == ["own", "first"]
    assert [record["loss_reference"] for record in records] == ["own", "first"]
    history = tables.read(second / "history.parquet", "history")
    assert math.isclose(history.filter(metric="loss")["value"][0], math.log(2), abs_tol=1e-6)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"kind": "base"}, [0.0, 1.0]),
        ({"kind": "adapter"}, [1.0]),
        ({"kind": "full", "starts_at": "base"}, [1.0]),
        ({"kind": "adapter", "starts_at": "own"}, [0.0, 1.0]),
        ({"kind": "adapter", "starts_at": "sft"}, [0.0, 1.0]),
    ],
)
def test_a_start_away_from_the_base_is_scored(record: dict, expected: list[float]) -> None:
    assert milestones.scored([0.0, 0.5, 1.0], {**record, "steps": {"0": 0, "1": 8}}) == expected


def test_windows_begin_at_a_runs_own_start_where_it_has_one() -> None:
    """Accuracy of one meme: base .5, away .1 at its own start and .3 at the end: mean .2; chained to the base: .4."""
    meme = {"dataset": "d", "split": "val", "id": "a"}
    rows = [("base", None, 0.0, 0.5), ("away", 1, 0.0, 0.1), ("away", 1, 1.0, 0.3), ("near", 1, 1.0, 0.3)]
    answers = pl.DataFrame(
        [{"method": m, "seed": s, "fraction": f, "x": x, **meme} for m, s, f, x in rows],
        schema_overrides={"seed": pl.Int32},
    )
    found = [("away", 1, 0.0), ("away", 1, 1.0), ("near", 1, 0.0), ("near", 1, 1.0), ("base", None, 0.0)]
    runs = pl.DataFrame(found, schema={"method": pl.String, "seed": pl.Int32, "fraction": pl.Float64}, orient="row")
    means = dict(reward_gaps._between(answers, runs, ["x"]).select("method", "x").rows())
    assert means == pytest.approx({"away": 0.2, "near": 0.4})


def test_half_precision_agrees_on_both_code_paths() -> None:
    model = sharpened("qwen2_5_vl").bfloat16()
    policy = soft_prompts.fresh(model, Adapter(kind="prompt", tokens=4), 0).eval()
    assert policy.prompt_encoder["default"].embedding.weight.dtype == torch.float32
    both = prompts("qwen2_5_vl").to(torch.bfloat16)
    with torch.no_grad():
        whole = vlm.hidden_states(policy, **both).last_hidden_state[:, -1]
        shared = prefill(policy, both).last_hidden
    assert whole.dtype == torch.bfloat16
    torch.testing.assert_close(whole, shared, atol=0.05, rtol=0.05)
