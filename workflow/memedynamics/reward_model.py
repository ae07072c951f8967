"""The reward model of RLHF: the base with an adapter and a scalar head, trained to prefer the chosen of two responses.

1. The loss is Bradley and Terry's, −log σ(r⁺ − r⁻) (InstructGPT, 2203.02155, eq. 1), over the pairs that DPO trains
   on. TRL's own RewardTrainer takes no pictures.
2. The reward of a response is linear in the last layer's state at its last token, its end token where it has one. The
   head has no bias and starts at 0, so that the first loss is ln 2 exactly. Rewards are known up to a constant a
   prompt: only differences between responses to one prompt mean anything.
3. Prompt and picture are fed as sampling and scoring feed them, and the pair's texts with their end token.
4. `held_out` pairs are whole captions: memes that share one would tell the model what it is tested on.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BatchFeature, ProcessorMixin

from memedynamics import checksums, vlm
from memedynamics.errors import InputError
from memedynamics.examples import end_token
from memedynamics.forcing import sequences
from memedynamics.images import open_image
from memedynamics.saving import save_adapter

HEAD, ABOUT = "head.safetensors", "reward_model.json"


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean of −log σ(r⁺ − r⁻), in nat, of rewards (N,) and (N,)."""
    return -nn.functional.logsigmoid(chosen - rejected).mean()


def read_off(policy: nn.Module, head: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """Rewards (N,) float32 of the N responses in `inputs` (from `fed`), by a `head` (1, d)."""
    inputs = dict(inputs)
    last, dtype = inputs.pop("last"), vlm.bare(policy).dtype
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    states = vlm.hidden_states(policy, **cast).last_hidden_state
    picked = states[torch.arange(len(last), device=states.device), last.to(states.device)]
    # Not a matrix product, which autocast would round to bfloat16.
    return (picked.float() * head.float()).sum(-1)


def fed(
    processor: ProcessorMixin, contents: Sequence[str], images: Sequence[object], responses: Sequence[Sequence[int]]
) -> BatchFeature:
    """Model inputs of N prompts (the user's words) with pictures and `responses` (token ids); `last` (N,) is where
    each response ends.
    """
    inputs = sequences(processor, list(contents), list(images), responses)
    start = inputs["input_ids"].shape[1] - max(map(len, responses))
    inputs["last"] = torch.tensor([start + len(response) - 1 for response in responses])
    return inputs


class ScalarModel(nn.Module):
    """A policy whose adapter trains, and a linear head without bias that starts at 0.

    Its state is what trains: a checkpoint would otherwise hold the whole base model.
    """

    def __init__(self, policy: PeftModel) -> None:
        super().__init__()
        self.policy = policy
        width = vlm.bare(policy).get_output_embeddings().weight.shape[1]
        self.head = nn.Linear(width, 1, bias=False, device=policy.device, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        self.register_state_dict_post_hook(_drop_frozen)
        self.register_load_state_dict_post_hook(_miss_no_frozen)

    def activation_checkpointing_enable(self, **settings: object) -> None:
        """The policy's, for the trainer that asks the module around it."""
        vlm.bare(self.policy).activation_checkpointing_enable(**settings)

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether the policy's is on."""
        return vlm.bare(self.policy).is_activation_checkpointing

    def rewards(self, **inputs: Tensor) -> Tensor:
        """Rewards (N,) of the responses in `inputs`, as `fed` gives them."""
        return read_off(self.policy, self.head.weight, inputs)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Loss and margins (N,) of N pairs, chosen responses first (`collator`)."""
        chosen, rejected = self.rewards(**inputs).chunk(2)
        return {"loss": bradley_terry(chosen, rejected), "margins": (chosen - rejected).detach()}


def _trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _drop_frozen(model: nn.Module, state: dict[str, Tensor], *_: object) -> None:
    for name in state.keys() - _trained(model):
        del state[name]


def _miss_no_frozen(model: nn.Module, found: NamedTuple) -> None:
    found.missing_keys[:] = [name for name in found.missing_keys if name in _trained(model)]


def collator(model: PeftModel, processor: ProcessorMixin) -> Callable[[list[dict]], dict[str, Tensor]]:
    """From rows of examples.training_rows to the inputs of both responses of each, the chosen ones first."""
    words, end = processor.tokenizer, end_token(model, processor)

    def collate(rows: list[dict]) -> dict[str, Tensor]:
        texts = [row[side] + end for side in ("chosen", "rejected") for row in rows]
        responses = [words(text, add_special_tokens=False).input_ids for text in texts]
        images = [open_image(Path(row["image"])) for row in rows]
        return dict(fed(processor, [row["content"] for row in rows] * 2, images * 2, responses))

    return collate


def save(model: ScalarModel, folder: Path, about: Mapping[str, object]) -> None:
    """Write the adapter as a PEFT folder, the head and what is known `about` the model, all into `folder`."""
    save_adapter(model.policy, folder)
    save_file({"weight": model.head.weight.detach().cpu().contiguous()}, folder / HEAD)
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
    checksums.seal_folder(folder)


def load_head(folder: Path) -> Tensor:
    """The head (1, d) in `folder`; raises InputError where there is none."""
    if not (folder / HEAD).is_file():
        raise InputError(f"{folder}: has no {HEAD}; train the reward model again")
    return load_file(folder / HEAD)["weight"]
