"""Prompt and prefix tuning of vision-language models: V virtual tokens that every token of the text decoder can see.

1. Prompt tuning (Lester et al., 2104.08691) learns V embeddings before the sequence, prefix tuning (Li & Liang,
   2101.00190) their keys and values in every layer. Attention is causal, so what an embedding becomes depends on
   nothing behind it: either way a layer has V keys and values, which its attention puts before those of the sequence.
2. To everything outside the decoder a sequence keeps its T tokens: logits, caches, masks, losses and `generate` never
   meet a virtual token. PEFT's own forward instead lengthens the inputs by V embeddings without their token ids, which
   loses the places of pictures, the rotary axes of Qwen-VL, and whatever calls the inner model directly.
3. Positions: virtual tokens have 0 … V-1, and the sequence's, on every rotary axis, are V higher. Where the model would
   count padding they are counted from the mask, for the distance to the virtual tokens matters.
4. Virtual tokens are seen from everywhere, also through a sliding window.
5. Files are PEFT's own: `adapter_config.json` and `prompt_embeddings` in `adapter_model.safetensors`. PEFT's forward
   gives the same logits where positions run on one axis and windows reach to the start.
"""

from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig
from transformers import PreTrainedModel

from memedynamics.errors import InputError
from memedynamics.methods import Adapter
from memedynamics.soft_prompt_model import SoftPromptModel

CONFIGS = {"prompt": PromptTuningConfig, "prefix": PrefixTuningConfig}
# Embeddings of sampled tokens are of the size the decoder knows (Lester et al.); PEFT draws from N(0, 1) by default.
DEFAULTS = {"prompt": {"prompt_tuning_init": "SAMPLE_VOCAB"}, "prefix": {}}
OPTIONS = {
    "prompt": ("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
    "prefix": ("init_weights",),
}
CHOICES = {"prompt_tuning_init": ("RANDOM", "SAMPLE_VOCAB", "TEXT"), "init_weights": (None, "zero")}


def soft_config(model: PreTrainedModel, adapter: Adapter) -> PeftConfig:
    """PEFT's config of a `prompt` or `prefix` adapter; raises InputError on options that are none of its."""
    for name in adapter.options:
        if name not in OPTIONS[adapter.kind]:
            known = ", ".join(OPTIONS[adapter.kind])
            raise InputError(f"adapter.options.{name}: {adapter.kind} tuning has no such option; it takes {known}")
    for name, values in CHOICES.items():
        if adapter.options.get(name, values[0]) not in values:
            known = ", ".join(map(str, values))
            raise InputError(f"adapter.options.{name} {adapter.options[name]!r}: is none of {known}")
    options = {**DEFAULTS[adapter.kind], **adapter.options}
    if options.get("prompt_tuning_init") == "TEXT":
        options.setdefault("tokenizer_name_or_path", model.name_or_path)
    try:
        return CONFIGS[adapter.kind](task_type="CAUSAL_LM", num_virtual_tokens=adapter.tokens, **options)
    except ValueError as error:
        raise InputError(f"adapter.options: {error}") from error


def fresh(model: PreTrainedModel, adapter: Adapter, seed: int) -> SoftPromptModel:
    """`model` with a `prompt` or `prefix` that is still to be trained, drawn with `seed`."""
    config = soft_config(model, adapter)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = SoftPromptModel(model, config)
    policy.starts_at = "own"
    return policy


def load(model: PreTrainedModel, folder: Path, name: str) -> SoftPromptModel:
    """`model` with the saved prompt or prefix in `folder`, frozen, as adapter `name`; `load_adapter` adds more."""
    return _loaded(model, folder, name, trainable=False)


def load_trainable(model: PreTrainedModel, folder: Path) -> SoftPromptModel:
    """`model` with the saved prompt or prefix in `folder`, to be trained on."""
    return _loaded(model, folder, "default", trainable=True)


def _loaded(model: PreTrainedModel, folder: Path, name: str, trainable: bool) -> SoftPromptModel:
    config = PeftConfig.from_pretrained(folder)
    config.inference_mode = not trainable
    policy = SoftPromptModel(model, config, name)
    policy.load_adapter(folder, name, is_trainable=trainable)
    return policy


def virtual_tokens(model: PreTrainedModel | PeftModel) -> int:
    """How many keys every attention layer of `model` now sees before those of the sequence.

    They are made here where they were not yet, so that none of the attention that follows is their own.
    """
    if not isinstance(model, SoftPromptModel) or model._adapters_disabled:
        return 0
    return model.pairs()[0].keys.shape[-2]
