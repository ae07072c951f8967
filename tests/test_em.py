"""Entropy minimisation: each loss by hand and against autograd, then the trainer on a tiny model."""

import json
import math
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import TrainerCallback
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

import tiny_models
import tiny_study
from memedynamics import entropy_start, inventory, runs, tables, vlm
from memedynamics.answers import Labels
from memedynamics.config import Adapter, Sampling, Study
from memedynamics.entropy_losses import binary_entropy, decision_logits, leave_one_out, mean, one_token, sequence_loss
from memedynamics.entropy_minimisation import EntropyTrainer, Reading
from memedynamics.errors import InputError
from memedynamics.examples import few, training_rows
from memedynamics.rewards import reward_functions
from memedynamics.study import load_study, warnings_of
from memedynamics.training import defaults, trainer, trainer_config
from tiny_study import PROMPT, REWARDS, response

OBJECTIVES = ("decision", "token", "sequence")
ENTROPIES = {"decision": "entropy_decision", "token": "entropy", "sequence": "entropy_sequence"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_study.write_study(tmp_path_factory.mktemp("study"))


def rows_of(study: Path) -> pl.DataFrame:
    pairs, memes = (tables.read(study / f"{name}.parquet", name) for name in ("preferences", "data"))
    return training_rows(pairs, memes, PROMPT, "hateful", "paired")


def make(
    study: Path, work: Path, objective: str, gated: bool = False, rows: pl.DataFrame | None = None, **args: object
) -> EntropyTrainer:
    """A trainer as the script makes it."""
    given = {"per_device_train_batch_size": 8, "num_generations": 4, "gradient_checkpointing": False, **args}
    config = trainer_config("em", given, work, 1, sampling=Sampling(max_new_tokens=8), weights=REWARDS)
    model, processor = (load(tiny_models.folder("qwen2_5_vl")) for load in (vlm.load_model, vlm.load_processor))
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # random weights are all but uniform
    minimiser = partial(EntropyTrainer, objective=objective, label_gated=gated, prompt=PROMPT)
    rows = rows_of(study) if rows is None else rows
    return trainer(config, model, processor, rows, Adapter(r=4), reward_functions(REWARDS, PROMPT), None, minimiser)


def written(made: EntropyTrainer, texts: list[str]) -> dict[str, object]:
    """A batch as TRL draws it, but with `texts` in place of what was drawn."""
    rows = [made.train_dataset[n // 4] for n in range(len(texts))]
    batch = made._generate_and_score_completions(rows)
    ends = sorted(vlm.end_token_ids(made.model, made.processing_class))[:1]
    tokens = [made.tokenizer(text, add_special_tokens=False).input_ids + ends for text in texts]
    width = max(map(len, tokens))
    device = batch["completion_ids"].device
    ids = [row + [made.tokenizer.pad_token_id] * (width - len(row)) for row in tokens]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in tokens]
    batch["completion_ids"], batch["completion_mask"] = (torch.tensor(x, device=device) for x in (ids, mask))
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in batch:
            kept = batch[name][:, : batch["prompt_ids"].shape[1]]
            batch[name] = torch.cat([kept, kept.new_zeros(len(texts), width)], dim=1)
    return made.mark(batch, [row["label"] for row in rows])


def test_binary_entropy_by_hand() -> None:
    """p = .9: −.9 ln .9 − .1 ln .1 = .09482 + .23026 = .3251 nat; p = ½: ln 2; saturated: 0, not NaN."""
    logits = torch.tensor([0.9, 0.5]).logit().tolist() + [100.0, -100.0]
    assert binary_entropy(torch.tensor(logits)).tolist() == pytest.approx([0.3251, math.log(2), 0, 0], abs=1e-4)


def test_the_decision_goes_where_it_leans() -> None:
    """dH/dz = −z p(1−p), against autograd and central differences: at p = .9, −2.1972 · .09 = −.19775."""
    logits = torch.tensor([0.9, 0.5, 0.2, 1.0], dtype=torch.float64).logit()
    logits[3] = 50.0
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(binary_entropy(logits).sum(), logits)
    p = logits.sigmoid()
    assert torch.allclose(gradient, -logits * p * (1 - p), atol=1e-12)
    assert gradient[0].item() == pytest.approx(-0.19775, abs=1e-5)
    step = 1e-6
    differences = (binary_entropy(logits + step) - binary_entropy(logits - step)) / (2 * step)
    assert torch.allclose(gradient, differences, atol=1e-8)


def test_decision_logits_need_the_labels_rows_alone() -> None:
    """Equal to log P(yes) − log P(no) over the whole vocabulary, with two spellings of yes and one of no."""
    torch.manual_seed(0)
    head, hidden = nn.Linear(6, 9), torch.randn(3, 6)
    labels = Labels.__new__(Labels)
    labels.spellings, labels.is_yes, labels.tails = [(2,), (5,), (7,)], torch.tensor([True, True, False]), []
    p = head(hidden).softmax(-1)
    expected = (p[:, [2, 5]].sum(-1) / p[:, 7]).log()
    assert torch.allclose(decision_logits(hidden, head, labels), expected, atol=1e-6)


def test_labels_of_several_tokens_are_left_out() -> None:
    labels = Labels(vlm.load_processor(tiny_models.folder("qwen2_5_vl")).tokenizer, PROMPT)
    assert labels.tails
    single = one_token(labels)
    assert single.tails == [] and all(len(spelling) == 1 for spelling in single.spellings)
    assert len(single.is_yes) == len(single.spellings) and single.is_yes.any() and not single.is_yes.all()
    labels.spellings = [spelling * (1 + yes) for spelling, yes in zip(labels.spellings, labels.is_yes, strict=True)]
    with pytest.raises(InputError, match="em: no spelling of yes or of no is one token"):
        one_token(labels)


def test_leave_one_out_by_hand() -> None:
    """Group −1, −2, −6: −1 − (−8)/2 = 3, −2 − (−7)/2 = 1.5, −6 − (−3)/2 = −4.5. Second group: −6 is left out, so
    −1 − (−2) = 1 and −2 − (−1) = −1; third: alone, so nothing to compare with.
    """
    logps = torch.tensor([-1.0, -2, -6, -1, -2, -6, -1, -2, -6])
    kept = torch.tensor([1, 1, 1, 1, 1, 0, 0, 1, 0]).bool()
    assert leave_one_out(logps, kept, 3).tolist() == pytest.approx([3, 1.5, -4.5, 1, -1, 0, 0, 0, 0])


def test_the_sequence_gradient_is_that_of_the_entropy() -> None:
    """REINFORCE, averaged over every ordered pair of draws from a policy of 4 responses, is exactly ∇H.

    H = −Σ p log p by autograd; pairs (i, j) weigh p_i p_j, and both are each other's baseline.
    """
    logits = torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64, requires_grad=True)
    logp = logits.log_softmax(-1)
    (expected,) = torch.autograd.grad(-(logp.exp() * logp).sum(), logits, retain_graph=True)
    found, value, every = torch.zeros_like(logits), 0.0, torch.ones(2, dtype=torch.bool)
    for i in range(4):
        for j in range(4):
            drawn = logp[[i, j]]
            loss = sequence_loss(drawn, leave_one_out(drawn.detach(), every, 2), every)
            weight = (logp[i] + logp[j]).exp().item()
            found += weight * torch.autograd.grad(loss, logits, retain_graph=True)[0]
            value += weight * loss.item()
    assert torch.allclose(found, expected, atol=1e-12)
    assert value == pytest.approx(-(logp.exp() * logp).sum().item())


def test_nothing_that_counts_is_a_loss_of_zero() -> None:
    values = torch.ones(3, requires_grad=True)
    loss = mean(values, torch.zeros(3, dtype=torch.bool))
    assert loss.item() == 0 and torch.equal(torch.autograd.grad(loss, values)[0], torch.zeros(3))


def test_the_gate_masks_exactly_the_wrong(study: Path, tmp_path: Path) -> None:
    """Labels 1, 1, 0, 0 and p = .9, .2, .9, .2: the first and last decide right, H(.9) = .3251, H(.2) = .5004.

    Sampled answers right in the first two: of token entropies 1, 2, 3, 4 in two tokens each, mean 1.5.
    """
    mask = torch.ones(4, 2, dtype=torch.bool)
    batch = {"label": torch.tensor([1, 1, 0, 0]), "correct": torch.tensor([True, True, False, False])}
    batch |= {"completion_mask": mask, "advantages": torch.ones(4), "position": torch.zeros(4)}
    logits = torch.tensor([0.9, 0.2, 0.9, 0.2]).logit()
    entropies = torch.tensor([[1.0], [2], [3], [4]]).expand(4, 2)
    found = Reading(-entropies, entropies, logits, torch.tensor([True, True, True, True]))
    made = make(study, tmp_path / "d", "decision", gated=True)

    def loss(batch: dict[str, object]) -> float:
        return made.loss(found, batch["completion_mask"], batch | {"kept": made.kept(batch, found)}).item()

    assert loss(batch) == pytest.approx((0.3251 + 0.5004) / 2, abs=1e-4)
    assert loss(batch | {"position": torch.tensor([0, 0, 0, -1])}) == pytest.approx(0.3251, abs=1e-4)
    made.objective = "token"
    assert loss(batch) == pytest.approx(1.5)
    made.label_gated = False
    assert loss(batch) == pytest.approx(2.5)
    made.objective = "sequence"  # −log π of 2, 4, 6 and 8; without the last, which is masked, 4
    assert loss(batch) == pytest.approx(5)
    masked = mask & torch.tensor([[True], [True], [True], [False]])
    assert loss(batch | {"completion_mask": masked}) == pytest.approx(4)


def test_what_is_correct_is_what_the_study_grades_so(study: Path, tmp_path: Path) -> None:
    made = make(study, tmp_path, "sequence", gated=True)
    labels = [made.train_dataset[n // 4]["label"] for n in range(8)]
    wanted = [answer == label for label in labels[::4] for answer in (1, 0, None, None)]
    batch = written(made, [response("Yes"), response("No"), "no block", response("maybe")] * 2)
    assert batch["label"].tolist() == labels and batch["correct"].tolist() == batch["kept"].tolist() == wanted
    assert batch["advantages"].tolist() == [0.0] * 8  # one correct in each group: nothing to compare with
    assert batch["num_items_in_batch"] == 2


# Two groups of unlike lengths; half of them answer, the labels are 0 and 1.
UNLIKE = [
    *(response("No", "dog"), "no answer here", response("Yes", "cat and a dog and a bird"), response("No")),
    *("none", response("Yes", "x"), response("Yes", "a cat that sits on a red chair"), "nor here, at some length"),
]


def step(made: EntropyTrainer, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The gradients that the first optimiser step takes, on the responses `UNLIKE`."""
    moved(made.model)
    batch, found = written(made, UNLIKE), []
    monkeypatch.setattr(made, "_generate_and_score_completions", lambda inputs: dict(batch))
    made.add_callback(Gradients(found))
    made.train()
    return found


class Gradients(TrainerCallback):
    """Keeps what the optimiser is about to follow."""

    def __init__(self, found: list[Tensor]) -> None:
        self.found = found

    def on_pre_optimizer_step(self, *given: object, model: nn.Module, **named: object) -> None:
        self.found += [parameter.grad.clone() for parameter in trained(model)]


@pytest.mark.parametrize("gated", (False, True))
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_accumulation_changes_no_gradient(
    objective: str, gated: bool, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 responses at once, or 4 and 4 or four times 2, as they are shuffled: what counts is spread unevenly.

    The model in float64, since float32 adds up in another order. Equal to 1e-6, or of the largest where that is above
    1: the sequence's, with rewards of 200 nat, are about 1500.
    """
    found, losses = [], []
    for rounds in (1, 2, 4):
        args = {"per_device_train_batch_size": 8 // rounds, "gradient_accumulation_steps": rounds}
        made = make(study, tmp_path / str(rounds), objective, gated, max_steps=1, max_grad_norm=0.0, **args)
        made.model.double()
        found.append(step(made, monkeypatch))
        losses += [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert sum(gradient.abs().sum() for gradient in found[0]) > 1e-3
    for other in found[1:]:
        gaps = [(a - b).abs().max().item() for a, b in zip(found[0], other, strict=True)]
        assert max(gaps) < 1e-6 * max(1, *(gradient.abs().max().item() for gradient in found[0]))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


@pytest.mark.parametrize("gated", (False, True))
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_processes_change_no_loss(objective: str, gated: bool, study: Path, tmp_path: Path) -> None:
    """Processes average their gradients: of two that hold 4 responses each, the mean is the loss of all 8.

    Each is told, as gathering would, how many count in all.
    """
    made = make(study, tmp_path, objective, gated)
    moved(made.model)
    batch = written(made, UNLIKE)
    whole = made.compute_loss(made.model, batch).item()
    cut = split_tensor_dict(split_pixel_values_by_grid(batch), 2)
    made.accelerator = Two(made.accelerator)
    halves = [made.compute_loss(made.model, unsplit_pixel_values_by_grid(half)).item() for half in cut]
    assert sum(halves) / 2 == pytest.approx(whole, rel=1e-5) and whole > 0
    assert halves[0] != pytest.approx(halves[1], abs=1e-3)


class Two:
    """An accelerator that says there are two processes."""

    num_processes = 2

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def __getattr__(self, name: str) -> object:
        return getattr(self.accelerator, name)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_is_that_of_plain_sums(objective: str, study: Path, tmp_path: Path) -> None:
    """The trainer's gradient against autograd through whole logits, each response alone and without padding."""
    made = make(study, tmp_path, objective)
    moved(made.model)
    texts = [response("Yes", "dog"), response("No"), "no answer here", response("Yes", "cat and a dog")]
    batch = written(made, texts)
    batch["advantages"] = torch.tensor([0.5, -1.0, 2.0, 0.25])
    loss = made.compute_loss(made.model, batch)
    gradients = torch.autograd.grad(loss, trained(made.model))
    expected = brute_force(made, batch)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    if objective == "sequence":
        expected = -(batch["advantages"] * log_probabilities(made, batch)).mean()
    for found, wanted in zip(gradients, torch.autograd.grad(expected, trained(made.model)), strict=True):
        assert wanted.any() and torch.allclose(found, wanted, atol=1e-5 * wanted.abs().max().item(), rtol=1e-4)


def trained(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def moved(model: nn.Module) -> None:
    """Away from the start, where half of the adapter has no gradient; and sharp, so that entropies differ."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trained(model):
            parameter.add_(0.1 * torch.randn_like(parameter))


def alone(made: EntropyTrainer, batch: dict[str, object]) -> list[tuple[list[int], Tensor]]:
    """Each response's tokens and the logits (T + 1, V) at its prompt's end and at its own tokens."""
    found = []
    for n, tokens in enumerate(made.responses(batch)):
        prompt = batch["prompt_ids"][n][batch["prompt_mask"][n].bool()]
        ids = torch.cat([prompt, torch.tensor(tokens)])[None]
        patches = batch["image_grid_thw"].prod(-1).cumsum(0)
        pixels = batch["pixel_values"][patches[n] - batch["image_grid_thw"][n].prod() : patches[n]]
        kinds = (ids == vlm.picture_token_id(made.model)).long()
        logits = made.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels,
            image_grid_thw=batch["image_grid_thw"][n][None],
            mm_token_type_ids=kinds,
        ).logits
        found.append((tokens, logits[0, len(prompt) - 1 :]))
    return found


def log_probabilities(made: EntropyTrainer, batch: dict[str, object]) -> Tensor:
    rows = alone(made, batch)
    return torch.stack([sum(x.log_softmax(-1)[i, t] for i, t in enumerate(tokens)) for tokens, x in rows])


def brute_force(made: EntropyTrainer, batch: dict[str, object]) -> Tensor:
    if made.objective == "sequence":
        return -log_probabilities(made, batch).mean()
    if made.objective == "token":
        each = [(x[:-1].softmax(-1), x[:-1].log_softmax(-1)) for _, x in alone(made, batch)]
        return torch.cat([-(p * logp).sum(-1) for p, logp in each]).mean()
    opening = "<answer>"
    found = []
    for tokens, logits in alone(made, batch):
        texts = [made.tokenizer.decode(tokens[:n]) for n in range(len(tokens) + 1)]
        at = next((n for n, text in enumerate(texts) if opening in text), None)
        if at is not None:
            p = logits[at].softmax(-1)
            first, is_yes = [spelling[0] for spelling in made.spellings.spellings], made.spellings.is_yes
            yes, no = p[first][is_yes].sum(), p[first][~is_yes].sum()
            share = yes / (yes + no)
            found.append(-share * share.log() - (1 - share) * (1 - share).log())
    assert len(found) == 3
    return torch.stack(found).mean()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_scoring_finds_the_same_entropy(objective: str, study: Path, tmp_path: Path) -> None:
    """Preflight's other way to the loss, on responses that answer; and it notices an adapter away from its start."""
    made = make(study, tmp_path, objective)
    texts = [response("Yes", "dog"), response("No"), "no answer here", response("Yes", "cat and a dog")]
    batch = written(made, texts)
    steps = [(batch, made.compute_loss(made.model, batch).item())]
    assert entropy_start.deviation(made, steps) < 1e-5
    moved(made.model)
    assert entropy_start.deviation(made, [(batch, made.compute_loss(made.model, batch).item())]) > 1e-4
    assert math.isnan(entropy_start.deviation(made, []))


@pytest.mark.parametrize("objective", ("token", "sequence"))
def test_entropy_falls_and_only_the_adapter_moves(objective: str, study: Path, tmp_path: Path) -> None:
    made = make(study, tmp_path, objective, max_steps=10, learning_rate=3e-2, lr_scheduler_type="constant")
    frozen = {name: p.detach().clone() for name, p in made.model.named_parameters() if not p.requires_grad}
    moving = {name: p.detach().clone() for name, p in made.model.named_parameters() if p.requires_grad}
    runs.train(made)
    after = dict(made.model.named_parameters())
    assert any("visual" in name for name in frozen)
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())
    assert all("lora_" in name and not torch.equal(value, after[name]) for name, value in moving.items())
    logged = [entry[ENTROPIES[objective]] for entry in made.state.log_history if "loss" in entry]
    assert len(logged) == 10 and logged[-1] < logged[0] - 0.01


def test_the_decisions_entropy_falls_and_moves_every_tensor(study: Path, tmp_path: Path) -> None:
    """A random model never answers, so its responses are written for it; ten steps of plain gradient descent."""
    made = make(study, tmp_path, "decision")
    batch = written(
        made, [response("Yes", "dog"), response("No"), response("Yes", "cat and a dog"), response("No", "x")]
    )
    start = [parameter.detach().clone() for parameter in trained(made.model)]
    losses = []
    optimiser = torch.optim.AdamW(trained(made.model), lr=1e-2)
    for _ in range(10):
        loss = made.compute_loss(made.model, batch)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0] - 0.01
    assert not any(torch.equal(a, b) for a, b in zip(start, trained(made.model), strict=True))
    assert made._metrics["train"]["entropy_decision"] == pytest.approx(losses, abs=1e-6)


def test_one_shot_trains_on_one_prompt(study: Path, tmp_path: Path) -> None:
    """A group of 8 to a prompt is the whole batch; another seed draws another prompt."""
    args = {"prompts": 1, "num_generations": 8, "num_train_epochs": 3}
    made = {seed: tiny_study.train("em", study, tmp_path / str(seed), seed=seed, **args) for seed in (1, 2)}
    ids = {seed: tables.read(run["rollouts"], "rollouts")["id"].unique().to_list() for seed, run in made.items()}
    assert len(ids[1]) == len(ids[2]) == 1 and ids[1] != ids[2]
    described = json.loads(made[1]["run"].read_text())
    assert (described["num_prompts"], described["total_steps"]) == (1, 3)
    recipe = {"kind": "em", "prompts": 1, "args": {"num_generations": 8, "per_device_train_batch_size": 8}}
    planned = inventory.schedules(a_study(em=recipe), defaults(), 24, 18)
    assert planned["em"].total_steps == 3
    with pytest.raises(InputError, match="training: 1 prompts, but one generation batch takes 2"):
        tiny_study.train("em", study, tmp_path / "short", **{**args, "num_generations": 4})


def a_study(**methods: dict[str, object]) -> Study:
    raw = {
        "study": "x",
        "base_model": {"source": "demo"},
        "in_domain": "p",
        "datasets": {"p": {"reader": "pictograms"}},
    }
    return load_study(raw | {"methods": {"sft": {"kind": "sft"}, **methods}})


def test_a_study_says_where_em_sees_less(tmp_path: Path) -> None:
    """Fields have their defaults, errors name theirs, and fewer prompts than the others' are no match."""
    study = a_study(em={"kind": "em"}, shot={"kind": "em", "prompts": 1, "objective": "token"})
    assert (study.methods["em"].objective, study.methods["em"].prompts) == ("decision", None)
    assert not study.methods["em"].label_gated
    assert warnings_of(study) == ["methods are not matched: methods.shot.prompts = 1 but train_prompts = 'paired'"]
    with pytest.raises(InputError, match="methods.em.objective: no 'answer'.*There are decision, token, sequence"):
        a_study(em={"kind": "em", "objective": "answer"})
    with pytest.raises(
        InputError, match="methods.em.prompt: a study has one prompt|methods.em.label_gatd: unknown key"
    ):
        a_study(em={"kind": "em", "label_gatd": True})


def test_a_few_prompts_are_drawn_by_the_seed(study: Path) -> None:
    rows = rows_of(study)
    chosen = [few(rows, 5, seed)["id"].to_list() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2] and chosen[0] == sorted(chosen[0]) and len(chosen[0]) == 5
    assert few(rows, None, 1).equals(rows) and few(rows, 99, 1).equals(rows)


def test_rewards_are_recorded_and_not_trained_on(study: Path, tmp_path: Path) -> None:
    """Two studies that weigh vowels otherwise end in the same weights, to the bit."""
    ends = []
    for weight in (0.9, -5.0):
        work = tmp_path / str(weight)
        made = tiny_study.settings("em", objective="token", max_steps=2) | {
            "rewards": {**REWARDS, "tiny_study.vowels": weight}
        }
        where = tiny_study.inputs(study) | tiny_study.outputs(work) | {"work": work / "work", "threads": 1}
        work.mkdir()
        tiny_study.script("train_em")(**where, **made)
        ends.append((where["milestones"] / "1/adapter_model.safetensors").read_bytes())
        assert tables.read(where["rollouts"], "rollouts")["reward"].abs().max() > 0
    assert ends[0] == ends[1]


def test_the_sequences_baseline_is_counted(study: Path, tmp_path: Path) -> None:
    """Sampling 1, forward and backward 2, and the pass that the advantages take: 4, where the others take 3."""
    run = tiny_study.train("em", study, tmp_path, objective="sequence", max_steps=1)
    record = json.loads(run["run"].read_text())
    parameters = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32 + 64) + 32
    assert record["flops"] == 4 * 2 * parameters * record["tokens"]
    passes = [make(study, tmp_path, name, gated).extra_forwards for name in OBJECTIVES for gated in (False, True)]
    assert passes == [0, 1, 0, 0, 1, 1]  # the decision's gate takes one too
