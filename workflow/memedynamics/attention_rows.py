"""The attention of a prompt's last token in every layer, read off an ordinary SDPA forward.

Eager attention forms T × T weights in every layer; only the last row is wanted. Here SDPA computes the outputs, bit for
bit as ever, and softmax(q_last Kᵀ) is formed beside it: O(T) memory a head instead of O(T²).

1. Scores and softmax are float32 whatever the model's dtype.
2. The row keeps to SDPA's own mask, so left padding and what lies outside a sliding window hold exactly 0.
3. Grouped key heads are read in place, not repeated.
4. Virtual tokens (`soft_prompts`) are left out: the row is what remains, scaled to add up to 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from memedynamics.soft_prompts import virtual_tokens
from memedynamics.vlm import bare

NAME = "sdpa_with_last_row"


@contextmanager
def last_rows(model: PreTrainedModel | PeftModel) -> Iterator[list[torch.Tensor]]:
    """Inside, every forward appends one (B, heads, T) float32 a decoder layer, in order, to the list that is given.

    The text decoder attends by SDPA meanwhile, whatever it was loaded with. One model at a time.
    """
    rows: list[torch.Tensor] = []
    virtual = virtual_tokens(model)

    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **kwargs: object,
    ) -> tuple[torch.Tensor, None]:
        rows.append(_visible(last_row(query, key, attention_mask, scaling), virtual))
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    config = bare(model).get_decoder().config
    before, config._attn_implementation = config._attn_implementation, NAME
    try:
        yield rows
    finally:
        config._attn_implementation = before


def _visible(row: torch.Tensor, virtual: int) -> torch.Tensor:
    rest = row[..., virtual:]
    return rest / rest.sum(-1, keepdim=True) if virtual else row


def last_row(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scaling: float | None = None
) -> torch.Tensor:
    """softmax(q_last Kᵀ · scaling) (B, H, T) float32 of query (B, H, Q, D) and key (B, H/g, T, D).

    `mask` (B or 1, H or 1, Q, T) as SDPA takes it: True, or a number added, where the query may look; None for all.
    """
    batch, heads, _, width = query.shape
    last = query[:, :, -1].float().view(batch, key.shape[1], -1, width)
    scores = last @ key.float().transpose(-1, -2) * (width**-0.5 if scaling is None else scaling)
    scores = scores.view(batch, heads, -1)
    if mask is not None:
        final = mask[:, :, -1, : scores.shape[-1]]
        scores = scores.masked_fill(~final, -torch.inf) if final.dtype == torch.bool else scores + final
    return scores.softmax(-1)
