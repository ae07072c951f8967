"""Gradients of all objectives on one policy and the same memes, with respect to its LoRA factors.

1. Every objective is Σ_k c_k ∇s_k over a prompt's responses y_k (`objectives`), with three kinds of s: log π(y_k), the
   decision's log-odds, the summed token entropies. So a batch costs one forward pass over its distinct responses and
   three backward passes, whatever the number of objectives.
2. Per response: rows of a batch do not mix in a backward pass, so hooks on a factor see its input x and the gradient δ
   of its output, and Σ_t δ_t x_tᵀ of each row is that response's gradient. It lives while its module is passed, is
   weighted into the objectives of its meme, sketched, and dropped.
3. Whole sequences, the prompt behind the picture included: the adapter acts on prompt tokens too. No shared prefix,
   which would mix responses.
4. Logits exist for CHUNK positions at a time: their derivatives are written out, and only gradients of hidden states
   are kept.
5. Token entropies are differentiated at the prefixes drawn: what em_token leaves out is the prefixes' own gradient.
6. A label of several tokens is read at its first one; tokens that begin both labels do not count.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import forcing, vlm
from memedynamics.answers import Labels
from memedynamics.batching import halving
from memedynamics.errors import InputError
from memedynamics.gradient_sketches import Sketch
from memedynamics.objectives import DECISION, ENTROPY, OBJECTIVES, SEQUENCE
from memedynamics.prompts import Prompt

CHUNK = 1024  # positions whose logits are held at once
KINDS = (SEQUENCE, DECISION, ENTROPY)
PARTS = {"A": "lora_A", "B": "lora_B"}


class Responded(NamedTuple):
    """One prompt with K responses and each objective's coefficients on them."""

    content: str
    image: Image.Image
    token_ids: list[list[int]]
    coefficients: dict[str, np.ndarray]  # by objective, (K,)


class Row(NamedTuple):
    """One distinct response in a batch, with the coefficients of all responses equal to it."""

    meme: int
    text: forcing.Text
    weights: np.ndarray  # (O,) in the order of OBJECTIVES


class Slopes(NamedTuple):
    """Derivatives by the states (N, R, d) of the rows' log π, decision log-odds and summed entropies."""

    sequence: Tensor
    decision: Tensor
    entropy: Tensor


def plain_lora(model: PreTrainedModel | PeftModel) -> str | None:
    """Why the gradients of `model`'s adapter are not taken, if so: this module knows LoRA's two factors alone."""
    layers = [module for module in vlm.bare(model).modules() if isinstance(module, LoraLayer)]
    if not layers:
        return "the run has no LoRA factors whose gradients could be compared"
    if any(layer.lora_variant for layer in layers):
        return "its adapter is a variant of LoRA (such as DoRA) with further parameters"
    if type(vlm.bare(model).lm_head) is not nn.Linear:
        return "its adapter changes the output head"
    return None


