"""The files of a saved adapter, and what kind of adapter they say it is; no weights are read."""

import json
from pathlib import Path

from memedynamics.errors import InputError

ADAPTER = "adapter_model.safetensors"
WHERE = "adapter_config.json"
# What PEFT calls the kinds that change no weight.
PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT")


def is_soft(folder: Path) -> bool:
    """Whether `folder` holds a prompt or a prefix; raises InputError where its configuration cannot be read."""
    file = folder / WHERE
    try:
        return file.is_file() and json.loads(file.read_text()).get("peft_type") in PROMPTS
    except ValueError as error:
        raise InputError(f"{file}: is not JSON ({error}); fetch it again") from error
