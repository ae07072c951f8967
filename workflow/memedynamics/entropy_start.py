"""Whether EM starts at the base's own entropy: its loss on the responses of one step, and scoring's number for them.

Training reads whole sequences through the trainer's fused head, with the adapter on; scoring runs each prompt once,
continues it, and projects onto the whole vocabulary, with the adapter off. At step 0 both describe the base. A prompt
or prefix starts away from the base: there both read the policy as it is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from memedynamics import adapters, answers, forcing, vlm
from memedynamics.entropy_minimisation import PICTURES, EntropyTrainer
from memedynamics.soft_prompts import SoftPromptModel

Step = tuple[dict[str, object], float]  # a batch of responses as TRL drew them, and the mean loss on it, nat


@contextmanager
def observed(trainer: EntropyTrainer) -> Iterator[list[Step]]:
    """Collects every batch that the trainer takes a loss of inside, with that loss of its responses alone."""
    steps: list[Step] = []
    compute = trainer.compute_loss

    def record(model: torch.nn.Module, inputs: dict[str, object], *given: object, **named: object) -> Tensor:
        loss = compute(model, inputs, *given, **named)
        steps.append((inputs, loss.item() / (trainer.share(inputs).item() or 1.0)))
        return loss

    trainer.compute_loss = record
    try:
        yield steps
    finally:
        del trainer.compute_loss


def deviation(trainer: EntropyTrainer, steps: list[Step]) -> float:
    """The worst |loss − entropy of the base| of `steps`, nat (objective sequence: nat a token); NaN where none is."""
    training = trainer.model.training
    model = trainer.model.eval()
    with nullcontext() if isinstance(model, SoftPromptModel) else adapters.off(model), torch.inference_mode():
        gaps = [abs(loss - scored(trainer, batch)) / _scale(trainer, batch) for batch, loss in steps]
    trainer.model.train(training)
    return max(gaps) if gaps else float("nan")


def scored(trainer: EntropyTrainer, batch: Mapping[str, object]) -> float:
    """The trainer's objective (nat) of the model as it is, on the responses in `batch`, as scoring reads them."""
    model, tokenizer = trainer.model, trainer.tokenizer
    ends = vlm.end_token_ids(model, trainer.processing_class)
    rows = enumerate(trainer.responses(batch))
    texts = [forcing.read(n, tokens, tokenizer, trainer.prompt, ends) for n, tokens in rows]
    states = forcing.shared(model, _prompts(batch), texts, trainer.spellings)
    if trainer.objective == "decision":
        p = answers.decision(vlm.project(model, states.decision), trainer.spellings).p_hateful
        own = [n for n, text in enumerate(texts) if not text.forced]
        return (torch.special.entr(p) + torch.special.entr(1 - p))[own].mean().item() if own else 0.0
    logp = vlm.project(model, states.response).log_softmax(-1)
    if trainer.objective == "token":
        return -(logp.exp() * logp).sum(-1).mean().item()
    tokens = torch.tensor([token for text in texts for token in text.tokens], device=logp.device)
    return -logp.gather(-1, tokens[:, None]).sum().item() / len(texts)


def _prompts(batch: Mapping[str, object]) -> dict[str, Tensor]:
    """The prompts and pictures of `batch` as a model takes them."""
    length = batch["prompt_ids"].shape[1]
    found = {"input_ids": batch["prompt_ids"], "attention_mask": batch["prompt_mask"]}
    for name in PICTURES:
        if isinstance(value := batch.get(name), Tensor):
            found[name] = value[:, :length] if name.endswith("token_type_ids") else value
    return found


def _scale(trainer: EntropyTrainer, batch: Mapping[str, object]) -> float:
    return batch["completion_mask"].sum(-1).float().mean().item() if trainer.objective == "sequence" else 1.0
