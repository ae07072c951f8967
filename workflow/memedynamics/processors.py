"""The base model's processor: the study's overrides, and whether it and the model belong together."""

import inspect
from pathlib import Path

from PIL import Image
from transformers import ProcessorMixin

from memedynamics import checkpoints
from memedynamics.errors import InputError
from memedynamics.vlm import encode, load_processor


def overridden(folder: Path, overrides: dict[str, object]) -> ProcessorMixin:
    """The processor in `folder` with `overrides`; raises InputError on an argument it would ignore."""
    processor = _loaded(folder)
    known = _arguments(processor)
    for name in overrides:
        if name not in known:
            raise InputError(
                f"base_model.processor.{name}: {type(processor).__name__} has no such argument; "
                f"it takes {', '.join(sorted(known))}"
            )
    return _loaded(folder, **overrides) if overrides else processor


def check(processor: ProcessorMixin, folder: Path) -> None:
    """Raise InputError unless a prompt with a picture becomes token ids that the model in `folder` has."""
    if getattr(processor, "image_processor", None) is None:
        raise InputError(f"{folder}: its processor takes no pictures; use a vision-language model")
    if processor.chat_template is None:
        raise InputError(f"{folder}: its processor has no chat template; use an instruct model")
    try:
        encoded = encode(processor, ["Hello"], [Image.new("RGB", (64, 64), "white")])
    except Exception as error:  # whatever a processor of another model stumbles over
        raise InputError(f"{folder}: its processor cannot encode a picture: {_one_line(error)}") from error
    rows = checkpoints.embedding_rows(folder)
    if int(encoded["input_ids"].max()) >= rows:
        raise InputError(f"{folder}: the tokenizer gives ids beyond the model's {rows}; use the model's own tokenizer")


def _loaded(folder: Path, **overrides: object) -> ProcessorMixin:
    try:
        return load_processor(folder, **overrides)
    except (ValueError, OSError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{folder}: its processor does not load: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _arguments(processor: ProcessorMixin) -> set[str]:
    """Arguments of the image processor and of the processor itself."""
    own = set(inspect.signature(type(processor).__init__).parameters)
    parts = {"self", "kwargs", "chat_template", "image_processor", "tokenizer", "video_processor"}
    return set(processor.image_processor.valid_kwargs.__annotations__) | own - parts
