"""The embedded demo's base model: a tiny Qwen2.5-VL, made and trained from scratch on generated memes.

1.3 M parameters, a tokenizer of its own, the real model and processor classes. What it is taught is imperfect on
purpose (`demo_text`), so that there is something for SFT, DPO and GRPO to mend.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from memedynamics import demo_state, vlm
from memedynamics.config import DemoTraining
from memedynamics.demo_text import target, varied
from memedynamics.images import open_image
from memedynamics.job import progress
from memedynamics.pictograms import Scene, scene
from memedynamics.prompts import Prompt, user_text

VOCABULARY, WIDTH, BATCH, LEARNING_RATE = 600, 128, 16, 3e-3
KEPT_EVERY = 20  # steps, between states that a killed training goes on from
# The usual 0.02 suits thousands of dimensions: at 128 attention starts out flat and stays so for hundreds of steps.
INITIAL = 0.08
PIXELS = 84 * 84  # 9 picture tokens
SPECIAL = {
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_and_train(
    data: pl.DataFrame, prompt: Prompt, question: str, settings: DemoTraining, folder: Path, threads: int, work: Path
) -> None:
    """Train the demo's model on the memes in `data` and save it, with its processor, into `folder`.

    What a killed training had reached is kept in `work`. Equal seeds give equal bytes on one machine with the same
    number of `threads`.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True)
    # It would fill all new memory first, a seventh of a step; nothing here reads memory that nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False
    rng = np.random.default_rng(settings.seed)
    scenes = [scene(id) for id in data["id"]]
    pictures = [open_image(Path(path)) for path in data["image"]]

    def lesson(meant: Scene) -> tuple[str, str]:
        return user_text(prompt, question, varied(meant, rng)), target(meant, prompt, settings, rng)

    corpus = [text for meant in scenes for _ in range(4) for text in lesson(meant)]
    processor = make_processor([*corpus, *spellings(prompt) * len(scenes)])
    model = make_model(processor.tokenizer)
    lessons = partial(map, lambda i: lesson(scenes[i]))
    train(model, processor, pictures, lessons, settings.steps, rng, work / "state.pt")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def spellings(prompt: Prompt) -> list[str]:
    """The answers' spellings, for the tokenizer to make one token of each, as a real model's does."""
    words = [word for label in prompt.labels.values() for word in (label, label.lower(), label.upper())]
    return [*words, *[f" {word}" for word in words]]


def make_processor(corpus: list[str]) -> Qwen2_5_VLProcessor:
    """A processor whose byte-level BPE tokenizer is trained on `corpus`."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", *[token for token in SPECIAL.values() if token != "<|endoftext|>"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=SPECIAL["eos_token"],
        pad_token=SPECIAL["pad_token"],
        extra_special_tokens={k: v for k, v in SPECIAL.items() if k not in ("eos_token", "pad_token")},
        padding_side="left",
    )
    size = {"shortest_edge": 28 * 28, "longest_edge": PIXELS}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=TEMPLATE,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """The untrained model: 4 text layers of width 128, 2 vision layers of width 64."""
    text = {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": True,
        "initializer_range": INITIAL,
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_heads": 4,
        "patch_size": 14,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [1],
        "initializer_range": INITIAL,
    }
    ids = {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in NAMED.items()}
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


NAMED = {
    "image_token": SPECIAL["image_token"],
    "video_token": SPECIAL["video_token"],
    "vision_start_token": SPECIAL["vision_bos_token"],
    "vision_end_token": SPECIAL["vision_eos_token"],
}


def train(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    pictures: list[Image.Image],
    lessons: Callable[[np.ndarray], Iterable[tuple[str, str]]],
    steps: int,
    rng: np.random.Generator,
    kept: Path,
) -> None:
    """Next-token training: AdamW, one cycle. `lessons` gives (user's words, response) for indices of `pictures`.

    It goes on from the state in the file `kept`, where there is one.
    """
    seen = processor.image_processor(pictures, return_tensors="pt")
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    parts = {"model": model, "optimiser": optimiser, "cycle": cycle}
    for step in progress(range(demo_state.restore(parts, rng, kept), steps), "demo model"):
        chosen = rng.choice(len(pictures), BATCH, replace=len(pictures) < BATCH)
        inputs = spoken(processor, list(lessons(chosen)), int(seen["image_grid_thw"][0].prod()))
        loss = model(**inputs, **shown(seen, chosen)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        cycle.step()
        optimiser.zero_grad()
        if (step + 1) % KEPT_EVERY == 0:
            demo_state.keep(parts, rng, step + 1, kept)


def shown(seen: dict[str, torch.Tensor], chosen: np.ndarray) -> dict[str, torch.Tensor]:
    """The pictures `chosen` of those `seen`, as the model takes them, in random colours, contrast and grain."""
    rows, grids = torch.as_tensor(chosen), seen["image_grid_thw"]
    # A patch is laid out as channel, time, height, width.
    patches = seen["pixel_values"].view(len(grids), -1, 3, seen["pixel_values"].shape[-1] // 3)[rows]
    contrast, shift = 1 + 0.25 * torch.randn(len(rows), 1, 3, 1), 0.3 * torch.randn(len(rows), 1, 3, 1)
    patches = patches * contrast + shift + 0.2 * torch.randn_like(patches)
    return {"pixel_values": patches.flatten(2).flatten(0, 1), "image_grid_thw": grids[rows]}


def spoken(processor: Qwen2_5_VLProcessor, lessons: list[tuple[str, str]], patches: int) -> dict[str, torch.Tensor]:
    """Tokens of prompts and responses, right-padded, for pictures of `patches` patches; labels on responses alone."""
    tokenizer, pad = processor.tokenizer, processor.tokenizer.pad_token_id
    picture = SPECIAL["image_token"]
    prompts = [vlm.render(processor, content).replace(picture, picture * (patches // 4)) for content, _ in lessons]
    asked = tokenizer(prompts, add_special_tokens=False).input_ids
    answered = tokenizer([text + tokenizer.eos_token for _, text in lessons], add_special_tokens=False).input_ids
    ids = pad_sequence([torch.tensor(a + b) for a, b in zip(asked, answered, strict=True)], True, pad)
    labels = [torch.tensor([-100] * len(a) + b) for a, b in zip(asked, answered, strict=True)]
    return {
        "input_ids": ids,
        "attention_mask": (ids != pad).long(),
        "mm_token_type_ids": (ids == tokenizer.convert_tokens_to_ids(picture)).long(),
        "labels": pad_sequence(labels, True, -100),
    }
