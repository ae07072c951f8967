"""Training: the sampled bytes, the shared adapter, TRL's numbers, and what a bad argument is told."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from peft import PeftModel, get_peft_model
from polars.testing import assert_frame_equal
from safetensors.torch import load_file
from torch import nn
from transformers.utils import ModelOutput

import tiny_models
from memedynamics import live, tables
from memedynamics import runs as runs_module
from memedynamics.adapters import peft_config
from memedynamics.config import Adapter, Sampling
from memedynamics.errors import InputError
from memedynamics.examples import end_token, training_rows
from memedynamics.images import open_image
from memedynamics.rewards import reward_functions
from memedynamics.rollouts import group_advantages, recorded
from memedynamics.training import boundary, check_args, defaults, loss_reference, trainer, trainer_config
from memedynamics.vlm import encode, load_model, load_processor
from tiny_study import PROMPT, REWARDS, outputs, train, vowels, write_study

KINDS = ("sft", "dpo", "grpo", "rft", "em")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def runs(study: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("runs")
    return {kind: train(kind, study, folder / kind) for kind in KINDS}


def make(kind: str, study: Path, family: str, work: Path, rewards: list[Callable] | None = None, **args: object):
    """A trainer as the scripts make it, and the rows it trains on."""
    rows = training_rows(*tables_of(study), PROMPT, "hateful", "paired")
    given = {"per_device_train_batch_size": 8, "gradient_checkpointing": False, **args}
    weights = REWARDS if kind == "grpo" else None
    config = trainer_config(kind, given, work, 1, sampling=Sampling(max_new_tokens=8), weights=weights)
    model, processor = load_model(tiny_models.folder(family)), load_processor(tiny_models.folder(family))
    if kind == "grpo":
        rewards = recorded(rewards or reward_functions(REWARDS, PROMPT), config, work / "rollouts")
    return trainer(config, model, processor, rows, Adapter(r=4), rewards), rows


def tables_of(study: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    return tables.read(study / "preferences.parquet", "preferences"), tables.read(study / "data.parquet", "data")


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_prompts_and_pictures_are_those_of_sampling(family: str, study: Path, tmp_path: Path) -> None:
    """SFT's, DPO's and GRPO's prompt token ids and pixels equal `encode`'s; responses end with one end token."""
    sft, rows = make("sft", study, family, tmp_path / "sft")
    dpo, _ = make("dpo", study, family, tmp_path / "dpo")
    grpo, _ = make("grpo", study, family, tmp_path / "grpo", num_generations=2)
    processor, words = sft.processing_class, sft.processing_class.tokenizer
    first = rows.head(2)
    expected = encode(processor, first["content"].to_list(), [open_image(Path(p)) for p in first["image"]])
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(expected.input_ids, expected.attention_mask, strict=True)]
    end = words(end_token(sft.model, processor), add_special_tokens=False).input_ids
    assert len(end) == 1

    def full(texts: list[str]) -> list[list[int]]:
        return [p + words(t, add_special_tokens=False).input_ids + end for p, t in zip(prompts, texts, strict=True)]

    batch = sft.data_collator([sft.train_dataset[0], sft.train_dataset[1]])
    assert unpadded(batch) == full(first["chosen"].to_list())
    assert torch.equal(batch["pixel_values"], expected.pixel_values)
    labelled = [ids[mask != -100].tolist() for ids, mask in zip(batch["input_ids"], batch["labels"], strict=True)]
    assert labelled == [whole[len(p) :] for whole, p in zip(unpadded(batch), prompts, strict=True)]

    batch = dpo.data_collator([dpo.train_dataset[0], dpo.train_dataset[1]])
    assert unpadded(batch)[:2] == full(first["chosen"].to_list())
    prompts_twice, responses = prompts * 2, [*first["chosen"], *first["rejected"]]
    assert unpadded(batch)[2:] == [
        p + words(t, add_special_tokens=False).input_ids + end
        for p, t in zip(prompts_twice[2:], responses[2:], strict=True)
    ]

    batch = [grpo.train_dataset[0], grpo.train_dataset[1]]
    drawn = grpo._generate_and_score_completions(batch)
    masks = zip(drawn["prompt_ids"], drawn["prompt_mask"], strict=True)
    assert [ids[mask.bool()].tolist() for ids, mask in masks] == prompts
    assert torch.equal(drawn["pixel_values"], expected.pixel_values)


def unpadded(batch: dict[str, torch.Tensor]) -> list[list[int]]:
    pairs = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in pairs]


def test_all_methods_start_from_one_adapter(runs: dict[str, dict[str, Path]], study: Path, tmp_path: Path) -> None:
    """One seed, one initialisation, whatever the method; another seed, another."""
    start = {kind: (runs[kind]["milestones"] / "0/adapter_model.safetensors").read_bytes() for kind in KINDS}
    assert all(start[kind] == start["sft"] for kind in KINDS)
    other = train("sft", study, tmp_path, seed=2, max_steps=1)
    assert (other["milestones"] / "0/adapter_model.safetensors").read_bytes() != start["sft"]


@pytest.mark.parametrize("kind", KINDS)
def test_milestones_are_peft_folders_in_which_all_and_only_the_adapter_moved(
    kind: str, runs: dict[str, dict[str, Path]]
) -> None:
    folder = runs[kind]["milestones"]
    assert sorted(path.name for path in folder.iterdir()) == ["0", "0.0625", "0.125", "0.5", "1"]
    first, last = (load_file(folder / label / "adapter_model.safetensors") for label in ("0", "1"))
    assert first.keys() == last.keys()
    assert all("lora_" in name and "visual" not in name for name in first)
    assert all(not torch.equal(first[name], last[name]) for name in first)
    assert all(value.any() == ("lora_A" in name) for name, value in first.items())  # B starts at 0
    base = load_model(tiny_models.folder("qwen2_5_vl"))
    before = {name: value.clone() for name, value in base.state_dict().items()}
    policy = PeftModel.from_pretrained(base, folder / "1").unload()
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())


def test_training_leaves_the_base_alone(study: Path, tmp_path: Path) -> None:
    made, _ = make("dpo", study, "qwen2_5_vl", tmp_path, max_steps=2, learning_rate=1e-2)
    frozen = {name: p.detach().clone() for name, p in made.model.named_parameters() if not p.requires_grad}
    moving = {name: p.detach().clone() for name, p in made.model.named_parameters() if p.requires_grad}
    made.train()
    after = dict(made.model.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())
    assert any("visual" in name for name in frozen) and all("lora_" in name for name in moving)
    assert all(not torch.equal(value, after[name]) for name, value in moving.items())


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_operations_are_counted_from_the_text_decoder(family: str) -> None:
    """2 layers of width 32 and mlp 48, heads of 8: q, o 32 · 32 and k, v 32 · 16 each, 3 · 32 · 48, two norms of 32;
    one norm at the end. Qwen 2.5 adds biases of 32 + 16 + 16, Qwen 3 norms of 8 to queries and keys, Gemma 3 both
    those and two norms more.
    """
    extra = {"qwen2_5_vl": 64, "qwen3_vl": 16, "gemma3": 2 * 32 + 16}.get(family, 0)
    expected = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32 + extra) + 32
    model = load_model(tiny_models.folder(family))
    policy = get_peft_model(model, peft_config(model, Adapter(r=4)))
    assert runs_module.decoder_parameters(policy) == expected


def test_operations_of_each_method(runs: dict[str, dict[str, Path]]) -> None:
    """In forward passes of 2N a token: SFT 2, DPO 2 and 1 of the reference, GRPO 1 to sample and 3 as DPO, EM 1 + 2."""
    passes = {"sft": 2, "rft": 2, "dpo": 3, "grpo": 4, "em": 3}
    parameters = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32 + 64) + 32
    for kind, factor in passes.items():
        record = json.loads(runs[kind]["run"].read_text())
        assert record["flops"] == factor * 2 * parameters * record["tokens"]


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_the_tower_runs_once_a_batch_without_gradients(family: str, study: Path, tmp_path: Path) -> None:
    """With gradient checkpointing, and to the same adapter as without either shortcut."""
    trained, encoded = [], []
    for shortcut in (True, False):
        args = {"gradient_checkpointing": True, "max_steps": 2, "learning_rate": 1e-2}
        made, _ = make("dpo", study, family, tmp_path / str(shortcut), **args)
        tower = made.model.get_base_model().model
        original = type(tower).get_image_features

        def spy(*args: object, original: Callable = original, **kwargs: object) -> ModelOutput:
            encoded.append(torch.is_grad_enabled())
            return original(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(tower), "get_image_features", spy)
            runs_module.train(made) if shortcut else made.train()
        trained.append({name: p.detach() for name, p in made.model.named_parameters() if p.requires_grad})
    # Two steps: one pass each without gradients; else policy (with) and reference (without).
    assert encoded == [False, False, True, False, True, False]
    assert all(torch.allclose(value, trained[1][name], atol=1e-6) for name, value in trained[0].items())


@pytest.mark.parametrize(
    ("kind", "args", "starts_at", "reference", "expected"),
    [
        ("sft", {}, "base", None, None),
        ("dpo", {}, "base", None, "base"),
        ("kto", {}, "own", None, "own"),
        ("rloo", {}, "sft", "parent", "sft"),
        ("grpo", {}, "sft", "base", "base"),
        ("grpo", {"beta": 0.0}, "sft", "base", None),
        ("dapo", {}, "base", None, None),
        ("em", {}, "own", None, None),
    ],
)
def test_what_a_loss_compares_with(
    kind: str, args: dict, starts_at: str, reference: str | None, expected: str | None, tmp_path: Path
) -> None:
    policy = SimpleNamespace(starts_at=starts_at)
    assert loss_reference(trainer_config(kind, args, tmp_path), policy, reference) == expected


def test_run_describes_what_was_trained_on(runs: dict[str, dict[str, Path]]) -> None:
    """18 of 24 memes gave a pair: 18/8 → 3 steps an epoch (SFT, DPO); GRPO, EM: 18 prompts by 2 a step → 9.

    RFT: 1 + i % 7 good samples of the kept memes i, 69 in all: 69/8 → 9 steps an epoch.
    """
    described = {kind: json.loads(runs[kind]["run"].read_text()) for kind in KINDS}
    assert {kind: run["total_steps"] for kind, run in described.items()} == {
        "sft": 6, "dpo": 6, "grpo": 18, "rft": 18, "em": 18
    }  # fmt: skip
    assert described["sft"]["steps"] == {"0": 0, "0.0625": 1, "0.125": 1, "0.5": 3, "1": 6}
    assert all(run["num_prompts"] == 18 for run in described.values())
    compared = {"sft": None, "dpo": "base", "grpo": "base", "rft": None, "em": None}
    assert {kind: run["loss_reference"] for kind, run in described.items()} == compared
    del described["rft"]  # tests/test_rft.py
    for run in described.values():
        assert run["epochs"] == 2 and run["kind"] == "adapter"
        # Kept are i % 4 in {0, 1, 2}, hateful i % 2 = 1: one in three.
        assert run["label_balance"] == pytest.approx(1 / 3)
        assert run["mean_num_correct"] == pytest.approx(sum(1 + i % 7 for i in range(24) if i % 4 != 3) / 18)
        # r (in + out) of q 32→32, k and v 32→16, o 32→32, gate and up 32→48, down 48→32, in 2 layers:
        # 4 · 2 · (64 + 48 + 48 + 64 + 80 + 80 + 80) = 3712.
        assert run["trainable_parameters"] == 3712
    assert described["sft"]["tokens"] < described["dpo"]["tokens"]


@pytest.mark.parametrize(
    ("kind", "metrics"),
    [
        ("sft", {"loss", "grad_norm", "learning_rate", "mean_token_accuracy", "num_tokens", "epoch"}),
        ("rft", {"loss", "grad_norm", "mean_token_accuracy", "num_tokens"}),
        ("em", {"loss", "entropy", "entropy_sequence", "reward", "rewards/format/mean", "completions/mean_length"}),
        ("dpo", {"loss", "rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/chosen"}),
        (
            "grpo",
            {"loss", "kl", "reward", "rewards/format/mean", "rewards/tiny_study.vowels/std", "frac_reward_zero_std"},
        ),
    ],
)
def test_history_keeps_trls_names_at_every_step(kind: str, metrics: set[str], runs: dict[str, dict[str, Path]]) -> None:
    history = tables.read(runs[kind]["history"], "history")
    total = json.loads(runs[kind]["run"].read_text())["total_steps"]
    assert metrics <= set(history["metric"])
    assert history.filter(metric="loss")["step"].to_list() == list(range(1, total + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_watched_while_it_trains_is_the_history(kind: str, runs: dict[str, dict[str, Path]]) -> None:
    rows = live.rows(runs[kind]["run"].parent / "work" / live.FILE)
    known = tables.read(runs[kind]["history"], "history").select("step", "metric", "value")
    told = runs_module.history([{name: row[name] for name in row.keys() - {"at", "max_steps"}} for row in rows])
    assert_frame_equal(told, known, check_exact=True)
    assert {row["max_steps"] for row in rows} == {len(rows)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_bar_names_the_method(kind: str, tmp_path: Path) -> None:
    made = runs_module.hooks(kind, trainer_config(kind, {}, tmp_path), [0, 1], tmp_path, tmp_path / "run.json")
    assert [hook.what for hook in made if hasattr(hook, "what")] == [kind.upper()]


def test_every_rollout_is_on_record(runs: dict[str, dict[str, Path]]) -> None:
    """Two groups of four a step, and their mean reward is what TRL logged at that step."""
    rollouts = tables.read(runs["grpo"]["rollouts"], "rollouts")
    assert len(rollouts) == 18 * 8
    groups = rollouts.group_by("step", "id").agg(pl.col("sample").sort())
    assert len(groups) == 36 and all(group == [0, 1, 2, 3] for group in groups["sample"].to_list())
    first = rollouts.row(0, named=True)
    assert dict(first["rewards"]).keys() == REWARDS.keys()
    assert first["reward"] == pytest.approx(
        sum(REWARDS[name] * value for name, value in dict(first["rewards"]).items())
    )
    logged = tables.read(runs["grpo"]["history"], "history").filter(metric="reward")
    means = rollouts.group_by("step").agg(pl.col("reward").mean()).sort("step")
    assert means["reward"].to_list() == pytest.approx(logged["value"].to_list(), abs=1e-6)
    assert tables.read(runs["sft"]["rollouts"], "rollouts").is_empty()


def length(completions: list, **columns: list) -> list[float]:
    """A reward that differs between random completions."""
    return [float(len(completion[0]["content"])) for completion in completions]


@pytest.mark.parametrize(
    "options",
    [
        {"scale_rewards": "group"},
        {"scale_rewards": "none"},
        {"scale_rewards": "batch"},
        {"multi_objective_aggregation": "normalize_then_sum"},
    ],
)
def test_recorded_advantages_are_those_trl_trains_on(options: dict[str, str], study: Path, tmp_path: Path) -> None:
    made, _ = make(
        "grpo", study, "qwen2_5_vl", tmp_path, rewards=[length, vowels], num_generations=4, max_steps=1, **options
    )
    made.train()
    recorded_ones = tables.read(next((tmp_path / "rollouts").glob("*.parquet")), "rollouts")
    assert recorded_ones["advantage"].to_list() == pytest.approx(list(made._logs["advantages"]), abs=1e-5)
    assert recorded_ones["text"].to_list() == [c[0]["content"] for c in made._logs["completion"]]
    assert recorded_ones["advantage"].abs().max() > 0.1


def test_advantages_of_a_group_by_hand() -> None:
    """Rewards 1, 0, 0, 1: mean 0.5, standard deviation √(4 · 0.25 / 3) = 0.57735, so ±0.5 / 0.57745 = ±0.86588."""
    rewards = torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    expected = torch.tensor([0.86588, -0.86588, -0.86588, 0.86588])
    assert torch.allclose(group_advantages(rewards, [1.0], 4), expected, atol=1e-5)
    assert torch.equal(group_advantages(torch.ones(4, 1), [1.0], 4), torch.zeros(4))


class Fixed(nn.Module):
    """A policy that gives every sequence the log-probability it is told, at its last position."""

    def __init__(self, logps: list[float]) -> None:
        super().__init__()
        self.logps = nn.Parameter(torch.tensor(logps))

    def forward(self, input_ids: torch.Tensor, **_: object) -> ModelOutput:
        log_probs = torch.zeros(len(input_ids), input_ids.shape[1] - 1)
        log_probs[:, -1] = self.logps
        zeros = torch.zeros_like(log_probs)
        return ModelOutput(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def test_tensorboard_keeps_its_files(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    train("sft", study, tmp_path, max_steps=1, report_to="tensorboard")
    assert any((tmp_path / "tensorboard").rglob("events.out.tfevents.*"))


def test_dpo_by_hand_through_trls_loss(study: Path, tmp_path: Path) -> None:
    """Chosen −2.0 against −2.5 and rejected −5.0 against −4.5 at β = 0.1.

    Rewards 0.1 · 0.5 = 0.05 and 0.1 · (−0.5) = −0.05, margin 0.10, loss −log σ(0.1) = log(1 + e^−0.1) = 0.6444.
    """
    made, _ = make("dpo", study, "qwen2_5_vl", tmp_path, beta=0.1)
    made.precompute_ref_logps = True
    batch = {
        "input_ids": torch.tensor([[5, 6, 7], [5, 6, 8]]),
        "attention_mask": torch.ones(2, 3, dtype=torch.long),
        "completion_mask": torch.tensor([[0, 0, 1], [0, 0, 1]]),
        "ref_chosen_logps": torch.tensor([-2.5]),
        "ref_rejected_logps": torch.tensor([-4.5]),
    }
    made.model.train()
    loss = made.compute_loss(Fixed([-2.0, -5.0]), batch)
    logged = {name: values[-1] for name, values in made._metrics["train"].items()}
    assert loss.item() == pytest.approx(0.6444, abs=1e-4)
    assert logged["rewards/chosen"] == pytest.approx(0.05, abs=1e-6)
    assert logged["rewards/rejected"] == pytest.approx(-0.05, abs=1e-6)
    assert logged["rewards/margins"] == pytest.approx(0.10, abs=1e-6)


def test_an_infinite_loss_names_metric_and_step_and_leaves_nothing(study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training diverged: \w+ is (nan|inf) at step \d of 6; lower learning_rate"):
        train("sft", study, tmp_path, learning_rate=1e30, max_grad_norm=0.0)
    assert not any(path.exists() for path in outputs(tmp_path).values())


@pytest.mark.parametrize(
    ("kind", "args", "said"),
    [
        ("sft", {"learning_rat": 1e-5}, "trainer argument learning_rat: .*SFTConfig.*nearest is learning_rate"),
        ("sft", {"beta": 0.1}, "trainer argument beta: SFTConfig has no such argument"),
        ("grpo", {"num_generation": 8}, "nearest is num_generations"),
        ("em", {"num_generation": 8}, "nearest is num_generations"),
        ("em", {"beta": 0.1}, "trainer argument beta: em has its own loss on fresh responses .objective.; remove it"),
        ("em", {"num_iterations": 2}, "trainer argument num_iterations: em has its own loss on fresh responses"),
        ("dpo", {"seed": 3}, "trainer argument seed: is set by the study itself .use seeds."),
        ("dpo", {"lr_scheduler_type": "cosin"}, "trainer arguments of a dpo method: .*cosin"),
        ("sft", {"learning_rate": "fast"}, "trainer argument learning_rate: 'fast': .*number"),
        ("sft", {"per_device_train_batch_size": 2.5}, "trainer argument per_device_train_batch_size: 2.5: "),
        ("grpo", {"per_device_train_batch_size": 6, "num_generations": 4}, "4 does not divide .* 6 completions"),
    ],
)
def test_bad_arguments_are_named(kind: str, args: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        check_args(kind, args)
    assert "\n" not in str(raised.value)


def test_good_arguments_pass(tmp_path: Path) -> None:
    """YAML reads 1e-5 as text; every default of ours is an argument that TRL knows."""
    for kind in KINDS:
        check_args(kind, {"warmup_steps": 0.1, "gradient_checkpointing": True, "report_to": ["tensorboard"]})
        assert trainer_config(kind, {"learning_rate": "1e-5"}, tmp_path).learning_rate == 1e-5
        assert defaults()[kind]["gradient_accumulation_steps"] == 1


def test_too_few_prompts_for_a_generation_batch(study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training: 18 prompts, but one generation batch takes 20"):
        make("grpo", study, "qwen2_5_vl", tmp_path, num_generations=2, per_device_train_batch_size=40)


def test_no_pair_at_all(study: Path) -> None:
    pairs, memes = tables_of(study)
    with pytest.raises(InputError, match="preferences: no pair among 24 training prompts"):
        training_rows(pairs.clear(), memes, PROMPT, "hateful", "paired")
    assert len(training_rows(pairs.clear(), memes, PROMPT, "hateful", "all")) == 24


def test_grpo_resumes_where_its_completions_are_used_up(tmp_path: Path) -> None:
    """4 micro-batches a generation, each used twice, 2 micro-batches a step: 4 · 2 / 2 = 4 steps."""
    args = {"steps_per_generation": 4, "num_iterations": 2, "gradient_accumulation_steps": 2}
    assert boundary(trainer_config("grpo", args, tmp_path)) == 4
    assert boundary(trainer_config("grpo", {}, tmp_path)) == 1
    assert boundary(trainer_config("sft", {}, tmp_path)) == 1


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo"])
def test_vllm_is_a_trainer_argument_like_any_other(kind, tmp_path):
    """Both modes reach TRL's config, in its types, whether vLLM is installed or not."""
    server = {"vllm_mode": "server", "vllm_server_base_url": "http://127.0.0.1:8000", "vllm_server_timeout": "60"}
    for args in ({"vllm_mode": "colocate", "vllm_gpu_memory_utilization": "4e-1"}, server):
        config = trainer_config(kind, {"use_vllm": True, **args}, tmp_path)
        assert config.use_vllm and config.vllm_mode == args["vllm_mode"]
    assert config.vllm_server_timeout == 60.0
    with pytest.raises(InputError, match="use_vlm: .*nearest is use_vllm"):
        check_args(kind, {"use_vlm": True})
