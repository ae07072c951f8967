"""Gradients of all objectives on one policy and the same memes, with respect to its LoRA factors.

1. Every objective is Σ_k c_k ∇s_k over a prompt's responses y_k (`objectives`), with three kinds of s: log π(y_k), the
   decision's log-odds, the summed token entropies. So a batch costs one forward pass over its distinct responses and
   three backward passes, whatever the number of objectives.
2. Per response: rows of a batch do not mix in a backward pass, so hooks on a factor see its input x and the gradient δ
   of its output, and Σ_t δ_t x_tᵀ of each row is that response's gradient. It lives while its module is passed, is
   weighted into the objectives of its meme, sketched, and dropped.
3. Whole sequences, the prompt behind the picture included: the adapter acts on prompt tokens too. No shared prefix,
   which would mix responses.
4. The derivatives by the hidden states are written out (`objective_slopes`), so no graph holds logits.
"""

from collections.abc import Sequence
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
from memedynamics.decision_gradients import embedded, first_tokens
from memedynamics.gradient_sketches import Sketch
from memedynamics.objective_slopes import slopes_of
from memedynamics.objectives import DECISION, ENTROPY, OBJECTIVES, SEQUENCE
from memedynamics.per_sample import factors, recording
from memedynamics.prompts import Prompt

KINDS = (SEQUENCE, DECISION, ENTROPY)


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


def parts(model: PeftModel) -> dict[str, nn.Linear]:
    """The factors of the adapter that is on, by part: `<module>/A` and `<module>/B`."""
    return {f"{name}/{which}": layer for which in ("A", "B") for name, layer in factors(model, which).items()}


def _leaf(embeddings: Tensor) -> Tensor:
    # Frozen weights all through: the graph begins at the embeddings.
    return embeddings.detach().requires_grad_()


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
        layers = parts(self.model)
        with recording(layers) as recorder, embedded(self.model, _leaf), torch.enable_grad():
            recorder.consume = partial(self._collect, weights, totals)
            inputs = inputs.to(self.model.device, self.model.dtype)
            states = vlm.hidden_states(self.model, **inputs, use_cache=False).last_hidden_state
            states = states[:, -1 - max(1, *(len(row.text.fed) for row in rows)) :]
            slopes = slopes_of(self.model, states.detach(), [row.text for row in rows], self.answers)
            for names, slope in zip(KINDS, slopes, strict=True):
                weights.kind = names
                states.backward(slope, retain_graph=names is not KINDS[-1])
        return totals

    def _collect(self, weights: "Weights", totals: dict[str, Tensor], part: str, found: Tensor) -> None:
        per_row = found.flatten(1)
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
