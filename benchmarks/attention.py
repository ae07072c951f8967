"""The last prompt token's attention read beside SDPA, against eager attention and a plain forward, in one run.

    PYTHONPATH=workflow python benchmarks/attention.py
    PYTHONPATH=workflow python benchmarks/attention.py --tokens 2000 --hidden 2048 --layers 24

The model is a Qwen2.5-VL with random weights and grouped key heads. The claims, at a prompt of 1,200 tokens and 8
layers: rows equal to eager attention's to 1e-6, logits equal to the plain forward's bit for bit, at most 1.25 times its
time, and at most a hundredth of eager attention's extra memory. Extra memory is a side's peak less the plain forward's,
each over what was there before, copies on the way included; every side has a fresh process. Of time, repetitions of the
sides alternate in one process; the fastest of each counts. Exits 1 where a claim fails.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

from scoring import Peak, alone

import tiny_models
from memedynamics.attention_rows import last_rows

PLAIN, OURS, EAGER = "plain SDPA", "SDPA with rows", "eager"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    sizes = {"tokens": 1200, "layers": 8, "hidden": 512, "heads": 8, "prompts": 1, "repetitions": 7, "threads": 1}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


def build(args: argparse.Namespace, implementation: str) -> PreTrainedModel:
    """The same random model for either implementation."""
    words = tiny_models._qwen_tokenizer()
    rotary = args.hidden // args.heads // 2
    sections = [rotary - 2 * (rotary // 3), rotary // 3, rotary // 3]
    config = tiny_models.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": args.hidden,
            "intermediate_size": args.hidden * 8 // 3,
            "num_hidden_layers": args.layers,
            "num_attention_heads": args.heads,
            "num_key_value_heads": max(1, args.heads // 4),
            "vocab_size": len(words),
            "initializer_range": 0.05,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections},
        },
        vision_config={"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": args.hidden},
        **tiny_models._qwen_ids(words),
    )
    config._attn_implementation = implementation
    torch.manual_seed(0)
    model = tiny_models.Qwen2_5_VLForConditionalGeneration(config).to(getattr(torch, args.dtype))
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def inputs(args: argparse.Namespace, model: PreTrainedModel, tokens: int) -> dict[str, torch.Tensor]:
    """Prompts of words alone, the last of several padded on the left: the tower is no part of the comparison."""
    ids = torch.randint(100, 300, (args.prompts, tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[args.prompts // 2 :, : tokens // 10] = 0
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}


def forward(side: str, model: PreTrainedModel, given: dict) -> tuple[torch.Tensor, tuple]:
    """A side's forward on its `model`: logits of the last token, and what it hands out of attention."""
    given = {**given, "logits_to_keep": 1, "use_cache": False}
    if side == PLAIN:
        return model(**given).logits, ()
    if side == EAGER:
        out = model(**given, output_attentions=True)
        return out.logits, out.attentions
    with last_rows(model) as found:
        return model(**given).logits, tuple(found)


class Measured(NamedTuple):
    """A side's peak memory over its weights (MiB), its logits, and the last row of every layer (B, heads, T)."""

    mib: float
    logits: np.ndarray
    rows: list[np.ndarray]


@torch.inference_mode()
def memory(side: str, args: argparse.Namespace) -> Measured:
    """One forward of `side`, after a short one: whatever is made at first use is there."""
    torch.set_num_threads(args.threads)
    model = build(args, "eager" if side == EAGER else "sdpa")
    forward(side, model, inputs(args, model, args.tokens // 10))
    given = inputs(args, model, args.tokens)
    with Peak() as peak:
        logits, attention = forward(side, model, given)
    rows = [one if one.dim() == 3 else one[:, :, -1] for one in attention]
    return Measured(peak.mib, logits.float().cpu().numpy(), [row.float().cpu().numpy() for row in rows])


@torch.inference_mode()
def times(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of each side, the fastest repetition."""
    sdpa, eager = build(args, "sdpa"), build(args, "eager")
    models, seconds = {PLAIN: sdpa, OURS: sdpa, EAGER: eager}, {}
    for _ in range(args.repetitions + 1):  # the first warms up
        for side, model in models.items():
            with Peak() as taken:
                forward(side, model, inputs(args, model, args.tokens))
            seconds.setdefault(side, []).append(taken.seconds)
    return {side: min(found[1:]) for side, found in seconds.items()}


def report(seconds: dict[str, float], found: dict[str, Measured], args: argparse.Namespace) -> bool:
    """Print times, memory and differences; whether the claims hold."""
    plain, ours, eager = (found[side] for side in (PLAIN, OURS, EAGER))
    apart = max(float(np.abs(a - b).max()) for a, b in zip(ours.rows, eager.rows, strict=True))
    same, slower = np.array_equal(plain.logits, ours.logits), seconds[OURS] / seconds[PLAIN]
    extra = [one.mib - plain.mib for one in (ours, eager)]
    print(f"{args.prompts} prompt(s) of {args.tokens} tokens, {args.layers} layers, {args.heads} heads, {args.dtype}")
    for side, taken in seconds.items():
        more = found[side].mib - plain.mib
        print(f"{side:15} {taken:8.3f} s ({taken / seconds[PLAIN]:.2f} of plain) {found[side].mib:9.2f} MiB "
              f"({more:+.2f} over plain)")  # fmt: skip
    print(f"rows apart from eager by {apart:.1e}; logits bit-identical: {same}; "
          f"extra MiB {extra[0]:.2f}, eager's {extra[1]:.2f}; time {slower:.2f} of plain", flush=True)  # fmt: skip
    return apart <= 1e-6 and same and extra[0] <= extra[1] / 100 and slower <= 1.25


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    # glibc: what is freed goes back to the system, so that the resident size is what is in use.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    found = {side: alone(memory, side, args) for side in (PLAIN, OURS, EAGER)}
    sys.exit(not report(times(args), found, args))


if __name__ == "__main__":
    main()