@dataclass
class Differentiator:
    """Takes gradients of batches of memes on the policy that is active in `model`."""

    model: PeftModel
    processor: ProcessorMixin
    prompt: Prompt
    sketches: dict[str, Sketch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labels = Labels(self.processor.tokenizer, self.prompt)
        self.ends = vlm.end_token_ids(self.model, self.processor)
        self.answers = first_tokens(self.labels)

    def gradients(self, memes: Sequence[Responded]) -> dict[str, Tensor]:
        """Sketched gradients (M, O, width) of `memes`, by part `<module>/A` or `<module>/B`; ascent of each objective.

        Where memory runs out, half the responses at a time.
        """
        rows = sorted(self._rows(memes), key=lambda row: len(row.text.fed))
        found = halving(lambda some: [self._take(memes, some)], rows)
        return {part: sum(one[part] for one in found) for part in found[0]}

    def _rows(self, memes: Sequence[Responded]) -> list[Row]:
        rows = []
        for index, meme in enumerate(memes):
            table = np.stack([meme.coefficients[name] for name in OBJECTIVES])
            distinct: dict[tuple[int, ...], np.ndarray] = {}
            for tokens, weights in zip(map(tuple, meme.token_ids), table.T, strict=True):
                distinct[tokens] = distinct.get(tokens, 0.0) + weights
            for tokens, weights in distinct.items():
                text = forcing.read(index, tokens, self.processor.tokenizer, self.prompt, self.ends)
                rows.append(Row(index, text, weights))
        return rows

    def _take(self, memes: Sequence[Responded], rows: Sequence[Row]) -> dict[str, Tensor]:
        totals: dict[str, Tensor] = {}
        chosen = [memes[row.meme] for row in rows]
        inputs = forcing.sequences(
            self.processor, [m.content for m in chosen], [m.image for m in chosen], [row.text.fed for row in rows]
        )
        weights = Weights(len(memes), rows, self.model.device)
        with hooked(self.model, partial(self._collect, weights, totals)), torch.enable_grad():
            inputs = inputs.to(self.model.device, self.model.dtype)
            states = vlm.hidden_states(self.model, **inputs, use_cache=False).last_hidden_state
            states = states[:, -1 - max(1, *(len(row.text.fed) for row in rows)) :]
            slopes = slopes_of(self.model, states.detach(), [row.text for row in rows], self.answers)
            for names, slope in zip(KINDS, slopes, strict=True):
                weights.kind = names
                states.backward(slope, retain_graph=names is not KINDS[-1])
        return totals

    def _collect(self, weights: "Weights", totals: dict[str, Tensor], part: str, x: Tensor, slope: Tensor) -> None:
        per_row = torch.einsum("nto,nti->noi", slope.float(), x.float()).flatten(1)
        if part not in self.sketches:
            self.sketches[part] = Sketch(part, per_row.shape[1], per_row.device)
        sketch = self.sketches[part]
        if part not in totals:
            totals[part] = per_row.new_zeros(weights.memes, len(OBJECTIVES), sketch.width)
        at = slice(OBJECTIVES.index(weights.kind[0]), OBJECTIVES.index(weights.kind[-1]) + 1)
        for meme, (index, table) in weights.by_meme.items():
            totals[part][meme, at] += sketch(table[at] @ per_row[index])


class Weights:
    """The coefficients of a batch's rows by meme, and the kind of objective whose backward pass is under way."""

    def __init__(self, memes: int, rows: Sequence[Row], device: torch.device) -> None:
        self.memes, self.kind = memes, SEQUENCE
        places: dict[int, list[int]] = {}
        for n, row in enumerate(rows):
            places.setdefault(row.meme, []).append(n)
        self.by_meme = {
            meme: (
                torch.tensor(index, device=device),
                torch.tensor(np.stack([rows[n].weights for n in index], axis=1), dtype=torch.float32, device=device),
            )
            for meme, index in places.items()
        }


@contextmanager
def hooked(model: PeftModel, collect: "partial[None]") -> Iterator[None]:
    """Inside, `collect(part, x, slope)` is called for each LoRA factor that a backward pass meets.

    x (N, T, in) is the factor's input, slope (N, T, out) the gradient of its output.
    """

    def watch(part: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        x = args[0].detach()
        output.register_hook(lambda slope: collect(part, x, slope))

    handles = [
        # Frozen weights all through: the graph begins at the embeddings.
        vlm.bare(model).get_input_embeddings().register_forward_hook(lambda m, a, output: output.requires_grad_(True))
    ]
    for name, module in vlm.bare(model).named_modules():
        if isinstance(module, LoraLayer):
            for factor, attribute in PARTS.items():
                for linear in getattr(module, attribute).values():
                    handles.append(linear.register_forward_hook(partial(watch, f"{name}/{factor}")))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first_tokens(labels: Labels) -> tuple[list[int], list[int]]:
    """The tokens that only a yes begins with, and those that only a no does; a bare space begins both.

    Raises InputError where one of them has no token of its own.
    """
    pairs = list(zip(labels.spellings, labels.is_yes.tolist(), strict=True))
    yes, no = ({spelling[0] for spelling, is_yes in pairs if is_yes == wanted} for wanted in (True, False))
    if not (yes - no and no - yes):
        raise InputError("prompt: labels.yes and labels.no begin with the same token; choose others")
    return sorted(yes - no), sorted(no - yes)


@torch.no_grad()
def slopes_of(
    model: PeftModel, states: Tensor, texts: Sequence[forcing.Text], answers: tuple[list[int], list[int]]
) -> Slopes:
    """Slopes at `states` (N, R, d), of which [n, t] predicts token t of text n.

    With p = softmax(z): ∂log p_y/∂z = 1_y − p, ∂H/∂z = −p (log p + H), and for the log-odds of two token sets
    softmax over the one minus softmax over the other; ∂z/∂h is the head's weight.
    """
    rows = [n for n, text in enumerate(texts) for _ in text.tokens]
    at = [t for text in texts for t in range(len(text.tokens))]
    targets = torch.tensor([token for text in texts for token in text.tokens], device=states.device)
    found = Slopes(*(torch.zeros_like(states) for _ in range(3)))
    for start in range(0, len(rows), CHUNK):
        here = slice(start, start + CHUNK)
        logp = vlm.project(model, states[rows[here], at[here]]).log_softmax(-1)
        p = logp.exp()
        entropy = -(p * logp).sum(-1, keepdim=True)
        found.entropy[rows[here], at[here]] = _back(model, -p * (logp + entropy), states.dtype)
        found.sequence[rows[here], at[here]] = _back(model, _one_hot(targets[here], p) - p, states.dtype)
    decided = list(range(len(texts))), [text.decision for text in texts]
    logits = vlm.project(model, states[decided])
    slope = torch.zeros_like(logits)
    for tokens, sign in zip(answers, (1, -1), strict=True):
        slope[:, tokens] = sign * logits[:, tokens].softmax(-1)
    found.decision[decided] = _back(model, slope, states.dtype)
    return found


def _back(model: PeftModel, slope: Tensor, dtype: torch.dtype) -> Tensor:
    weight = vlm.bare(model).lm_head.weight
    return (slope.to(weight.dtype) @ weight).to(dtype)


def _one_hot(targets: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(1, targets[:, None], 1.0)
