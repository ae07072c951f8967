"""A checkpoint trained elsewhere, checked against the study's base model and laid out as a run of milestones 0 and 1.

Full weights become folders of links; milestone 0 is then the base model. An adapter is copied, under the base model's
own module names (they differ between versions of transformers, and PEFT passes over weights it finds no module for);
its milestone 0 is the same adapter with B = 0 and without DoRA's magnitudes, which equals the base model.
"""

import json
import shutil
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from memedynamics import checkpoints, checksums, sources, trained_on
from memedynamics.adapter_files import ADAPTER, WHERE
from memedynamics.errors import InputError

# Names of wrappers round the same tensors, which differ between versions of transformers.
WRAPPERS = {"model", "language_model", "text_model"}


def kind(folder: Path) -> Literal["adapter", "full"]:
    """Whether `folder` holds a PEFT adapter or full weights; raises InputError when neither."""
    if (folder / WHERE).is_file():
        if not (folder / ADAPTER).is_file():
            raise InputError(f"{folder}: has no {ADAPTER}; save the adapter as safetensors")
        return "adapter"
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: has neither {WHERE} nor config.json; give the folder of an adapter or a model")
    checkpoints.weight_files(folder)
    return "full"


def check_adapter(folder: Path, base: Path) -> None:
    """Raise InputError unless the LoRA adapter in `folder` fits the text decoder of `base`, and touches only it."""
    config = _read(folder / WHERE)
    _same_source(folder, config.get("base_model_name_or_path"), _read(base / "base.json")["source"])
    trained_on.check(folder, base)
    if config.get("peft_type") != "LORA":
        raise InputError(f"{folder}: is a {config.get('peft_type')} adapter; merge it and give the full weights")
    if str(config.get("init_lora_weights")).startswith(("pissa", "olora", "corda", "loftq")):
        raise InputError(
            f"{folder}: init_lora_weights {config['init_lora_weights']} changed the base; convert it to plain LoRA "
            "(save_pretrained with path_initial_model_for_weight_conversion)"
        )
    model = _empty(base)
    names = _own_names(model)
    for key, tensor in load_file(folder / ADAPTER).items():
        module, factor = _split(folder, key)
        if unwrapped(module) not in names:
            raise InputError(f"{folder}: adapts {module}, which the base model lacks: trained on another base")
        _check_factor(folder, model, names[unwrapped(module)], factor, tuple(tensor.shape))


def _empty(base: Path) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(base))


def _own_names(model: PreTrainedModel) -> dict[str, str]:
    return {
        unwrapped(name): name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)
    }


def unwrapped(name: str) -> str:
    """The name of a module or tensor without the wrappers round it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _same_source(folder: Path, trained_on: str | None, source: str) -> None:
    # Two hub ids can be told apart; a local folder may hold anything: `trained_on` knows some, else the shapes decide.
    if trained_on and sources.is_hub_id(trained_on) and sources.is_hub_id(source) and trained_on != source:
        raise InputError(f"{folder}: was trained on {trained_on}, the study's base model is {source}; use one of both")


def _split(folder: Path, key: str) -> tuple[str, str]:
    """Module and factor (lora_A, lora_B, …) of an adapter's tensor."""
    module, mark, factor = key.removeprefix("base_model.model.").partition(".lora_")
    if not mark:
        raise InputError(f"{folder}: {key} is a full tensor beside the adapter; merge it and give the full weights")
    return module, f"lora_{factor.partition('.')[0]}"


def _check_factor(folder: Path, model: PreTrainedModel, name: str, factor: str, shape: tuple[int, ...]) -> None:
    module = model.get_submodule(name)
    if not isinstance(module, nn.Linear) or not any(module is inside for inside in model.get_decoder().modules()):
        raise InputError(f"{folder}: adapts {name}, outside the text decoder; merge it and give the full weights")
    size = {"lora_A": module.in_features, "lora_B": module.out_features}.get(factor)
    if size is not None and shape[factor == "lora_A"] != size:
        raise InputError(
            f"{folder}: {factor} of {name} is {shape[0]} × {shape[1]}, the base model's layer takes {size}: "
            "trained on another base"
        )


def check_full(folder: Path, base: Path) -> None:
    """Raise InputError unless the full weights in `folder` have the architecture, tensors and shapes of `base`."""
    ours, theirs = (_read(path / "config.json").get("model_type") for path in (base, folder))
    if ours != theirs:
        raise InputError(f"{folder}: is a {theirs}, the base model a {ours}: trained on another base")
    trained_on.check(folder, base)
    expected, found = _tensors(base), _tensors(folder)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{folder}: {name} is {found.get(name, 'missing')}, in the base model "
                f"{expected.get(name, 'missing')}: trained on another base"
            )


def _tensors(folder: Path) -> dict[str, tuple[int, ...]]:
    # A head tied to the embedding is stored by some and left out by others.
    named = {name: shape for name, shape in checkpoints.shapes(folder).items() if not name.endswith("lm_head.weight")}
    return {unwrapped(name): shape for name, shape in named.items()}


def lay_out(folder: Path, base: Path, what: Literal["adapter", "full"], milestones: Path) -> None:
    """Write milestones 0 and 1 of the checked checkpoint in `folder`, whole or not at all."""
    partial = milestones.with_name(f".{milestones.name}.partial")
    for old in (partial, milestones):
        shutil.rmtree(old, ignore_errors=True)
    for label in ("0", "1"):
        (partial / label).mkdir(parents=True)
    if what == "full":
        sources.link(base, partial / "0")
        sources.link(folder, partial / "1")
    else:
        config, weights = _renamed(folder, base)
        _write(config, weights, partial / "1")
        start = {name: tensor for name, tensor in weights.items() if ".lora_magnitude" not in name}
        start = {name: torch.zeros_like(tensor) if ".lora_B" in name else tensor for name, tensor in start.items()}
        _write({**config, "use_dora": False}, start, partial / "0")
    for label in ("0", "1"):
        trained_on.keep(base, partial / label)
        checksums.seal_folder(partial / label)
    partial.rename(milestones)


def _renamed(folder: Path, base: Path) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    """Config and weights of the adapter under the base model's own module names."""
    names, weights, adapted = _own_names(_empty(base)), {}, set()
    for key, tensor in load_file(folder / ADAPTER).items():
        given = _split(folder, key)[0]
        own = names[unwrapped(given)]
        weights[key.replace(given, own, 1)] = tensor
        adapted.add(own)
    config = {**_read(folder / WHERE), "target_modules": sorted(adapted)}
    for other in ("exclude_modules", "layers_to_transform", "layers_pattern"):
        config[other] = None
    return config, weights


def _write(config: dict[str, object], weights: dict[str, torch.Tensor], folder: Path) -> None:
    save_file(weights, folder / ADAPTER, metadata={"format": "pt"})
    (folder / WHERE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def record(folder: Path, what: Literal["adapter", "full"]) -> dict[str, object]:
    """What run.json says of it: kind and parameters; how it was trained is not known."""
    if what == "full":
        shapes = checkpoints.shapes(folder)
    else:
        shapes = {name: tuple(tensor.shape) for name, tensor in load_file(folder / ADAPTER).items()}
    unknown = dict.fromkeys(
        ["total_steps", "num_prompts", "epochs", "tokens", "flops", "label_balance", "mean_num_correct"]
    )
    parameters = sum(torch.Size(shape).numel() for shape in shapes.values())
    return {
        "kind": what,
        "reference": "base",
        "steps": {"0": 0, "1": None},
        "trainable_parameters": parameters,
        **unknown,
    }


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file}: is not JSON ({error}); fetch it again") from error
