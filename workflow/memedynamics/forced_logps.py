"""Log-probabilities of a few real responses, read off any model by teacher forcing: what preflight compares."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl
import torch
from peft import PeftModel
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import forcing, vlm
from memedynamics.answers import Labels
from memedynamics.images import open_image
from memedynamics.prompts import Prompt

# Nat a token. On 28 random layers the same sums in another order, and a merged adapter of 0.3 nat, gave 1e-6 and 5e-6
# (float32), 0.003 and 0.006 (float16), 0.02 and 0.04 (bfloat16, 8 bits: a logit of 20 is rounded to eighths).
TOLERANCE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}


class Reader(NamedTuple):
    """B memes with base samples of each."""

    processor: ProcessorMixin
    labels: Labels
    contents: list[str]
    images: list[Image.Image]
    texts: list[forcing.Text]
    stored: list[float]  # Σ log π0 of each text, as sampling wrote it

    def prompts(self) -> list[list[int]]:
        """Token ids of each prompt, as sampling and scoring feed them."""
        return unpadded(**vlm.encode(self.processor, self.contents, self.images))

    def plain(self, model: PreTrainedModel | PeftModel) -> list[torch.Tensor]:
        """log π of every token (T,), a tensor a response, from whole sequences: nothing shared, nothing cached."""
        few = (self.processor, self.contents, self.images, self.texts, self.labels)
        return self._logps(model, forcing.plain(model, *few))

    def shared(self, model: PreTrainedModel | PeftModel) -> list[torch.Tensor]:
        """The same as scoring gets it: each prompt run once and continued by its responses."""
        inputs = vlm.encode(self.processor, self.contents, self.images).to(model.device, model.dtype)
        return self._logps(model, forcing.shared(model, inputs, self.texts, self.labels))

    @torch.inference_mode()
    def _logps(self, model: PreTrainedModel | PeftModel, states: forcing.States) -> list[torch.Tensor]:
        # A response at a time: the logits of all may not fit.
        parts = states.response.split([len(text.tokens) for text in self.texts])
        return [_picked(vlm.project(model, part), text.tokens) for part, text in zip(parts, self.texts, strict=True)]


def reader(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompt: Prompt,
    rows: pl.DataFrame,
    samples: pl.DataFrame,
    num_samples: int,
) -> Reader:
    """Of the memes in `rows` (examples.training_rows), the first `num_samples` of their base `samples` each."""
    ends, place = vlm.end_token_ids(model, processor), {meme: n for n, meme in enumerate(rows["id"])}
    # A response may hold the token that stands for a picture: without a cache the model would look for that picture.
    pictured = pl.col("token_ids").list.contains(vlm.bare(model).config.image_token_id)
    few = samples.filter(pl.col("id").is_in(list(place)), pl.col("sample") < num_samples, ~pictured)
    few = few.sort("id", "sample")
    texts = [
        forcing.read(place[meme], tokens, processor.tokenizer, prompt, ends)
        for meme, tokens in few.select("id", "token_ids").iter_rows()
    ]
    images = [open_image(path) for path in rows["image"]]
    labels = Labels(processor.tokenizer, prompt)
    return Reader(processor, labels, rows["content"].to_list(), images, texts, few["logp"].to_list())


def unpadded(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: object) -> list[list[int]]:
    """The token ids of each row of a padded batch."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]


def gap(these: Sequence[torch.Tensor], those: Sequence[torch.Tensor]) -> float:
    """The worst response's mean |Δ log π|, in nat a token."""
    return max((a - b).abs().mean().item() for a, b in zip(these, those, strict=True))


def _picked(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    return logits.log_softmax(-1)[range(len(tokens)), list(tokens)]
