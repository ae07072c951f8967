"""A run as a folder that plain transformers (and PEFT) loads, and the proof that it is the policy that was analysed.

1. Updates go into the weights in float32 and are rounded once (`merged_model`), not by way of PEFT's merge, which works
   in the weights' own dtype. A run of full weights is copied.
2. Prompt and prefix tuning change no weight: the adapter alone is exported.
3. The check: logits of whole prompts with their pictures, adapter on the base against the exported folder loaded
   plainly. TOLERANCE bounds their root mean square difference, which, unlike the largest one, does not grow with
   vocabulary and length; beside it stands how far training moved the logits: in half precision, rounding W0 + ΔW can
   take away much of a small update.
"""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import adapters, checkpoints, checksums, merged_model, policies, sources, vlm
from memedynamics.adapter_files import ADAPTER, WHERE, is_soft
from memedynamics.config import BaseModelConfig
from memedynamics.errors import InputError
from memedynamics.merge_parents import open_parent

# Root mean square of the difference of logits. As for log-probabilities in preflight: on 28 random layers the same sums
# in another order, and a merged adapter, gave 5e-6 (float32), 0.006 (float16), 0.04 (bfloat16).
TOLERANCE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
# Share of what training did to the logits that rounding may take away without a warning.
SMALL = 1 / 3


def write_model(base: Path, milestones: Path, run: Path, folder: Path) -> None:
    """The run's end as a whole model in `folder`: weights, configuration, processor, chat template."""
    end = milestones / "1"
    if (end / WHERE).is_file():
        parent = open_parent(milestones, run, base)
        merged_model.write(base, parent.update, folder, "export")
    else:
        for file in [
            *checkpoints.weight_files(end),
            *(end / name for name in sources.COPIED if (end / name).is_file()),
        ]:
            shutil.copyfile(file, folder / file.name)
    own = {checkpoints.MANIFEST, checksums.FOLDER, *sources.COPIED}
    for file in {file for pattern in checkpoints.SETTINGS for file in base.glob(pattern) if file.name not in own}:
        shutil.copyfile(file, folder / file.name)


def write_adapter(milestone: Path, folder: Path, hub_base: str | None) -> None:
    """The adapter of `milestone` in `folder`, naming the base by its hub id rather than by a path."""
    folder.mkdir(parents=True)
    shutil.copyfile(milestone / ADAPTER, folder / ADAPTER)
    config = json.loads((milestone / WHERE).read_text()) | {"base_model_name_or_path": hub_base}
    (folder / WHERE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@torch.inference_mode()
def logits(model: PreTrainedModel, inputs: Sequence[dict[str, Tensor]]) -> Iterator[Tensor]:
    """Float32 logits (T, V) of each prompt, on the CPU."""
    for one in inputs:
        yield model(**one.to(model.device, model.dtype)).logits[0].float().cpu()


def prompts(processor: ProcessorMixin, memes: Sequence[tuple[str, object]]) -> list[dict[str, Tensor]]:
    """Model inputs of each (content, picture)."""
    return [vlm.encode(processor, [content], [image]) for content, image in memes]


def check(
    model: Path, milestones: Path, kind: str, exported: Path, base: BaseModelConfig, inputs: Sequence[dict[str, Tensor]]
) -> dict[str, float | int | str | None]:
    """`compare` of the end of the run of `kind` in `milestones` with the folder `exported`, on prompts `inputs`.

    Raises InputError where they differ by more than the dtype's rounding. Of a soft prompt the copied adapter is read.
    `warning` says where the check shows little of the update (`blurred`).
    """
    choose = policies.load(model, base, kind, milestones, [1.0])
    policy, before = (list(logits(choose(name), inputs)) for name in ("1", None))
    del choose  # room for the exported model
    if is_soft(milestones / "1"):
        loaded = adapters.load_adapters(vlm.load_model(model, base.dtype), {"1": exported / "adapter"})
    else:
        loaded = vlm.load_model(exported, base.dtype, base.attn_implementation)
    found = compare(policy, before, logits(loaded, inputs), base.dtype)
    refuse_unequal(found, milestones / "1")
    found["warning"] = blurred(found)
    if found["warning"]:
        print(f"warning: {milestones / '1'}: {found['warning']}", file=sys.stderr)
    return found


def compare(
    policy: Sequence[Tensor], base: Sequence[Tensor], exported: Iterable[Tensor], dtype: str
) -> dict[str, float | int | str]:
    """How far `exported` is from `policy`, logits (T, V) of the same prompts from `logits`, and the policy from `base`.

    Largest and root mean square difference, and the share of positions with equal argmax.
    """
    largest, off, moved, equal, rows, entries = 0.0, 0.0, 0.0, 0, 0, 0
    for ours, before, theirs in zip(policy, base, exported, strict=True):
        gap = (ours - theirs).abs()
        # NaN passes through maximum, not through max().
        largest = float(torch.maximum(gap.max(), torch.tensor(largest)))
        off, moved = (sum_ + float(d.double().square().sum()) for sum_, d in ((off, gap), (moved, ours - before)))
        equal += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        rows, entries = rows + len(ours), entries + gap.numel()
    return {
        "max_logit_gap": largest,
        "rms_logit_gap": (off / entries) ** 0.5,
        "rms_logit_moved": (moved / entries) ** 0.5,
        "argmax_agreement": equal / rows,
        "positions": rows,
        "dtype": dtype,
        "tolerance": TOLERANCE[dtype],
    }


def blurred(found: Mapping[str, float | int | str]) -> str | None:
    """What to say where rounding takes away much of what training did; the check then shows little of the update."""
    gap, moved = found["rms_logit_gap"], found["rms_logit_moved"]
    if gap <= SMALL * moved:
        return None
    return (
        f"in {found['dtype']} the export's logits are {gap:.2g} off (root mean square), training moved them by "
        f"{moved:.2g} only: much of the update is rounded away; serve the adapter on the base instead"
    )


def refuse_unequal(found: dict[str, float | int | str], where: Path) -> None:
    """Raise InputError where the exported model is not the policy, within its dtype's rounding; NaN never is."""
    if not found["rms_logit_gap"] <= found["tolerance"]:
        raise InputError(
            f"{where}: its logits are {found['rms_logit_gap']:.3g} (root mean square) off those of the exported "
            f"folder, tolerance {found['tolerance']:g} in {found['dtype']}: this adapter does not go into weights of "
            "this dtype; serve the adapter on the base, or export from a float32 base"
        )
