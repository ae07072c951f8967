"""The decision of a batch, and its gradients: with respect to the input embeddings and to the adapter's factors.

1. Decision log-odds = log P(gold label) − log P(other label) at the first answer token, spellings summed. Where labels
   have several tokens only a spelling's first counts, and a first token that both labels share is left out.
2. φ of a token = ⟨∂ log-odds/∂e, e⟩, e its input embedding, picture features included (gradient × input; Shrikumar et
   al. 1605.01713). Exact for a linear function, where Σφ = f(e) − f(0); else a first-order reading.
   Qwen3-VL adds picture features inside its decoder too: what comes in there is no input and not in φ.
3. The scalar of the per-sample gradients is the negative log-likelihood of the gold answer, −log P(gold label), behind
   the same text. Its gradients meet no optimiser, no clipping and no dropout.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from memedynamics import vlm
from memedynamics.answers import Labels
from memedynamics.errors import InputError
from memedynamics.per_sample import Consumer, factors, recording

CHUNK = 8192  # embeddings averaged at once


class Question(NamedTuple):
    """A batch of B texts that end where the answer begins, and what is asked of them."""

    inputs: Mapping[str, Tensor]  # as `forcing.sequences` gives them, T tokens wide
    at: Tensor  # (B,) the position that predicts the first answer token
    hateful: Tensor  # (B,) bool, the gold label


class Answered(NamedTuple):
    """The log-odds of a batch and every token's share in them."""

    log_odds: Tensor  # (B,) nat
    phi: Tensor  # (B, T) nat


class FirstTokens(NamedTuple):
    """The tokens that begin the spellings of either label."""

    yes: list[int]
    no: list[int]


def first_tokens(labels: Labels) -> FirstTokens:
    """First tokens of yes and no that the other label does not begin with; InputError where a label has none."""
    starts = [
        {spelling[0] for spelling, yes in zip(labels.spellings, labels.is_yes.tolist(), strict=True) if yes == wanted}
        for wanted in (True, False)
    ]
    found = FirstTokens(sorted(starts[0] - starts[1]), sorted(starts[1] - starts[0]))
    if not (found.yes and found.no):
        raise InputError("prompt: labels: all spellings of yes and no begin with the same tokens; choose other words")
    return found


def decide(model: PreTrainedModel, question: Question, tokens: FirstTokens) -> tuple[Tensor, Tensor]:
    """(log-odds toward the gold label, −log P(gold label)), each (B,) float32, differentiable."""
    hidden = vlm.hidden_states(model, **question.inputs, use_cache=False).last_hidden_state
    row = torch.arange(len(hidden), device=hidden.device)
    logp = logits(model, hidden[row, question.at]).log_softmax(-1)
    yes, no = logp[:, tokens.yes].logsumexp(-1), logp[:, tokens.no].logsumexp(-1)
    gold = torch.where(question.hateful, yes, no)
    return gold - torch.where(question.hateful, no, yes), -gold


def logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Float32 logits (B, V) of states (B, d). Unlike `vlm.project` it can be differentiated on every device."""
    head = vlm.bare(model).lm_head
    if hidden.dtype == torch.float32 or type(head) is not nn.Linear:
        return head(hidden).float()
    bias = None if head.bias is None else head.bias.float()
    return nn.functional.linear(hidden.float(), head.weight.float(), bias)


@contextmanager
def embedded(model: PreTrainedModel, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, the decoder reads edit(e) in place of its input embeddings e (B, T, d), picture features among them."""

    def replace(_: nn.Module, args: tuple, given: dict) -> tuple[tuple, dict]:
        return args, {**given, "inputs_embeds": edit(given["inputs_embeds"])}

    handle = vlm.bare(model).get_decoder().register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def answer(
    model: PreTrainedModel, question: Question, tokens: FirstTokens, consume: Consumer | None = None
) -> Answered:
    """Log-odds and φ of a batch; `consume` gets the per-sample gradients (n, out, r) of each layer's factor B."""
    leaf: list[Tensor] = []

    def begin(embeddings: Tensor) -> Tensor:
        leaf.append(embeddings.detach().requires_grad_())
        return leaf[0]

    layers = factors(model) if consume else {}
    with torch.enable_grad(), recording(layers) as recorder, embedded(model, begin):
        log_odds, loss = decide(model, question, tokens)
        (gradient,) = torch.autograd.grad(log_odds.sum(), leaf, retain_graph=bool(layers))
        if layers:
            recorder.consume = consume
            torch.autograd.grad(loss.sum(), leaf)
    phi = (gradient.float() * leaf[0].detach().float()).sum(-1)
    return Answered(log_odds.detach(), phi)


@torch.no_grad()
def occluded(
    model: PreTrainedModel, question: Question, tokens: FirstTokens, masks: Sequence[Tensor], mean: Tensor
) -> Tensor:
    """What each of G groups adds to the log-odds, (G, B): log-odds minus those with the group's embeddings at `mean`.

    `masks`: (B, T) bool each; `mean` (d,) from `mean_embedding`.
    """

    def log_odds(mask: Tensor | None) -> Tensor:
        replaced = nullcontext() if mask is None else embedded(model, lambda e: torch.where(mask[..., None], mean, e))
        with replaced:
            return decide(model, question, tokens)[0]

    whole = log_odds(None)
    return torch.stack([whole - log_odds(mask) for mask in masks])


@torch.no_grad()
def mean_embedding(model: PreTrainedModel) -> Tensor:
    """The mean input embedding of the vocabulary, (d,): what an occluded token is replaced with."""
    table = vlm.bare(model).get_input_embeddings()
    ids = torch.arange(table.weight.shape[0], device=table.weight.device)
    return (sum(table(some).float().sum(0) for some in ids.split(CHUNK)) / len(ids)).to(table.weight.dtype)
