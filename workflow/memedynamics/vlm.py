"""The vision-language model behind one interface for all families: load, encode, hidden states, logits.

Every supported class has an inner model (`.model`: tower, projector and text decoder) under an `lm_head`.
"""

import functools
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, PreTrainedModel, ProcessorMixin
from transformers.utils import ModelOutput

from memedynamics import processes
from memedynamics.prompts import messages

REMEMBERED = 4  # batches of pictures whose features are kept at once


def load_model(folder: Path, dtype: str = "float32", attn_implementation: str = "sdpa") -> PreTrainedModel:
    """The model in `folder`, in eval mode, frozen, on the GPU where there is one, unless it is to lie in shards."""
    model = AutoModelForImageTextToText.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=attn_implementation,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    whole = torch.cuda.is_available() and not processes.sharding()
    return model.requires_grad_(False).eval().to("cuda" if whole else "cpu")


def load_processor(folder: Path, **overrides: object) -> ProcessorMixin:
    """The processor in `folder`: pads on the left, with a pad token, and with the BOS in its chat template."""
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **overrides)
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    _bos_in_template(processor)
    return processor


def _bos_in_template(processor: ProcessorMixin) -> None:
    # Some tokenizers add the BOS themselves and some templates write it. Trainers tokenize rendered prompts
    # without special tokens, others with: only a BOS in the template is one BOS everywhere.
    tokenizer = processor.tokenizer
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("x").input_ids[0] == tokenizer.bos_token_id
    if adds_bos and not render(processor, "x").startswith(tokenizer.bos_token):
        processor.chat_template = "{{ bos_token }}" + processor.chat_template


def render(processor: ProcessorMixin, content: str) -> str:
    """The prompt's text: one picture and `content` in the model's chat template, up to the response."""
    return processor.apply_chat_template(messages(content), add_generation_prompt=True, tokenize=False)


def encode(processor: ProcessorMixin, contents: list[str], images: list[Image.Image]) -> BatchFeature:
    """Model inputs of B prompts, left-padded; move and cast with `.to(model.device, model.dtype)`."""
    texts = [render(processor, content) for content in contents]
    pictures = [[image] for image in images]
    return processor(text=texts, images=pictures, padding=True, add_special_tokens=False, return_tensors="pt")


def bare(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model itself, with whatever adapters sit in its layers."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def hidden_states(model: PreTrainedModel | PeftModel, **inputs: object) -> ModelOutput:
    """The model without `lm_head`: `last_hidden_state` (B, T, d) and `past_key_values`."""
    return bare(model).model(**inputs, return_dict=True)


def project(model: PreTrainedModel | PeftModel, hidden: torch.Tensor) -> torch.Tensor:
    """Float32 logits (…, V) of hidden states (…, d), accumulated in float32 whatever the model's dtype.

    A head that rounds its logits to bfloat16 is off by up to 0.06 at a logit of 20: as much as a small KL.
    """
    head = bare(model).lm_head
    if hidden.dtype == torch.float32:
        return head(hidden)
    rows = hidden.reshape(-1, hidden.shape[-1])
    if rows.is_cuda:
        logits = torch.mm(rows, head.weight.T, out_dtype=torch.float32)
    else:
        logits = rows.float() @ head.weight.float().T
    logits = logits if head.bias is None else logits + head.bias.float()
    return logits.view(*hidden.shape[:-1], logits.shape[-1])


@contextmanager
def remembered_pictures(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Inside, the features of equal `pixel_values` (and grids or masks) are computed once; the last few are kept.

    Right only while tower and projector do not change, as with adapters on the text decoder alone.
    """
    inner = bare(model).model
    compute = inner.get_image_features
    memory: deque[tuple[list[torch.Tensor], ModelOutput]] = deque(maxlen=REMEMBERED)

    # `generate` reads the signature.
    @functools.wraps(compute)
    def remember(*args: object, **kwargs: object) -> ModelOutput:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        found = next((features for seen, features in memory if _equal(seen, given)), None)
        if found is None:
            found = compute(*args, **kwargs)
            memory.append((given, found))
        return found

    inner.get_image_features = remember
    try:
        yield
    finally:
        del inner.get_image_features


def _equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    # By value, not identity: moving a batch to the GPU makes new tensors, and comparing costs far less than a tower.
    return len(some) == len(others) and all(
        a.shape == b.shape and a.device == b.device and torch.equal(a, b) for a, b in zip(some, others, strict=True)
    )


def end_token_ids(model: PreTrainedModel | PeftModel, processor: ProcessorMixin) -> set[int]:
    """Tokens that end a response: those of the generation config and the tokenizer's EOS."""
    ends = bare(model).generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return {end for end in [*ends, processor.tokenizer.eos_token_id] if end is not None}


def picture_token_id(model: PreTrainedModel | PeftModel) -> int:
    """The token that holds a picture's place in a prompt; a response with one has no picture for it."""
    return bare(model).config.image_token_id
