"""GRPO's variants, RLOO and KTO: their losses by their papers' formulas, what they are fed, and that they train."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
import torch
from torch import Tensor
from transformers import Trainer
from trl import GRPOConfig, KTOTrainer, RLOOConfig

import test_invariants
import test_resume
import tiny_models
import tiny_study
from memedynamics import inventory, tables
from memedynamics import runs as runs_module
from memedynamics.config import Adapter, Sampling
from memedynamics.errors import InputError
from memedynamics.examples import training_rows, unpaired
from memedynamics.grpo_variants import VARIANTS
from memedynamics.images import open_image
from memedynamics.methods import GRPO, ON_POLICY, TrainedMethod
from memedynamics.rewards import reward_functions
from memedynamics.rollouts import left_out, recorded
from memedynamics.trainer_arguments import CONFIGS
from memedynamics.training import boundary, check_args, defaults, trainer, trainer_config
from memedynamics.vlm import encode, load_model, load_processor
from test_inventory import study as a_study
from tiny_study import PROMPT, REWARDS, train, write_study

NEW = (*(kind for kind in GRPO if kind != "grpo"), "rloo", "kto")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with samples of the base model itself, as preflight needs them."""
    folder = write_study(tmp_path_factory.mktemp("sampled"), 6)
    test_invariants.write_samples(folder, "qwen2_5_vl")
    return folder


