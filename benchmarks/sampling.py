"""Sampling against `generate(num_return_sequences=K)`: time on the same prompts, side by side in one run.

    PYTHONPATH=workflow python benchmarks/sampling.py [--prompts 2 --prompt 700 --samples 8 --new 40 --hidden 512 …]

Both draw from the same Qwen2.5-VL with random weights and pictures of 100 patches, at temperature 1 without
truncation, and neither may end early, so that both do all `new` steps for all rows. Ours records log-probabilities as
well. The sides take turns and the best of `rounds` counts; on a CPU seconds are those this process computed, so that
what else the machine does counts for neither.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import tiny_models
from memedynamics import vlm
from memedynamics.decoding import respond
from memedynamics.prefix import prefill


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    sizes = {"prompts": 2, "prompt": 700, "samples": 8, "new": 40, "rounds": 3, "threads": 1}
    model = {"layers": 4, "hidden": 512, "heads": 8, "vocabulary": 24_000}
    for name, default in (sizes | model).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


def build(args: argparse.Namespace) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A Qwen2.5-VL that no token ends."""
    words, third = tiny_models._qwen_tokenizer(), args.hidden // args.heads // 6
    config = tiny_models.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": args.hidden,
            "intermediate_size": args.hidden * 8 // 3,
            "num_hidden_layers": args.layers,
            "num_attention_heads": args.heads,
            "num_key_value_heads": 2,
            "vocab_size": args.vocabulary,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [args.hidden // args.heads // 2 - 2 * third, third, third],
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": args.hidden // 2,
            "num_heads": 4,
            "intermediate_size": args.hidden,
            "out_hidden_size": args.hidden,
            "fullatt_block_indexes": [1],
        },
        **tiny_models._qwen_ids(words),
    )
    size = {"shortest_edge": 28 * 28, "longest_edge": 280 * 280}
    processor = tiny_models.Qwen2_5_VLProcessor(
        tiny_models.Qwen2VLImageProcessor(size=size),
        words,
        tiny_models.Qwen2VLVideoProcessor(size=size),
        chat_template=tiny_models.CHATML,
    )
    words.padding_side = "left"
    torch.manual_seed(0)
    model = tiny_models.Qwen2_5_VLForConditionalGeneration(config).to(getattr(torch, args.dtype))
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, words.pad_token_id
    return model.requires_grad_(False).eval().to("cuda" if torch.cuda.is_available() else "cpu"), processor


def prompts(args: argparse.Namespace, processor: ProcessorMixin) -> BatchFeature:
    """Prompts of `args.prompt` tokens, each with a picture."""
    random, contents = np.random.default_rng(0), []
    images = [Image.fromarray(random.integers(256, size=(280, 280, 3), dtype=np.uint8)) for _ in range(args.prompts)]
    for image in images:
        short = vlm.encode(processor, ["."], [image])["input_ids"].shape[1]
        contents.append("." + "~" * (args.prompt - short))
    return vlm.encode(processor, contents, images)


def ours(model: PreTrainedModel, inputs: BatchFeature, args: argparse.Namespace) -> torch.Tensor:
    noise = np.random.default_rng(0).random((args.prompts * args.samples, args.new))
    responses = respond(model, prefill(model, inputs).repeat(args.samples), noise, set(), 1.0)
    return torch.tensor([response.token_ids for response in responses])


def generate(model: PreTrainedModel, inputs: BatchFeature, args: argparse.Namespace) -> torch.Tensor:
    length = inputs["input_ids"].shape[1]
    options = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": args.new}
    drawn = model.generate(**inputs.to(model.device, model.dtype), num_return_sequences=args.samples, **options)
    return drawn[:, length:]


def timed(side: Callable[..., torch.Tensor], *given: object) -> tuple[float, torch.Tensor]:
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    drawn = side(*given).cpu()
    return clock() - start, drawn


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    model, processor = build(args)
    inputs = prompts(args, processor)
    print(
        f"{args.prompts} prompts of {inputs['input_ids'].shape[1]} tokens, {args.samples} samples of {args.new} tokens"
    )
    best = {ours: float("inf"), generate: float("inf")}
    for round_ in range(args.rounds):
        for side in best:
            seconds, drawn = timed(side, model, inputs, args)
            assert drawn.shape == (args.prompts * args.samples, args.new), drawn.shape
            best[side] = min(best[side], seconds)
            print(f"  round {round_ + 1}, {side.__name__:8s} {seconds:8.2f} s", flush=True)
    tokens = args.prompts * args.samples * args.new
    print(f"ours {tokens / best[ours]:.0f} tokens/s, generate {tokens / best[generate]:.0f} tokens/s")
    print(f"{best[generate] / best[ours]:.2f} times faster")


if __name__ == "__main__":
    main()
