"""The reward model: its loss and gradient by hand, rewards that do not depend on the batch, and RLHF with it."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from peft import PeftModel, get_peft_model
from polars.testing import assert_frame_equal
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import tiny_models
import tiny_study
from memedynamics import (
    adapters,
    forcing,
    graders,
    live,
    resuming,
    reward_grader,
    reward_model,
    reward_model_training,
    reward_training,
    tables,
    vlm,
)
from memedynamics.checkpoints import MANIFEST
from memedynamics.config import Adapter
from memedynamics.errors import InputError
from memedynamics.images import open_image
from memedynamics.methods import RewardModel, TrainedMethod, rule_of
from memedynamics.prompts import messages
from memedynamics.reward_model import ScalarModel, bradley_terry, fed, load_head
from memedynamics.reward_model_held_out import accuracy, held_out
from memedynamics.starting import starting_policy
from tiny_study import MATCHED, PROMPT, REWARDS, SHARED, inputs, outputs, response, script, settings, write_study

FAMILY = "qwen2_5_vl"
TIMED = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
ARGS = {**SHARED, "learning_rate": 1e-2, "max_steps": 30, "gradient_checkpointing": True}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every chosen response says Yes, every rejected one No."""
    folder = write_study(tmp_path_factory.mktemp("study"))
    pairs = tables.read(folder / "preferences.parquet", "preferences")
    pairs = pairs.with_columns(chosen=pl.lit(response("Yes")), rejected=pl.lit(response("No")))
    tables.write(pairs, folder / "preferences.parquet", "preferences")
    return folder


def fit(study: Path, folder: Path, **changed: object) -> Path:
    """Run train_reward_model; `folder` holds what it wrote."""
    matched = MATCHED.model_copy(update={"training": ARGS, **changed})
    folder.mkdir(parents=True, exist_ok=True)
    names = {"trained": "model", "history": "history.parquet", "report": "report.json", "work": "work"}
    where = {**inputs(study), **{name: folder / file for name, file in names.items()}}
    script("train_reward_model")(**where, reward_model=RewardModel(), matched=matched, threads=1)
    return folder