@pytest.fixture(scope="module")
def runs(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("runs")
    # Random completions all are truncated, and so left out by DAPO.
    own = {"dapo": {"mask_truncated_completions": False}}
    return {kind: train(kind, study, folder / kind, max_steps=2, **own.get(kind, {})) for kind in NEW}


def make(kind: str, study: Path, work: Path, **args: object) -> tuple[Trainer, pl.DataFrame]:
    """A trainer as the scripts make it, and the rows it trains on."""
    tables_of = (tables.read(study / f"{name}.parquet", name) for name in ("preferences", "data"))
    rows = training_rows(*tables_of, PROMPT, "hateful", "paired")
    given = {"per_device_train_batch_size": 8, "gradient_checkpointing": False, **args}
    weights = REWARDS if kind in ON_POLICY else None
    config = trainer_config(kind, given, work, 1, sampling=Sampling(max_new_tokens=8), weights=weights)
    family = tiny_models.folder("qwen2_5_vl")
    graders = recorded(reward_functions(REWARDS, PROMPT), config, work / "rollouts") if weights else None
    return trainer(config, load_model(family), load_processor(family), rows, Adapter(r=4), graders), rows


# A batch of two responses, of 3 and 2 tokens: log π, log π_old, log π0 of their tokens, and their advantages. Every
# clip matters: ratios are e^.5 = 1.65, e^−.5 = .61, e^.1, and e^−.4 = .67, e^.3 = 1.35.
NEW_LOGPS = [[-0.5, -1.5, -0.9], [-1.4, -0.7]]
OLD_LOGPS = [[-1.0, -1.0, -1.0], [-1.0, -1.0]]
REF_LOGPS = [[-0.8, -1.2, -1.0], [-1.1, -0.9]]
ADVANTAGES = [1.2, -0.7]
# Tokens of the whole step, whose other half lies in another micro-batch; and the longest a response can be.
TOKENS, LONGEST = 10, 8


def clipped(ratio: float, advantage: float, low: float, high: float) -> float:
    return min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def each() -> list[tuple[float, list[tuple[float, float, float]]]]:
    """(advantage, its tokens' (ratio, log π, log π0 − log π)) of both responses."""
    rows = zip(ADVANTAGES, NEW_LOGPS, OLD_LOGPS, REF_LOGPS, strict=True)
    return [
        (a, [(math.exp(x - o), x, r - x) for x, o, r in zip(new, old, ref, strict=True)]) for a, new, old, ref in rows
    ]


def whole(tokens: list[tuple[float, float, float]], power: float) -> float:
    """The ratio of a response, Π ratio^power."""
    return math.exp(power * sum(math.log(ratio) for ratio, *_ in tokens))


def grpo() -> float:
    """−1/N Σ 1/|y| Σ_t [min(ρA, clip(ρ, .8, 1.2) A) − .04 (π0/π − log π0/π − 1)]."""
    terms = [
        sum(clipped(ratio, a, 0.2, 0.2) - 0.04 * (math.exp(d) - d - 1) for ratio, _, d in tokens) / len(tokens)
        for a, tokens in each()
    ]
    return -sum(terms) / 2


def summed(low: float, high: float) -> float:
    """Σ_i Σ_t min(ρA, clip(ρ) A)."""
    return sum(clipped(ratio, a, low, high) for a, tokens in each() for ratio, *_ in tokens)


def gspo(low: float, high: float, by_length: bool) -> float:
    """−1/N Σ |y|^b min(sA, clip(s) A), s the geometric mean of a response's ratios."""
    weights = [(a, len(tokens) if by_length else 1, whole(tokens, 1 / len(tokens))) for a, tokens in each()]
    return -sum(length * clipped(ratio, a, low, high) for a, length, ratio in weights) / 2


def sapo() -> float:
    """−1/N Σ 1/|y| Σ_t 4/τ σ(τ (ρ − 1)) A, τ = 1 where A > 0, else 1.05."""
    total = 0.0
    for a, tokens in each():
        tau = 1.0 if a > 0 else 1.05
        total += sum(4 / tau / (1 + math.exp(-tau * (ratio - 1))) * a for ratio, *_ in tokens) / len(tokens)
    return -total / 2


def vespo() -> float:
    """−1/T Σ φ(w) A Σ_t log π, φ(w) = w^k e^(λ(1 − w)), w the product of the ratios; (k, λ) = (2, 3), (3, 2)."""
    total = 0.0
    for a, tokens in each():
        k, decay = (2, 3) if a >= 0 else (3, 2)
        w = whole(tokens, 1)
        total += w**k * math.exp(decay * (1 - w)) * a * sum(logp for _, logp, _ in tokens)
    return -total / TOKENS


EXPECTED: dict[str, Callable[[], float]] = {
    "grpo": grpo,
    "dr_grpo": lambda: -summed(0.2, 0.2) / (2 * LONGEST),  # a constant length, whatever the responses'
    "bnpo": lambda: -summed(0.2, 0.2) / 5,  # the micro-batch's own 5 tokens
    "dapo": lambda: -summed(0.2, 0.28) / TOKENS,  # all tokens of the step, and a higher upper clip
    "cispo": lambda: -sum(min(ratio, 5.0) * a * logp for a, tokens in each() for ratio, logp, _ in tokens) / TOKENS,
    "gspo": lambda: gspo(3e-4, 4e-4, by_length=False),
    "luspo": lambda: gspo(2e-3, 2.5e-3, by_length=True),
    "sapo": sapo,
    "vespo": vespo,
}


def padded(rows: list[list[float]]) -> Tensor:
    return torch.tensor([[*row, *[0.0] * (3 - len(row))] for row in rows], dtype=torch.float64)


def loss_of(made: Trainer, new: Tensor, old: Tensor) -> Tensor:
    """TRL's own loss of the batch above, where the model gives its tokens the log-probabilities `new`."""
    made._get_per_token_logps_and_entropies = lambda *args, **kwargs: (new, torch.ones_like(new), None)
    made.current_gradient_accumulation_steps = 1
    made.model.train()
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    ids = torch.ones(2, 3, dtype=torch.long)
    batch = {"prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": mask}
    batch |= {"advantages": torch.tensor(ADVANTAGES, dtype=torch.float64), "num_items_in_batch": torch.tensor(TOKENS)}
    batch |= {"old_per_token_logps": old, "ref_per_token_logps": padded(REF_LOGPS), "old_logps": (old * mask).sum(1)}
    return made._compute_loss(made.model, batch)


@pytest.fixture(scope="module")
def variants(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trainer]:
    folder = tmp_path_factory.mktemp("variants")
    return {kind: make(kind, study, folder / kind, num_generations=2)[0] for kind in GRPO}


@pytest.mark.parametrize("kind", GRPO)
def test_losses_are_the_papers(kind: str, variants: dict[str, Trainer]) -> None:
    loss = loss_of(variants[kind], padded(NEW_LOGPS), padded(OLD_LOGPS))
    assert loss.item() == pytest.approx(EXPECTED[kind](), rel=1e-6)  # TRL keeps τ in float32
    assert set(EXPECTED) == set(GRPO) and len({round(function(), 9) for function in EXPECTED.values()}) == len(GRPO)


def test_cispo_keeps_the_gradient_of_tokens_that_grpo_clips(variants: dict[str, Trainer]) -> None:
    """Ratio 1.65 at A = 1.2: the clip leaves grpo the KL term's gradient, β(1 − π0/π) / (N |y|) =
    .04 (1 − e^−.3) / 6 = .001728; cispo's is −ρ A / tokens = −1.6487 · 1.2 / 10 = −.19785.
    """
    gradients = {}
    for kind in ("grpo", "cispo"):
        new = padded(NEW_LOGPS).requires_grad_()
        loss_of(variants[kind], new, padded(OLD_LOGPS)).backward()
        gradients[kind] = new.grad[0, 0].item()
    assert gradients["grpo"] == pytest.approx(0.001728, abs=1e-6)
    assert gradients["cispo"] == pytest.approx(-0.19785, abs=1e-5)


@pytest.mark.parametrize("kind", ["gspo", "sapo"])
def test_what_differs_in_ratios_alone_is_one_method_on_fresh_responses(kind: str, variants: dict[str, Trainer]) -> None:
    """At ratio 1 both have the gradient −A / (N |y|) of GRPO without KL: −1.2 / 6 and .7 / 4."""
    new = padded(NEW_LOGPS).requires_grad_()
    loss_of(variants[kind], new, new.detach()).backward()
    expected = [[-0.2, -0.2, -0.2], [0.175, 0.175, 0.0]]
    assert torch.allclose(new.grad, torch.tensor(expected, dtype=torch.float64), atol=1e-12)


def test_variants_are_named_by_their_arguments() -> None:
    """Every kind has a config and defaults of its own; a user's arguments override them."""
    assert set(get_args(TrainedMethod.model_fields["kind"].annotation)) | {"em", "reward_model"} == set(CONFIGS)
    assert all(CONFIGS[kind] is GRPOConfig for kind in GRPO)
    arguments = {kind: defaults()[kind] for kind in GRPO}
    assert all(arguments[kind]["use_bias_correction_kl"] is False for kind in GRPO)
    assert [kind for kind in GRPO if arguments[kind]["beta"]] == ["grpo"]
    assert arguments["dr_grpo"]["scale_rewards"] == "none" and arguments["dapo"]["mask_truncated_completions"] is True
    config = trainer_config("dapo", {"epsilon_high": 0.5, "beta": 0.01}, Path("unused"))
    assert (config.epsilon_high, config.beta, config.loss_type) == (0.5, 0.01, "dapo")
    assert all(name in GRPOConfig.__dataclass_fields__ for own in VARIANTS.values() for name in own)


def test_rloo_by_hand(study: Path, tmp_path: Path) -> None:
    """Rewards 1, 0, 0, 3: each less the mean of the other three, 1 − 1, 0 − 4/3, 0 − 4/3, 3 − 1/3.

    The loss weighs the ratio of whole responses, Π ρ: e^.1 at A = 1.2 and e^−.1 at −.7, neither of them clipped.
    """
    assert left_out(torch.tensor([1.0, 0.0, 0.0, 3.0]), 4).tolist() == pytest.approx([0, -4 / 3, -4 / 3, 8 / 3])
    made, _ = make("rloo", study, tmp_path, num_generations=2)
    loss = loss_of(made, padded(NEW_LOGPS), padded(OLD_LOGPS))
    assert loss.item() == pytest.approx(-(math.exp(0.1) * 1.2 - math.exp(-0.1) * 0.7) / 2, rel=1e-9)


@pytest.mark.parametrize("options", [{}, {"normalize_advantages": True}, {"reward_clip_range": [0.5, 1.5]}])
def test_rloos_recorded_advantages_are_those_trl_trains_on(options: dict, study: Path, tmp_path: Path) -> None:
    """At the first step the policy is the reference, so that no KL is taken off the rewards."""
    made, _ = make("rloo", study, tmp_path, num_generations=4, max_steps=1, **options)
    made.train()
    found = tables.read(next((tmp_path / "rollouts").glob("*.parquet")), "rollouts")
    assert found["advantage"].to_list() == pytest.approx(list(made._logs["advantages"]), abs=1e-5)
    assert found["advantage"].abs().max() > 0.1


def test_kto_rows_stand_between_other_prompts() -> None:
    """6 pairs: 12 rows, chosen and rejected in turns, each response once, and no prompt beside itself, wherever a batch
    of any even size ends (its first row's KL is measured on its last row's response).
    """
    rows = pl.DataFrame({"id": list("abcdef"), "chosen": list("ABCDEF"), "rejected": list("UVWXYZ")})
    found = unpaired(rows, seed=3)
    assert found["desirable"].to_list() == [True, False] * 6
    assert sorted(found["response"]) == sorted([*rows["chosen"], *rows["rejected"]])
    answers = dict(zip(rows["id"], zip(rows["chosen"], rows["rejected"], strict=True), strict=True))
    assert all(row["response"] == answers[row["id"]][not row["desirable"]] for row in found.to_dicts())
    assert all(one != other for one, other in pairwise(found["id"]))
    for size in (2, 4, 6):
        batches = [found["id"][start : start + size] for start in range(0, 12, size)]
        assert all(batch[0] != batch[-1] for batch in batches)
    assert unpaired(rows, seed=3).equals(found) and not unpaired(rows, seed=4).equals(found)


def test_kto_feeds_sampled_prompts_and_one_end_token(study: Path, tmp_path: Path) -> None:
    """Prompt ids and pictures are `encode`'s; its KL rows have the same prompts and the neighbour's response."""
    made, rows = make("kto", study, tmp_path)
    assert isinstance(made, KTOTrainer)
    examples = unpaired(rows, 1).head(4)
    batch = made.data_collator([made.train_dataset[n] for n in range(4)])
    processor = made.processing_class
    images = [open_image(Path(path)) for path in examples["image"]]
    expected = encode(processor, examples["content"].to_list(), images)
    words, end = processor.tokenizer, processor.tokenizer("<|im_end|>").input_ids
    replies = [words(text, add_special_tokens=False).input_ids + end for text in examples["response"]]
    masks = zip(expected.input_ids, expected.attention_mask, strict=True)
    prompts = [ids[mask.bool()].tolist() for ids, mask in masks]
    assert len(end) == 1 and torch.equal(batch["pixel_values"], expected.pixel_values)
    for prefix, order in (("", [0, 1, 2, 3]), ("KL_", [3, 0, 1, 2])):
        masks = zip(batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"], strict=True)
        fed = [ids[mask.bool()].tolist() for ids, mask in masks]
        assert fed == [prompt + replies[n] for prompt, n in zip(prompts, order, strict=True)]
    assert batch["label"].tolist() == [True, False, True, False]


@pytest.mark.parametrize("kind", NEW)
def test_they_train(kind: str, runs: dict[str, dict[str, Path]]) -> None:
    """Two steps: the adapter moved, everything is logged, and what was drawn is on record."""
    made = runs[kind]
    run = json.loads(made["run"].read_text())
    history = tables.read(made["history"], "history")
    first, last = ((made["milestones"] / name / "adapter_model.safetensors").read_bytes() for name in ("0", "1"))
    assert run["total_steps"] == 2 and first != last
    assert history.filter(metric="loss")["step"].to_list() == [1, 2]
    rollouts = tables.read(made["rollouts"], "rollouts")
    assert len(rollouts) == (0 if kind == "kto" else 16)
    shown = {"kto": "rewards/margins", "rloo": "kl"}.get(kind, "reward")
    assert shown in history["metric"].to_list()


def test_all_start_from_one_adapter(runs: dict[str, dict[str, Path]]) -> None:
    starts = {(made["milestones"] / "0/adapter_model.safetensors").read_bytes() for made in runs.values()}
    assert len(starts) == 1


def test_operations_of_each_method(runs: dict[str, dict[str, Path]]) -> None:
    """In forward passes: KTO 2, 1 of the reference and 1 of each for its KL; RLOO 1 to sample, 1 of log π_old, 2, and
    1 of the reference; variants without KL 1 and 2.
    """
    parameters = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32 + 64) + 32
    for kind, made in runs.items():
        record = json.loads(made["run"].read_text())
        passes = {"kto": 5, "rloo": 5}.get(kind, 3)
        assert record["flops"] == passes * 2 * parameters * record["tokens"], kind


@pytest.mark.parametrize(("kind", "own"), [
    ("kto", {"kto_margin", "kto_kl", "kto_loss"}), ("rloo", {"rloo_kl"}), ("dapo", {"grpo_kl"}),
])  # fmt: skip
def test_step_0_is_the_reference(kind: str, own: set[str], sampled: Path, tmp_path: Path) -> None:
    """KTO: −log-ratios and KL are 0, so every term is λ (1 − σ(0)) = ½ at λ = 1; RLOO and variants: KL 0."""
    report = test_invariants.preflight(kind, sampled, tmp_path)
    assert set(report) == test_invariants.COMMON | own
    assert all(found["ok"] for found in report.values())
    assert all(report[name]["value"] < 1e-6 for name in own) and report["prompts"]["value"] == 0


def test_step_0_of_a_family_whose_generation_drops_a_mask_of_ones(tmp_path: Path) -> None:
    """LLaVA's prompts here are equally long: `generate` then hands on no mask."""
    folder = write_study(tmp_path, 6)
    test_invariants.write_samples(folder, "llava")
    report = test_invariants.preflight("rloo", folder, tmp_path, "llava")
    assert report["rloo_kl"]["value"] < 1e-6 and report["prompts"]["value"] == 0


def test_ktos_first_loss_follows_its_weights(study: Path, tmp_path: Path) -> None:
    """Half the rows weigh 2, half 1, each times ½: (2 + 1) / 4 = .75."""
    made, _ = make("kto", study, tmp_path, max_steps=1, desirable_weight=2.0)
    made.train()
    assert made.state.log_history[0]["loss"] == pytest.approx(0.75, abs=1e-4)


def test_rloo_resumes_where_its_completions_are_used_up(tmp_path: Path) -> None:
    """4 micro-batches a generation, each used twice, 2 micro-batches a step: 4 · 2 / 2 = 4 steps."""
    args = {"steps_per_generation": 4, "num_iterations": 2, "gradient_accumulation_steps": 2}
    assert boundary(trainer_config("rloo", args, tmp_path)) == 4
    names = [type(hook).__name__ for hook in hooks("rloo", tmp_path)]
    assert "Epochs" in names and "Epochs" not in [type(hook).__name__ for hook in hooks("kto", tmp_path)]
    assert next(hook for hook in hooks("rloo", tmp_path) if hasattr(hook, "counts_on")).counts_on


@pytest.mark.parametrize(("kind", "batch"), [("kto", 12), ("rloo", 24)])
def test_a_stopped_run_ends_like_an_uninterrupted_one(
    kind: str, batch: int, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """36 rows by 12, and 18 prompts by 6: three steps an epoch, so that one stopped at step 5 was in its second."""
    args = {"per_device_train_batch_size": batch}
    whole = train(kind, study, tmp_path / "whole", **args)
    added = runs_module.hooks
    with monkeypatch.context() as patch:
        patch.setattr(runs_module, "hooks", lambda *given: [*added(*given), test_resume.Terminate()])
        with pytest.raises(InputError, match="training was stopped at step 5 of 6; run it again"):
            train(kind, study, tmp_path / "stopped", **args)
    test_resume.same(train(kind, study, tmp_path / "stopped", **args), whole)


def hooks(kind: str, folder: Path) -> list:
    return runs_module.hooks(kind, trainer_config(kind, {}, folder), [0, 1], folder, folder / "run.json")


@pytest.mark.parametrize(("kind", "args"), [("kto", {"num_train_epochs": 1}), ("rloo", {"num_train_epochs": 1})])
def test_trainings_take_as_many_steps_as_planned(kind: str, args: dict, study: Path, tmp_path: Path) -> None:
    """18 pairs by 8: KTO's 36 rows take ceil(36 / 8) = 5 steps, RLOO's 18 prompts by 2 a step 9."""
    run = json.loads(train(kind, study, tmp_path, **args)["run"].read_text())
    raw = {kind: {"kind": kind, "args": {**tiny_study.OWN[kind], **args}}}
    planned = inventory.schedules(a_study(raw, training=tiny_study.SHARED), defaults(), 24, 18)
    assert planned[kind].total_steps == run["total_steps"] == {"kto": 5, "rloo": 9}[kind]


def test_bad_arguments_say_what_to_change() -> None:
    with pytest.raises(InputError, match="per_device_train_batch_size: 3 of a kto method.* make it even"):
        check_args("kto", {"per_device_train_batch_size": 3})
    with pytest.raises(InputError, match="num_generations: 8 does not divide the generation batch of 4 completions"):
        check_args("rloo", {"per_device_train_batch_size": 4})
    with pytest.raises(InputError, match="trainer argument loss_typ: GRPOConfig has no such argument; nearest is loss"):
        check_args("dapo", {"loss_typ": "dapo"})
    with pytest.raises(InputError, match="trainer argument scale_rewards: RLOOConfig has no such argument"):
        check_args("rloo", {"scale_rewards": "none"})
    assert CONFIGS["rloo"] is RLOOConfig
