"""Tiny vision-language models of every supported family: real classes, processors and templates, random weights.

`folder(family)` builds one on first use and keeps it for the test session; a few seconds for all.
"""

import functools
import string
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "llava", "smolvlm", "gemma3")
CORPUS = [
    "Is it hateful? Think first, then answer Yes or No, in this format: ",
    "<think> reasoning </think><answer> Yes or No </answer>",
    "<think> the picture shows a cat and the caption greets everyone </think><answer> No </answer>",
    "Answer Yes or No, in this format: <answer> Yes </answer>",
    string.printable,
]
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (  # writes no BOS: the tokenizer does
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
IDEFICS = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
GEMMA = (  # writes the BOS, which the tokenizer would add too
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def folder(family: str) -> Path:
    """The folder of the tiny model of `family`, as `save_pretrained` leaves it. Do not write into it."""
    return _built(family)


def picture(seed: int, width: int = 56, height: int = 56) -> Image.Image:
    """A small RGB picture that differs from seed to seed."""
    image = Image.new("RGB", (width, height), ((seed * 40) % 256, (seed * 90) % 256, 200))
    ImageDraw.Draw(image).ellipse((4, 4 + seed % 8, width // 2, height - 8), fill=(250, (seed * 70) % 256, 20))
    return image


@functools.cache
def _home() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="tiny_models_")


@functools.cache
def _built(family: str) -> Path:
    target = Path(_home().name) / family
    torch.manual_seed(0)
    model, processor, ends = BUILDERS[family]()
    model.generation_config.eos_token_id = [processor.tokenizer.convert_tokens_to_ids(end) for end in ends]
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(target)
    processor.save_pretrained(target)
    return target


def tokenizer(
    special: list[str], named: dict[str, str], adds_bos: bool = False, **roles: str
) -> PreTrainedTokenizerFast:
    """A byte-level BPE over CORPUS with the family's special tokens; `named` become attributes."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    if adds_bos:
        core.post_processor = _bos_first(core, roles["bos_token"])
    return PreTrainedTokenizerFast(tokenizer_object=core, extra_special_tokens=named, **roles)


def _bos_first(core: Tokenizer, bos: str) -> object:
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, core.token_to_id(bos))])


def _qwen_tokenizer() -> PreTrainedTokenizerFast:
    names = ("vision_start", "vision_end", "image_pad", "video_pad")
    return tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|{name}|>" for name in names)],
        {
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_start_token": "<|vision_start|>",
            "vision_end_token": "<|vision_end|>",
        },
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )


def _qwen_ids(words: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{key}_token_id": words.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}


def qwen2_5_vl() -> tuple[PreTrainedModel, ProcessorMixin, list[str]]:
    """Qwen2.5-VL: rotary positions on three axes, windowed tower, pictures of any size."""
    words = _qwen_tokenizer()
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, "vocab_size": len(words), "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 48,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        **_qwen_ids(words),
    )
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 84}
    pictures = Qwen2VLImageProcessor(size=size)
    processor = Qwen2_5_VLProcessor(pictures, words, Qwen2VLVideoProcessor(size=size), chat_template=CHATML)
    return Qwen2_5_VLForConditionalGeneration(config), processor, ["<|im_end|>", "<|endoftext|>"]


def qwen3_vl() -> tuple[PreTrainedModel, ProcessorMixin, list[str]]:
    """Qwen3-VL: features of several tower layers are added inside the decoder."""
    words = _qwen_tokenizer()
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={**TEXT, "vocab_size": len(words), "head_dim": 8, "rope_parameters": rope},
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 48,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        **_qwen_ids(words),
    )
    size = {"shortest_edge": 32 * 32, "longest_edge": 64 * 96}
    pictures = Qwen2VLImageProcessor(size=size, patch_size=16)
    videos = Qwen3VLVideoProcessor(size=size, patch_size=16)
    processor = Qwen3VLProcessor(pictures, words, videos, chat_template=CHATML)
    return Qwen3VLForConditionalGeneration(config), processor, ["<|im_end|>", "<|endoftext|>"]


def llava() -> tuple[PreTrainedModel, ProcessorMixin, list[str]]:
    """LLaVA: CLIP tower, pictures of one size, a tokenizer that adds a BOS its template does not write."""
    words = tokenizer(
        ["<unk>", "<s>", "</s>", "<pad>", "<image>"],
        {"image_token": "<image>"},
        adds_bos=True,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    config = LlavaConfig(
        text_config=LlamaConfig(**TEXT, vocab_size=len(words)),
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        ),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    pictures = LlavaImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        pictures,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )
    return LlavaForConditionalGeneration(config), processor, ["</s>"]


def _idefics_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>"]
    pictures = ["<fake_token_around_image>", "<image>", "<global-img>"]
    cells = [f"<row_{row}_col_{column}>" for row in range(1, 3) for column in range(1, 3)]
    return tokenizer(
        [*special, *pictures, *cells],
        {
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )


def _idefics_config(words: PreTrainedTokenizerFast) -> dict[str, object]:
    return {
        "text_config": LlamaConfig(**TEXT, vocab_size=len(words)),
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
        },
        "image_token_id": words.convert_tokens_to_ids("<image>"),
        "pad_token_id": words.pad_token_id,
        "scale_factor": 2,
        "tie_word_embeddings": True,
    }


def smolvlm() -> tuple[PreTrainedModel, ProcessorMixin, list[str]]:
    """SmolVLM: a picture is cut into tiles, and a batch padded with empty ones."""
    words = _idefics_tokenizer()
    size = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}}
    videos = SmolVLMVideoProcessor(
        **size, num_frames=2, fps=1, video_sampling={"video_size": {"longest_edge": 28}, "max_frames": 2, "fps": 1}
    )
    processor = SmolVLMProcessor(SmolVLMImageProcessor(**size), words, videos, image_seq_len=4, chat_template=IDEFICS)
    model = SmolVLMForConditionalGeneration(SmolVLMConfig(**_idefics_config(words)))
    return model, processor, ["<end_of_utterance>"]


def idefics3() -> tuple[PreTrainedModel, ProcessorMixin, list[str]]:
    """Idefics3: SmolVLM's elder."""
    words = _idefics_tokenizer()
    size = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}}
    processor = Idefics3Processor(Idefics3ImageProcessor(**size), words, image_seq_len=4, chat_template=IDEFICS)
    model = Idefics3ForConditionalGeneration(Idefics3Config(**_idefics_config(words)))
    return model, processor, ["<end_of_utterance>"]


def gemma3() -> tuple[PreTrainedModel, ProcessorMixin, list[str]]:
    """Gemma 3: pictures attend both ways, sliding windows shorter than the prompt, tied head."""
    words = tokenizer(
        ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"]
        + ["<image_soft_token>"],
        {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        adds_bos=True,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    )
    config = Gemma3Config(
        text_config=Gemma3TextConfig(
            **TEXT,
            vocab_size=len(words),
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        vision_config=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
        ),
        mm_tokens_per_image=4,
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
    )
    pictures = Gemma3ImageProcessor(size={"height": 56, "width": 56})
    processor = Gemma3Processor(pictures, words, chat_template=GEMMA, image_seq_length=4)
    return Gemma3ForConditionalGeneration(config), processor, ["<eos>", "<end_of_turn>"]


BUILDERS: dict[str, Callable[[], tuple[PreTrainedModel, ProcessorMixin, list[str]]]] = {
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "llava": llava,
    "smolvlm": smolvlm,
    "idefics3": idefics3,
    "gemma3": gemma3,
}
