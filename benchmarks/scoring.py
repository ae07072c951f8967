"""Scoring against the plain way: time, numbers, and peak activation memory, side by side in one run.

    PYTHONPATH=workflow python benchmarks/scoring.py
    PYTHONPATH=workflow python benchmarks/scoring.py --hidden 2048 --layers 24 --vocabulary 150000

The plain way: two models, every response behind its own copy of prompt and picture, logits of the whole sequence,
full log-softmax of both, π0 anew for every milestone. Its policy is merged into plain weights, which is the fastest it
can be. The model is a Qwen2.5-VL with random weights and random adapters. The claims, at prompt 400, response 100,
K = 8: numbers equal to 1e-4 (float32), 2.5 times faster for one milestone, 4 times for six, a quarter of the memory.
Exits 1 where one fails.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import torch
from peft import PeftModel, get_peft_model
from PIL import Image
from transformers import PreTrainedModel, PreTrainedTokenizerBase

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import tiny_models
from memedynamics import policies, score_plan, vlm
from memedynamics.adapters import peft_config
from memedynamics.answers import Labels
from memedynamics.config import Adapter, BaseModelConfig
from memedynamics.forcing import sequences
from memedynamics.milestones import label
from memedynamics.prompts import load_prompt
from memedynamics.scoring import Meme, Scorer

NAMES = ("logp", "ref_logp", "kl_forward", "kl_reverse", "entropy", "acceptance")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    sizes = {"prompts": 2, "samples": 8, "prompt": 400, "response": 100, "milestones": 6, "chunk": 1024, "threads": 1}
    model = {"layers": 3, "hidden": 512, "vocabulary": 16_000, "rank": 16}
    for name, default in (sizes | model).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


def random_model(args: argparse.Namespace) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A Qwen2.5-VL of the sizes in `args`, and its tokenizer."""
    words = tiny_models._qwen_tokenizer()
    words.add_tokens([space + word for space in ("", " ") for word in ("Yes", "yes", "YES", "No", "no", "NO")])
    rotary = args.hidden // 8 // 2
    config = tiny_models.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": args.hidden,
            "intermediate_size": args.hidden * 8 // 3,
            "num_hidden_layers": args.layers,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "vocab_size": args.vocabulary,
            "initializer_range": 0.05,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [rotary - 2 * (rotary // 3), rotary // 3, rotary // 3],
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
    torch.manual_seed(0)
    model = tiny_models.Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = words.eos_token_id
    return model, words


def build(args: argparse.Namespace, root: Path) -> tuple[Path, Path]:
    """A model folder and a folder of milestones, every label of the answer one token."""
    model, words = random_model(args)
    size = {"shortest_edge": 28 * 28, "longest_edge": 280 * 280}
    tiny_models.Qwen2_5_VLProcessor(
        tiny_models.Qwen2VLImageProcessor(size=size),
        words,
        tiny_models.Qwen2VLVideoProcessor(size=size),
        chat_template=tiny_models.CHATML,
    ).save_pretrained(root / "model")
    model.to(getattr(torch, args.dtype)).save_pretrained(root / "model")
    for step in range(args.milestones):
        adapted = get_peft_model(vlm.load_model(root / "model", args.dtype), peft_config(model, Adapter(r=args.rank)))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.002 * (step + 1))
        adapted.save_pretrained(root / "milestones" / f"{(step + 1) / args.milestones:g}")
    return root / "model", root / "milestones"


def memes(args: argparse.Namespace, processor: object) -> list[Meme]:
    """Prompts of `args.prompt` tokens with a picture of 100 patches, and `args.samples` responses to each."""
    random = np.random.default_rng(0)
    tokenizer = processor.tokenizer
    answer = tokenizer("</think><answer> Yes </answer>").input_ids + [tokenizer.eos_token_id]
    plain_words = np.arange(len(tokenizer) // 2, len(tokenizer) - 20)
    found = []
    for number in range(args.prompts):
        image = Image.fromarray(random.integers(256, size=(280, 280, 3), dtype=np.uint8))
        content = "."
        while (length := vlm.encode(processor, [content], [image])["input_ids"].shape[1]) < args.prompt:
            content += "~" * (args.prompt - length)
        responses = [
            [*random.choice(plain_words, args.response - len(answer)).tolist(), *answer] for _ in range(args.samples)
        ]
        rows = pl.DataFrame(
            [("base_sample", "memes", "val", str(number), n, tokens, True, True) for n, tokens in enumerate(responses)],
            schema=["probe_kind", "dataset", "split", "id", "sample", "token_ids", "correct", "format_ok"],
            orient="row",
        )
        found.append(Meme(content, image, score_plan.with_pairs(rows)))
    return found


@torch.inference_mode()
def plain_way(
    base: PreTrainedModel, policy: PreTrainedModel, processor: object, batch: list[Meme]
) -> dict[str, np.ndarray]:
    """Every position's numbers from two models over whole sequences."""
    tokens = [ids for meme in batch for ids in meme.rows["token_ids"].to_list()]
    repeated = [meme for meme in batch for _ in range(len(meme.rows))]
    inputs = sequences(processor, [meme.content for meme in repeated], [meme.image for meme in repeated], tokens)
    inputs = inputs.to(base.device, base.dtype)
    start = inputs["input_ids"].shape[1] - len(tokens[0]) - 1
    logp = policy(**inputs).logits.float().log_softmax(-1)[:, start:-1]
    logq = base(**inputs).logits.float().log_softmax(-1)[:, start:-1]
    at = torch.tensor(tokens, device=logp.device)[..., None]
    p, q = logp.exp(), logq.exp()
    found = {
        "logp": logp.gather(-1, at)[..., 0],
        "ref_logp": logq.gather(-1, at)[..., 0],
        "kl_forward": (q * (logq - logp)).sum(-1),
        "kl_reverse": (p * (logp - logq)).sum(-1),
        "entropy": -(p * logp).sum(-1),
        "acceptance": torch.minimum(p, q).sum(-1),
    }
    return {name: value.flatten().cpu().numpy() for name, value in found.items()}


class Peak:
    """Seconds and peak memory over what was there before: of the device, or of the process on a CPU."""

    def __enter__(self) -> "Peak":
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
            self.before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            self.before = resident("VmRSS")
        self.start = clock()
        return self

    def __exit__(self, *_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = clock() - self.start
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident("VmHWM")
        self.mib = (peak - self.before) / 2**20


def clock() -> float:
    """Seconds; on a CPU those this process computed, so that what else the machine does counts for neither side."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def resident(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def scoring(args: argparse.Namespace, root: Path, fractions: list[float]) -> tuple[Peak, list[dict[str, np.ndarray]]]:
    """This project's way, on the milestones `fractions`."""
    folder, processor = root / "model", vlm.load_processor(root / "model")
    config = BaseModelConfig(source=str(folder), dtype=args.dtype)
    choose = policies.load(folder, config, "adapter", root / "milestones", fractions)
    prompt = load_prompt(Path(__file__).parents[1] / "config/prompts/think_answer.yaml")
    ours, batch = (
        Scorer(choose, processor, prompt, Labels(processor.tokenizer, prompt), args.chunk),
        memes(args, processor),
    )
    ours.score([batch[0]._replace(rows=batch[0].rows.head(1))], fractions)  # warm up: weights are read on first use
    with Peak() as peak:
        traces, _ = ours.score(batch, fractions)
    return peak, [{name: traces.filter(fraction=f)[name].to_numpy() for name in NAMES} for f in fractions]


def plain(args: argparse.Namespace, root: Path, fractions: list[float]) -> tuple[Peak, list[dict[str, np.ndarray]]]:
    """The plain way, on the milestones `fractions`."""
    processor, base = vlm.load_processor(root / "model"), vlm.load_model(root / "model", args.dtype)
    folders = [root / "milestones" / label(f) for f in fractions]
    models = [PeftModel.from_pretrained(vlm.load_model(root / "model", args.dtype), one) for one in folders]
    merged, batch = [model.merge_and_unload() for model in models], memes(args, processor)
    for policy in merged:  # warm up: weights are read on first use
        plain_way(base, policy, processor, [batch[0]._replace(rows=batch[0].rows.head(1))])
    with Peak() as peak:
        found = [plain_way(base, policy, processor, batch) for policy in merged]
    return peak, found


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    steps = [(step + 1) / args.milestones for step in range(args.milestones)]
    with tempfile.TemporaryDirectory() as root:
        build(args, Path(root))
        kept = []
        for fractions in (steps[-1:], steps):
            # Each in a process of its own: memory that one side leaves behind would count for the other.
            found = [alone(side, args, Path(root), fractions) for side in (plain, scoring)]
            kept.append(report(*found, len(fractions)))
    sys.exit(not all(kept))


def alone(side: Callable, *given: object) -> tuple[Peak, list[dict[str, np.ndarray]]]:
    """`side(*given)` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(side, *given).result()


def report(slow: tuple, fast: tuple, milestones: int) -> bool:
    """Print times, memory, ratios and the largest difference between numbers; whether the claims hold."""
    (slow, expected), (fast, found) = slow, fast
    apart = max(np.abs(a[name] - b[name]).max() for a, b in zip(found, expected, strict=True) for name in NAMES)
    faster, memory = slow.seconds / fast.seconds, fast.mib / max(slow.mib, 1)  # a tiny run's does not show
    print(f"{milestones} milestone(s), {len(found[0]['logp'])} positions each")
    print(f"  plain    {slow.seconds:8.2f} s {slow.mib:8.0f} MiB above the weights")
    print(f"  scoring  {fast.seconds:8.2f} s {fast.mib:8.0f} MiB")
    print(f"  {faster:.2f} times faster, {memory:.3f} of the memory, largest difference between numbers {apart:.1e}")
    print("  means: " + ", ".join(f"{name} {found[-1][name].mean():.4f}" for name in NAMES), flush=True)
    return faster >= (2.5 if milestones == 1 else 4) and memory <= 0.25 and apart <= 1e-4


if __name__ == "__main__":
    main()
