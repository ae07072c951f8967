"""Finished runs of a tiny model, made without training: what merges, merge paths and exports are tested on."""

import json
from pathlib import Path

import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

import tiny_models
from memedynamics import adapters, checkpoints, vlm

FAMILY = "qwen2_5_vl"
KINDS = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}


def base(folder: Path, dtype: str = "float32") -> Path:
    """The tiny model in `folder`, as the rule base_model leaves one: stored in `dtype`, with processor and manifest."""
    folder.mkdir(parents=True)
    vlm.load_processor(tiny_models.folder(FAMILY)).save_pretrained(folder)
    model = vlm.load_model(tiny_models.folder(FAMILY), dtype)
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    # In several files, as a large model is.
    model.save_pretrained(folder, max_shard_size="150KB")
    checkpoints.write_manifest(folder, "local", None)
    return folder


def run(folder: Path, model: Path, kind: str, seed: int, scale: float = 0.1) -> tuple[Path, Path]:
    """A run of `kind` (lora, rslora, dora, ia3, full) on `model` in `folder`: its milestones and run.json."""
    torch.manual_seed(seed)
    trained = vlm.load_model(model)
    if kind == "full":
        for name, parameter in trained.named_parameters():
            if "visual" not in name:
                parameter.data.add_(torch.randn_like(parameter) * scale * 0.1)
    else:
        trained = _adapted(trained, kind, scale)
    target = folder / "milestones/1"
    trained.save_pretrained(target)
    record = {"kind": "full" if kind == "full" else "adapter", "reference": "base", "total_steps": 8}
    (folder / "run.json").write_text(json.dumps({**record, "steps": {"0": 0, "1": 8}}))
    return folder / "milestones", folder / "run.json"


def _adapted(model: PreTrainedModel, kind: str, scale: float) -> PeftModel:
    names = adapters.text_linears(model, "all")
    if kind == "ia3":
        inward = [name for name in names if name.endswith("down_proj")]
        policy = get_peft_model(model, IA3Config(target_modules=names, feedforward_modules=inward))
    else:
        policy = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=names, **KINDS[kind]))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
        if "lora_magnitude" in name or "ia3_l" in name:
            parameter.data.mul_(1 + scale * torch.randn_like(parameter))
    return policy


def ended(milestones: Path, run: Path, model: Path) -> torch.nn.Module:
    """The run's last policy, loaded plainly, without this project's loading code."""
    if json.loads(run.read_text())["kind"] == "full":
        return vlm.load_model(milestones / "1")
    return PeftModel.from_pretrained(vlm.load_model(model), milestones / "1").eval()


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    """Logits of an arbitrary text."""
    return model(input_ids=torch.arange(10, 40)[None]).logits