@pytest.fixture(scope="module")
def fitted(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(study, tmp_path_factory.mktemp("fitted"))


def scalar(seed: int = 0) -> ScalarModel:
    """A model with random adapter and head."""
    policy = vlm.load_model(tiny_models.folder(FAMILY))
    made = ScalarModel(get_peft_model(policy, adapters.peft_config(policy, Adapter(r=4)))).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, made.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


def test_bradley_terry_by_hand() -> None:
    """Margins 1 and −2: (log(1 + e^−1) + log(1 + e^2)) / 2 = (.313262 + 2.126928) / 2 = 1.220095.

    Gradient by r⁺: −σ(−margin) / 2 = −.268941 / 2 and −.880797 / 2, by r⁻ its negative.
    """
    chosen, rejected = torch.tensor([1.5, 0.0]).requires_grad_(), torch.tensor([0.5, 2.0]).requires_grad_()
    loss = bradley_terry(chosen, rejected)
    loss.backward()
    assert loss.item() == pytest.approx(1.220095, abs=1e-6)
    assert chosen.grad.tolist() == pytest.approx([-0.1344707, -0.4403985], abs=1e-6)
    assert rejected.grad.tolist() == pytest.approx([0.1344707, 0.4403985], abs=1e-6)
    assert bradley_terry(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(math.log(2), abs=1e-7)


def test_gradient_of_the_head_at_its_start() -> None:
    """At a head of 0 the loss is ln 2 and its gradient −½ · mean over pairs of (h⁺ − h⁻), states at the last tokens."""
    model = scalar()
    torch.nn.init.zeros_(model.head.weight)
    batch = an_encoded_batch(model)
    found = model(**batch)
    found["loss"].backward()
    states = vlm.hidden_states(model.policy, **{k: v for k, v in batch.items() if k != "last"}).last_hidden_state
    last = states[torch.arange(4), batch["last"]]
    expected = -0.5 * (last[:2] - last[2:]).mean(0)
    assert found["loss"].item() == pytest.approx(math.log(2), abs=1e-7)
    assert torch.allclose(model.head.weight.grad[0], expected, atol=1e-6) and expected.abs().max() > 1e-3


RESPONSES = [[40, 41, 42, 43, 44], [50, 51], [60, 61, 62, 63, 64, 65, 66, 67], [70]]
CONTENTS = ["what", "what is this in the picture", "what", "is"]


def an_encoded_batch(model: ScalarModel) -> dict[str, torch.Tensor]:
    pictures = [tiny_models.picture(n, 56 + 28 * (n % 2)) for n in range(4)]
    return dict(fed(vlm.load_processor(tiny_models.folder(FAMILY)), CONTENTS, pictures, RESPONSES))


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_a_response_is_worth_the_same_alone_and_in_a_batch(family: str) -> None:
    """Longer prompts, longer responses and other pictures beside it change nothing beyond rounding."""
    model, processor = vlm.load_model(tiny_models.folder(family)), vlm.load_processor(tiny_models.folder(family))
    head = torch.randn(1, model.get_output_embeddings().weight.shape[1], generator=torch.Generator().manual_seed(0))
    rows = [(c, tiny_models.picture(n, 56), r) for n, (c, r) in enumerate(zip(CONTENTS, RESPONSES, strict=True))]

    def rewards(part: list[tuple]) -> list[float]:
        return reward_model.read_off(model, head, fed(processor, *map(list, zip(*part, strict=True)))).tolist()

    with torch.no_grad():
        together, alone = rewards(rows), [rewards([row])[0] for row in rows]
    assert together == pytest.approx(alone, abs=1e-5)
    assert np.ptp(together) > 1e-2


def test_the_state_is_that_of_the_last_token() -> None:
    """Whatever follows a response does not change its reward; another last token does."""
    model, processor = scalar(), vlm.load_processor(tiny_models.folder(FAMILY))
    picture = tiny_models.picture(0)

    def reward(tokens: list[int]) -> float:
        with torch.no_grad():
            return model.rewards(**fed(processor, ["what"], [picture], [tokens])).item()

    longer = forcing.sequences(processor, ["what"], [picture], [[40, 41, 42]])
    longer["last"] = torch.tensor([longer["input_ids"].shape[1] - 2])
    with torch.no_grad():
        assert model.rewards(**longer).item() == pytest.approx(reward([40, 41]), abs=1e-5)
    assert abs(reward([40, 41]) - reward([40, 42])) > 1e-4


def test_it_learns_to_prefer_yes(fitted: Path) -> None:
    """First loss ln 2, and after 30 steps over 9 in 10 held-out pairs the right way round."""
    report, history = (
        json.loads((fitted / "report.json").read_text()),
        tables.read(fitted / "history.parquet", "history"),
    )
    assert report["first_loss"] == pytest.approx(math.log(2), abs=1e-6) and report["last_loss"] < 0.2
    assert report["accuracy"] > 0.9 and report["ci_low"] <= report["accuracy"] <= report["ci_high"]
    assert report["num_pairs"] + report["n"] == 18 and report["n"] >= 2 and report["margin"] > 1
    assert {"loss", "rewards/accuracies", "rewards/margins", "num_tokens", "grad_norm"} <= set(history["metric"])
    assert history.filter(metric="rewards/margins", step=1)["value"].item() == 0
    assert sorted(path.name for path in (fitted / "model").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "checksums.json", "head.safetensors", "reward_model.json"
    ]  # fmt: skip


class Signalled(TrainerCallback):
    """Sends this process a signal in its 8th step."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Send it."""
        if state.global_step == 7:
            os.kill(os.getpid(), self.number)


def fit_until(number: int, study: Path, folder: Path) -> None:
    """`fit`, up to the signal."""
    made = reward_model_training.trainer

    def trainer(*given: object) -> Trainer:
        found = made(*given)
        found.add_callback(Signalled(number))
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reward_model_training, "trainer", trainer)
        fit(study, folder)


def same(found: Path, expected: Path) -> None:
    """Equal weights and reports to the bit, equal history but for wall times."""
    for file in sorted((expected / "model").iterdir()):
        assert (found / "model" / file.name).read_bytes() == file.read_bytes(), file
    assert (found / "report.json").read_bytes() == (expected / "report.json").read_bytes()
    histories = [tables.read(run / "history.parquet", "history").drop("study") for run in (found, expected)]
    assert_frame_equal(*(frame.filter(~pl.col("metric").is_in(TIMED)) for frame in histories), check_exact=True)


def steps_trained(folder: Path) -> int:
    """How many steps all tries together took."""
    return (folder / "work" / live.FILE).read_text().count('"grad_norm"')


def test_a_killed_training_ends_like_an_undisturbed_one(fitted: Path, study: Path, tmp_path: Path) -> None:
    """Killed in its 8th step it goes on after the 6th, its last save, which holds no base model."""
    code = "import sys, pathlib, test_reward_model as test; "
    code += f"test.fit_until({signal.SIGKILL.value}, *map(pathlib.Path, sys.argv[1:]))"
    paths = os.pathsep.join([str(tiny_study.ROOT / "workflow"), str(tiny_study.ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(study), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    saved = tmp_path / "work/checkpoints/checkpoint-6"
    assert (saved / resuming.COMPLETE).exists()
    assert all("lora" in name or name == "head.weight" for name in load_file(saved / "model.safetensors"))
    short = tmp_path / "work/checkpoints/checkpoint-1000"  # newer than all others, and cut short
    short.mkdir()
    (short / "trainer_state.json").write_text("{")
    same(fit(study, tmp_path), fitted)
    assert steps_trained(tmp_path) == 7 + 30 - 6


def test_a_training_told_to_end_saves_itself_and_goes_on(fitted: Path, study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training was stopped at step 8 of 30; run it again"):
        fit_until(signal.SIGTERM, study, tmp_path)
    assert not (tmp_path / "report.json").exists()
    same(fit(study, tmp_path), fitted)
    assert steps_trained(tmp_path) == 30


def test_held_out_pairs_are_whole_captions() -> None:
    """5 captions of two memes each: a tenth of ten pairs is one, so one caption and both its memes."""
    rows = pl.DataFrame({"text": [f"caption {n // 2}" for n in range(10)], "id": list("abcdefghij")})
    trained, tested = held_out(rows, 0.1, seed=0)
    assert (len(trained), len(tested)) == (8, 2) and tested["text"].n_unique() == 1
    assert not set(trained["text"]) & set(tested["text"])
    with pytest.raises(InputError, match="2 pairs of one caption"):
        held_out(rows.head(2), 0.1, 0)


def test_accuracy_by_hand() -> None:
    """Three ahead, one behind, one tied: 3.5 of 5; the interval is over captions."""
    found = accuracy(np.array([1.0, 2.0, 0.5, -1.0, 0.0]), [f"caption {n}" for n in range(5)])
    assert found["accuracy"] == pytest.approx(0.7) and found["n"] == 5
    assert 0 <= found["ci_low"] < 0.7 < found["ci_high"] <= 1
    one = accuracy(np.array([1.0, -1.0]), ["same", "same"])
    assert one["ci_low"] == one["ci_high"] == one["accuracy"] == 0.5


def grade(folder: Path, policy: object, base: Path) -> list[float]:
    """Rewards of RESPONSES by `policy`'s grader, given as TRL gives them."""
    processor = vlm.load_processor(base)
    prompts = [messages(content) for content in CONTENTS]
    pictures = [tiny_models.picture(n, 56 + 28 * (n % 2)) for n in range(4)]
    judge = reward_grader.grader(folder, policy, processor, base)
    assert judge.__name__ == "reward_model"
    return judge(completions=[], prompts=prompts, completion_ids=RESPONSES, image=pictures, id=list("abcd"))


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "ia3"])
def test_the_policys_adapter_does_not_touch_the_grade(kind: str, fitted: Path, tmp_path: Path) -> None:
    """The grade on a moved policy's base = PEFT's own load of the reward model; the policy is left as it was."""
    base = tiny_models.folder(FAMILY)
    loaded = PeftModel.from_pretrained(vlm.load_model(base), fitted / "model").eval()
    head = load_head(fitted / "model")
    with torch.no_grad():
        expected = reward_model.read_off(loaded, head, an_encoded_batch(None)).tolist()
    model = vlm.load_model(base)
    policy = get_peft_model(model, adapters.peft_config(model, Adapter(kind=kind, r=4)))
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, policy.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    trains = {name: p.requires_grad for name, p in policy.named_parameters()}
    batch = {name: value for name, value in an_encoded_batch(None).items() if name != "last"}
    policy.train()
    with torch.no_grad():
        logits = policy(**batch).logits
        # Given the bare model, as where TRL puts the adapter on afterwards, and given the PEFT model.
        assert grade(fitted / "model", model, base) == pytest.approx(expected, abs=1e-5)
        assert grade(fitted / "model", policy, base) == pytest.approx(expected, abs=1e-5)
        assert torch.equal(policy(**batch).logits, logits)
    assert policy.training and {name: p.requires_grad for name, p in policy.named_parameters()} == trains
    assert all(torch.equal(p, before[name]) for name, p in policy.named_parameters())
    assert np.ptp(expected) > 1e-2


def test_qloras_base_in_four_bits_does_not_grade(fitted: Path) -> None:
    """The grade is that on the base the reward model was trained on, which four bits are not."""
    base, matched = tiny_models.folder(FAMILY), MATCHED.model_copy(update={"adapter": Adapter(kind="qlora", r=4)})
    policy, processor = starting_policy(base, matched.base, matched.adapter), vlm.load_processor(base)
    loaded = PeftModel.from_pretrained(vlm.load_model(base), fitted / "model").eval()
    with torch.no_grad():
        expected = reward_model.read_off(loaded, load_head(fitted / "model"), an_encoded_batch(None)).tolist()
    method = TrainedMethod(kind="grpo", reward="model")
    judge, *_ = graders.functions(method, REWARDS, matched, policy, processor, base, fitted / "model")
    pictures = [tiny_models.picture(n, 56 + 28 * (n % 2)) for n in range(4)]
    given = {"completions": [], "prompts": list(map(messages, CONTENTS)), "completion_ids": RESPONSES}
    assert judge(**given, image=pictures) == pytest.approx(expected, abs=1e-5)
    assert grade(fitted / "model", policy, base) != pytest.approx(expected, abs=1e-3)


@pytest.fixture(scope="module", params=["rloo", "grpo"])
def rlhf(request: pytest.FixtureRequest, study: Path, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Two steps against the reward model, and the trained run's outputs."""
    folder = tmp_path_factory.mktemp("rlhf")
    given = settings(request.param, max_steps=2)
    method = TrainedMethod(**{**given["method"].model_dump(by_alias=True), "reward": "model"})
    where = {**inputs(study), **outputs(folder), "work": folder / "work", "threads": 1}
    script(rule_of(method))(**where, **{**given, "method": method}, reward_model=fitted / "model")
    return request.param, outputs(folder)


def test_rollouts_hold_the_models_rewards_and_the_rules(rlhf: tuple, fitted: Path, study: Path) -> None:
    """What was trained on is the model's reward; the study's own are recorded and weigh nothing."""
    kind, made = rlhf
    rollouts = tables.read(made["rollouts"], "rollouts")
    rewards = [dict(row) for row in rollouts["rewards"]]
    assert len(rollouts) == 16 and all(set(row) == {"reward_model", *REWARDS} for row in rewards)
    assert rollouts["reward"].to_list() == pytest.approx([row["reward_model"] for row in rewards], abs=1e-6)
    assert any(row["tiny_study.vowels"] for row in rewards) and rollouts["reward"].n_unique() > 8
    logged = tables.read(made["history"], "history")
    means = rollouts.group_by("step").agg(pl.col("reward").mean()).sort("step")["reward"].to_list()
    assert logged.filter(metric="reward")["value"].to_list() == pytest.approx(means, abs=1e-5)
    run = json.loads(made["run"].read_text())
    parameters = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32 + 64) + 32
    # As without the model (RLOO 5, GRPO 4 passes), and one for it.
    assert run["flops"] == {"rloo": 6, "grpo": 5}[kind] * 2 * parameters * run["tokens"]


def test_only_the_policys_adapter_is_saved(rlhf: tuple, fitted: Path) -> None:
    """Nothing of the reward model goes with the policy, whose adapter starts and moves as ever."""
    _, made = rlhf
    folder = made["milestones"]
    assert sorted(path.name for path in (folder / "1").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "checksums.json",
    ]
    first, last = (load_file(folder / name / "adapter_model.safetensors") for name in ("0", "1"))
    own = load_file(fitted / "model/adapter_model.safetensors")
    assert all(not torch.equal(first[name], last[name]) for name in first if "lora_B" in name)
    assert all(not value.any() for name, value in first.items() if "lora_B" in name)
    assert all(not torch.equal(last[name], own[name]) for name in own)


def test_the_drawn_tokens_are_graded(rlhf: tuple, fitted: Path, study: Path) -> None:
    """A rollout's reward is that of its text where the text has one reading: equal to the model's own, apart."""
    _, made = rlhf
    base = tiny_models.folder(FAMILY)
    processor, loaded = (
        vlm.load_processor(base),
        PeftModel.from_pretrained(vlm.load_model(base), fitted / "model").eval(),
    )
    words, rows = processor.tokenizer, tables.read(study / "data.parquet", "data")
    found = tables.read(made["rollouts"], "rollouts").join(rows.select("id", "image", caption="text"), on="id")
    checked = []
    for row in found.to_dicts():
        tokens = words(row["text"], add_special_tokens=False).input_ids
        content = tiny_study.user_text(PROMPT, "hateful", row["caption"])
        if len(tokens) != 8 or "\ufffd" in row["text"]:
            continue  # other ids were drawn: 8 tokens, special ones and broken bytes among them
        with torch.no_grad():
            inputs_of = fed(processor, [content], [open_image(Path(row["image"]))], [tokens])
            alone = reward_model.read_off(loaded, load_head(fitted / "model"), inputs_of).item()
        checked.append(dict(row["rewards"])["reward_model"] == pytest.approx(alone, abs=1e-4))
    assert checked and all(checked)


def test_the_rewards_analysis_reads_both_kinds_of_rollouts(rlhf: tuple, study: Path) -> None:
    """Beside a run graded by rules alone, groups keep the rewards they have, so that the gap between the two shows."""
    made = tables.read(rlhf[1]["rollouts"], "rollouts")
    rules = [[(name, value) for name, value in dict(row).items() if name != "reward_model"] for row in made["rewards"]]
    column = pl.from_arrow(pa.table({"rewards": pa.array(rules, pa.map_(pa.string(), pa.float64()))}))
    plain = made.with_columns(column["rewards"])
    both = pl.concat([made.with_columns(method=pl.lit("rlhf")), plain.with_columns(method=pl.lit("ruled"))])
    both = reward_training.graded(both.with_columns(seed=pl.lit(1)), PROMPT, {"tiny_study.vowels": 2.0})
    found = reward_training.groups(both, {"rlhf": 4})
    assert found.filter(method="rlhf")["rewards/reward_model/mean"].null_count() == 0
    assert found.filter(method="ruled")["rewards/reward_model/mean"].null_count() == len(found) / 2
    assert found["rewards/tiny_study.vowels/mean"].null_count() == 0
    gap = found.filter(method="rlhf")["reward"] - found.filter(method="rlhf")["rewards/reward_model/mean"]
    assert gap.abs().max() < 1e-6
    # By the study's rules both are worth the same.
    assert (found["rules_reward"] - 2 * found["rewards/tiny_study.vowels/mean"]).abs().max() < 1e-6


def test_another_base_model_is_refused(fitted: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / MANIFEST).write_text(json.dumps({"digest": "another"}))
    with pytest.raises(InputError, match="was trained on another base model than .*; train the reward model again"):
        reward_grader.load(fitted / "model", vlm.load_model(tiny_models.folder(FAMILY)), base)


def test_a_folder_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no head.safetensors"):
        load_head(tmp_path)


@pytest.mark.parametrize("kind", ["dora", "full"])
def test_adapters_that_cannot_grade_are_refused(kind: str, study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"reward_model.adapter.kind: {kind}: a reward model takes lora or rslora"):
        fit(study, tmp_path, adapter=Adapter(kind=kind))
