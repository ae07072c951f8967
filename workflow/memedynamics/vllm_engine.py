"""Engine `vllm`: vLLM, inside the job and on its GPU, draws the responses. Written against vLLM 0.30.

A prompt is one request for its K responses (n), which share its picture and, by the prefix cache, its keys. vLLM gives
each response a seed, counted up from the request's: that of the first response's name, so that every response depends
on its name alone. Adapters are requests' arguments, so that one loaded model answers for all milestones of a run.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from memedynamics import vlm
from memedynamics.adapter_files import WHERE
from memedynamics.elsewhere import NEVER, Asked, Engine, Returned, from_tokens
from memedynamics.errors import InputError
from memedynamics.sampling import Sampler

# Half of the GPU: the model that scores the responses lies beside vLLM's.
SHARE = 0.5
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM can be told
# What vLLM does not know, or passes over, in an adapter's configuration.
UNKNOWN = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias")


def serves(folder: Path) -> bool:
    """Whether vLLM can put on the adapter in `folder`."""
    config = json.loads((folder / WHERE).read_text()) if (folder / WHERE).exists() else {}
    return config.get("peft_type") == "LORA" and not any(config.get(key) for key in UNKNOWN)


class Vllm:
    """The model in `folder` with any of `adapters` (folders by milestone)."""

    def __init__(self, folder: Path, dtype: str, sampler: Sampler, adapters: Mapping[str, Path]) -> None:
        """Raises InputError where vLLM is not installed or refuses its arguments."""
        settings = {"gpu_memory_utilization": SHARE, **_lora(adapters), **sampler.sampling.vllm}
        try:
            from vllm import LLM, SamplingParams
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise InputError(
                f"sampling.engine vllm: {error}; pip install vllm==0.30.0, or use another engine"
            ) from None
        numbered = enumerate(adapters.items(), 1)
        self.adapters = {name: LoRARequest(name, number, str(path)) for number, (name, path) in numbered}
        self.sampler, self.drawing = sampler, SamplingParams
        try:
            self.llm = LLM(
                model=str(folder), dtype=dtype, enable_prefix_caching=True, limit_mm_per_prompt={"image": 1}, **settings
            )
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"sampling.vllm: {' '.join(str(error).split())[:400]}") from None

    def policy(self, name: str | None) -> Engine:
        """The engine of one milestone's adapter, or of the model alone."""
        return partial(self._answers, self.adapters[name] if name else None)

    def _answers(self, adapter: object, batches: Iterable[list[Asked]]) -> Iterator[list[Returned]]:
        for batch in batches:
            prompts, settings = [self._prompt(one) for one in batch], [self._settings(one) for one in batch]
            outputs = self.llm.generate(prompts, settings, use_tqdm=False, lora_request=adapter)
            pairs = zip(batch, outputs, strict=True)
            yield [response for asked, output in pairs for response in self._read(asked, output)]

    def _prompt(self, asked: Asked) -> dict[str, object]:
        """The prompt's tokens with one token for the picture, which vLLM widens as the processor does."""
        processor = self.sampler.processor
        tokens = processor.tokenizer(vlm.render(processor, asked.content), add_special_tokens=False).input_ids
        return {"prompt_token_ids": tokens, "multi_modal_data": {"image": asked.image}}

    def _settings(self, asked: Asked) -> object:
        return self.drawing(
            n=len(asked.seeds),
            seed=asked.seeds[0],
            temperature=self.sampler.sampling.temperature,
            max_tokens=self.sampler.sampling.max_new_tokens,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            watermarking=False,
            stop_token_ids=sorted(self.sampler.ends),
            logit_bias={vlm.picture_token_id(self.sampler.model): NEVER},
            detokenize=False,
        )

    def _read(self, asked: Asked, output: object) -> list[Returned]:
        if list(output.prompt_token_ids) != asked.tokens:
            raise InputError(
                f"vllm: {asked.name} has {len(asked.tokens)} prompt tokens here and {len(output.prompt_token_ids)} "
                "others in vLLM: it treats this model's pictures in a way of its own; use another engine"
            )
        return [from_tokens(one.token_ids, self.sampler.ends) for one in output.outputs]


def _lora(adapters: Mapping[str, Path]) -> dict[str, object]:
    if not adapters:
        return {}
    rank = max(json.loads((folder / WHERE).read_text())["r"] for folder in adapters.values())
    fitting = [size for size in RANKS if size >= rank]
    if not fitting:
        raise InputError(f"sampling.engine vllm: adapters of rank {rank}; vLLM goes to {RANKS[-1]}, use another engine")
    return {"enable_lora": True, "max_lora_rank": fitting[0]}
