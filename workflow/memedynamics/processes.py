"""What several processes that share a training must do together, each of them at the same moment."""

import os

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from peft import PeftModel
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel


def anywhere(flag: bool) -> bool:
    """Whether `flag` is set in any of the processes: the same answer in all."""
    state = PartialState()
    return bool(reduce(torch.tensor([float(flag)], device=state.device)).item()) if state.num_processes > 1 else flag


def sharding() -> bool:
    """Whether models that train are to lie in shards on all processes (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP") == "true"


def gathered(model: PreTrainedModel | PeftModel) -> dict[str, torch.Tensor] | None:
    """What trains of a `model` that lies in shards (FSDP), put together on the CPU: of full weights all; else None.

    Only the first process keeps it.
    """
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return None
    adapter = {name for name, p in model.named_parameters() if p.requires_grad}
    wanted = adapter if isinstance(model, PeftModel) else model.state_dict().keys()
    found = {}
    for name, value in model.state_dict().items():
        if name in wanted:
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            found |= {name: whole.cpu()} if PartialState().is_main_process else {}
    return found
