"""The last prompt token's attention read beside SDPA, against eager attention and a plain forward, in one run.

    PYTHONPATH=workflow python benchmarks/attention.py
    PYTHONPATH=workflow python benchmarks/attention.py --tokens 2000 --hidden 2048 --layers 24

The model is a Qwen2.5-VL with random weights and grouped key heads. The claims, at a prompt of 1,200 tokens and 8
layers: rows equal to eager attention's to 1e-6, logits equal to the plain forward's bit for bit, at most 1.25 times its
time, and at most a hundredth of the memory that eager attention's weights take. Extra memory is what the tensors that
are handed out hold. Repetitions of the sides alternate; the fastest of each counts.
Exits 1 where a claim fails.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import tiny_models
from memedynamics.attention_rows import last_rows


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


def inputs(args: argparse.Namespace, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Prompts of words alone, the last of several padded on the left: the tower is no part of the comparison."""
    ids = torch.randint(100, 300, (args.prompts, args.tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[args.prompts // 2 :, : args.tokens // 10] = 0
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}


def sides(sdpa: PreTrainedModel, eager: PreTrainedModel, given: dict) -> dict[str, Callable[[], tuple]]:
    """Each side's forward: logits of the last token, and what it hands out of attention."""

    def plain() -> tuple:
        return sdpa(**given, logits_to_keep=1, use_cache=False).logits, ()

    def rows() -> tuple:
        with last_rows(sdpa) as found:
            logits = sdpa(**given, logits_to_keep=1, use_cache=False).logits
        return logits, tuple(found)

    def weights() -> tuple:
        out = eager(**given, logits_to_keep=1, use_cache=False, output_attentions=True)
        return out.logits, out.attentions

    return {"plain SDPA": plain, "SDPA with rows": rows, "eager": weights}


@torch.inference_mode()
def measured(work: Callable[[], tuple]) -> tuple[float, float, tuple]:
    """Seconds, MiB of attention handed out, and the result."""
    start = clock()
    logits, attention = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = clock() - start
    held = sum(one.untyped_storage().nbytes() for one in attention) / 2**20
    return seconds, held, (logits, [one if one.dim() == 3 else one[:, :, -1] for one in attention])


def clock() -> float:
    """Seconds; on a CPU those this process computed, so that what else the machine does counts for neither side."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    sdpa, eager = build(args, "sdpa"), build(args, "eager")
    work = sides(sdpa, eager, inputs(args, sdpa))
    for side in work.values():
        measured(side)  # warm up
    seconds = {name: [] for name in work}
    for _ in range(args.repetitions):
        for name, side in work.items():
            seconds[name].append(measured(side)[0])
    held = {name: measured(side)[1:] for name, side in work.items()}
    sys.exit(not report({name: min(times) for name, times in seconds.items()}, held))


def report(seconds: dict[str, float], held: dict[str, tuple]) -> bool:
    """Print times, memory and differences; whether the claims hold."""
    (_, (logits, _)), (ours, (same, rows)), (theirs, (_, full)) = held.values()
    apart = max((a - b.float()).abs().max().item() for a, b in zip(rows, full, strict=True))
    slower = seconds["SDPA with rows"] / seconds["plain SDPA"]
    for name, time_taken in seconds.items():
        ratio = time_taken / seconds["plain SDPA"]
        print(f"{name:15} {time_taken:8.3f} s ({ratio:.2f} of plain) {held[name][0]:9.2f} MiB of attention")
    print(f"rows apart from eager by {apart:.1e}; logits bit-identical: {torch.equal(logits, same)}; "
          f"memory {ours / theirs:.5f} of eager's; time {slower:.2f} of plain")  # fmt: skip
    return apart <= 1e-6 and torch.equal(logits, same) and ours <= theirs / 100 and slower <= 1.25


if __name__ == "__main__":
    main()
