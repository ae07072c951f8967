"""The study's pairs, prompt and pictures as LLaMA-Factory reads them, and what its first batch must then be."""

import json
from pathlib import Path

import polars as pl
from safetensors.torch import save_file
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import exports
from memedynamics.errors import InputError
from memedynamics.examples import end_token
from memedynamics.images import open_image
from memedynamics.llamafactory import TEMPLATE
from memedynamics.vlm import encode, render

# What holds a picture's place in its data; responses may say <image> themselves.
PLACEHOLDERS = {f"{kind.upper()}_PLACEHOLDER": f"<|memedynamics_{kind}|>" for kind in ("image", "video", "audio")}
PICTURE = PLACEHOLDERS["IMAGE_PLACEHOLDER"]
MARK = "0memedynamics0"
# By model type, LLaMA-Factory's plugin for pictures, and what it writes in a picture's place.
QWEN = "<|vision_start|>{image_token}<|vision_end|>"
PLUGINS = {
    "qwen2_vl": ("qwen2_vl", QWEN),
    "qwen2_5_vl": ("qwen2_vl", QWEN),
    "qwen3_vl": ("qwen3_vl", QWEN),
    "llava": ("llava", "{image_token}"),
    "gemma3": ("gemma3", "{boi_token}"),
}
CHECKED = 2  # examples whose batch is compared before the first step
# Processors of two versions of transformers resize with two versions of torchvision: an 8-bit level is about 0.015.
TOLERANCE = 0.05


def template(model: PreTrainedModel, processor: ProcessorMixin) -> dict[str, str | None]:
    """The rendered prompt in parts: before the picture, between it and the user's words, after them; the end token.

    Raises InputError for a model whose pictures LLaMA-Factory does not place as its chat template does.
    """
    kind = model.config.model_type
    if kind not in PLUGINS:
        raise InputError(f"backend llamafactory: takes {', '.join(PLUGINS)} here, not {kind}; use backend trl")
    plugin, pattern = PLUGINS[kind]
    tokens = {name: getattr(processor, name, None) for name in ("image_token", "video_token", "boi_token")}
    head, picture, rest = render(processor, MARK).partition(pattern.format(**tokens))
    between, mark, tail = rest.partition(MARK)
    if not picture or not mark or "{{" in head + tail:
        raise InputError("backend llamafactory: the chat template puts no single picture before the words; use trl")
    end = end_token(model, processor)
    shown = {"image_token": tokens["image_token"], "video_token": tokens["video_token"]}
    return {"name": TEMPLATE, "plugin": plugin, **shown, "head": head, "between": between, "tail": tail, "end": end}


def write_dataset(rows: pl.DataFrame, between: str, folder: Path) -> None:
    """`rows` (examples.training_rows) as the datasets `sft` and `preferences` in `folder`, in their order."""
    asked = rows.with_columns(prompt=pl.concat_str(pl.lit(between), "content"))
    exports.write_llamafactory(asked, folder, PICTURE)


def expected(kind: str, rows: pl.DataFrame, processor: ProcessorMixin, end: str, folder: Path) -> dict[str, object]:
    """The batch that the first `rows` must become, for `llamafactory_entry.check_batch`; pixels go into `folder`."""
    first, tokenizer = rows.head(CHECKED), processor.tokenizer
    batch = encode(processor, first["content"].to_list(), [open_image(Path(path)) for path in first["image"]])
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    columns = ["chosen"] if kind == "sft" else ["chosen", "rejected"]
    sequences = [
        prompt + tokenizer(text + end, add_special_tokens=False).input_ids
        for column in columns
        for prompt, text in zip(prompts, first[column], strict=True)
    ]
    pixels = folder / "pixels.safetensors"
    save_file({"pixel_values": batch.pixel_values.contiguous()}, pixels)
    return {
        "examples": len(first),
        "sequences": sequences,
        "prompts": [len(prompt) for prompt in prompts] * len(columns),
        "pixels": str(pixels.absolute()),
        "tolerance": TOLERANCE,
    }


def write_settings(
    path: Path,
    shape: dict[str, str | None],
    batch: dict[str, object],
    fractions: list[float],
    saves: Path,
    loss: float | None = None,
) -> None:
    """Write what `llamafactory_entry` needs besides LLaMA-Factory's arguments; `loss`: the first step's, if known."""
    told = {"template": shape, "expected": batch, "fractions": fractions, "milestones": str(saves.absolute())}
    told |= {"first_loss": loss}
    path.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
