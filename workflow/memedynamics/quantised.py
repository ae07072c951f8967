"""The base model in four bits for QLoRA (Dettmers et al., 2305.14314): NF4 with double quantisation, by bitsandbytes.

1. Only the text decoder's linear layers are quantised; embeddings, head, norms, vision tower and projector stay in the
   study's dtype, so that training sees the pictures that sampling and scoring see.
2. Weights are dequantised to the study's dtype where they are used (`bnb_4bit_compute_dtype`).
3. It also runs on a CPU. bitsandbytes' faster kernels for inference there are turned off: they repack the weights in a
   way that training cannot read, and round the quantisation's own scales to bfloat16.
"""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, BitsAndBytesConfig, PreTrainedModel

from memedynamics.config import BaseModelConfig


def load_quantised(folder: Path, base: BaseModelConfig) -> PreTrainedModel:
    """The model in `folder` in NF4, in eval mode, frozen, on the GPU where there is one."""
    with torch.device("meta"):
        empty = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, base.dtype),
        llm_int8_skip_modules=_outside(empty),
    )
    model = AutoModelForImageTextToText.from_pretrained(
        folder,
        dtype=base.dtype,
        attn_implementation=base.attn_implementation,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        quantization_config=quantisation,
        device_map={"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"},
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.requires_grad_(False).eval()


def _outside(model: PreTrainedModel) -> list[str]:
    """Names of what is not quantised: the head, and all of the inner model but its text decoder."""
    decoder = model.get_decoder()
    return ["lm_head", *(f"model.{name}" for name, child in model.model.named_children() if child is not decoder)]
