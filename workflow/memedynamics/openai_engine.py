"""Engine `openai`: an OpenAI-compatible server (vLLM, SGLang, `transformers serve`) draws the responses.

Every response is a request of its own with a seed of its own, so that it depends on its name alone. Whatever would
truncate is sent, and off, so that no default of the server or the model counts; the picture token is never drawn.
"""

import base64
import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from memedynamics import vlm
from memedynamics.config import Server
from memedynamics.elsewhere import NEVER, Asked, Returned, from_text, from_tokens
from memedynamics.endpoint import Endpoint, Refused
from memedynamics.errors import InputError
from memedynamics.sampling import Sampler

log = logging.getLogger(__name__)


class Requests:
    """An engine (`elsewhere.Engine`): a server that is asked for responses of the model in `folder`."""

    def __init__(self, server: Server, sampler: Sampler, folder: Path) -> None:
        """Raises InputError where the server does not know the model."""
        self.server, self.sampler, self.endpoint = server, sampler, Endpoint(server)
        self.model, self.threads = server.model or str(folder), server.concurrency
        self.settings = self._greeted()

    def __call__(self, batches: Iterable[list[Asked]]) -> Iterator[list[Returned]]:
        """The responses of each batch, with as many requests of later ones sent ahead as may be under way."""
        pool, waiting = ThreadPoolExecutor(self.threads), deque()
        try:
            for batch in batches:
                waiting.append([response for asked in batch for response in self._sent(pool, asked)])
                while sum(map(len, waiting)) - len(waiting[0]) >= self.threads:
                    yield [response.result() for response in waiting.popleft()]
            for batch in waiting:
                yield [response.result() for response in batch]
        finally:
            self.endpoint.close()
            pool.shutdown(cancel_futures=True)

    def _greeted(self) -> dict[str, object]:
        """How to ask this server: `transformers serve` refuses the names by which the others switch truncation off."""
        settings, known = plain(self.sampler), True
        try:
            self._hello(settings)
        except Refused as error:
            if error.status != 422 or "Unexpected fields" not in str(error):
                raise
            settings, known = of_transformers(self.sampler), False
            if self.threads > 1:
                log.warning("transformers serve has one random generator for all requests: one is sent at a time")
            self.threads = 1
            self._hello(settings)
        # `transformers serve` does not list local folders.
        return {**settings, **self._listed()} if known else settings

    def _listed(self) -> dict[str, object]:
        """What else this server is to be told. Raises InputError where it does not list the model."""
        # Some servers answer to any name.
        owners = {entry.get("id"): entry.get("owned_by") for entry in self.endpoint.ask("/models").get("data", [])}
        if self.model not in owners:
            raise InputError(
                f"{self.server.base_url}: serves {', '.join(map(str, owners))}, and the study asks for {self.model!r}; "
                "serve that folder, or name it in sampling.server.model"
            )
        return {"watermarking": False} if owners[self.model] == "vllm" else {}

    def _hello(self, settings: Mapping[str, object]) -> None:
        body = {**settings, "model": self.model, "messages": [{"role": "user", "content": "Hello"}], "seed": 0}
        self.endpoint.ask("/chat/completions", body)

    def _sent(self, pool: ThreadPoolExecutor, asked: Asked) -> list[Future]:
        body = {**self.settings, "model": self.model, "messages": messages(asked)}
        return [pool.submit(self._response, asked, {**body, "seed": seed}) for seed in asked.seeds]

    def _response(self, asked: Asked, body: Mapping[str, object]) -> Returned:
        try:
            answer = self.endpoint.ask("/chat/completions", body)
            self._check(asked, answer["usage"]["prompt_tokens"], answer.get("prompt_token_ids"))
            return self._read(answer["choices"][0], answer["usage"]["completion_tokens"])
        except Refused as error:
            raise InputError(f"{asked.name}: {error}") from None
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(f"{self.server.base_url}: {asked.name}: its answer lacks {error}") from None

    def _check(self, asked: Asked, count: int, token_ids: list[int] | None) -> None:
        if count != len(asked.tokens) or token_ids not in (None, asked.tokens):
            others = "the same number, but other ones" if count == len(asked.tokens) else str(count)
            raise InputError(
                f"{self.server.base_url}: {asked.name} has {len(asked.tokens)} prompt tokens here and there {others}: "
                "it has another model, chat template or size of pictures; serve the study's own model folder"
            )

    def _read(self, choice: Mapping[str, object], count: int) -> Returned:
        message, ends = choice["message"], self.sampler.ends
        if choice.get("token_ids"):
            given = (choice.get("logprobs") or {}).get("content") or ()
            return from_tokens(choice["token_ids"], ends, [one["logprob"] for one in given])
        if cut := [key for key in ("reasoning_content", "reasoning", "tool_calls") if message.get(key)]:
            raise InputError(
                f"{self.server.base_url}: cuts {cut[0]} out of responses, so that their text is lost; serve the model "
                "without parsers for reasoning and tools (docs/sampling.md)"
            )
        stopped = choice["finish_reason"] == "stop"
        return from_text(message["content"] or "", stopped, count, self.sampler.processor.tokenizer, ends)


def messages(asked: Asked) -> list[dict[str, object]]:
    """The chat of a meme as the server takes it, its picture as a data URL that loses no pixel."""
    encoded = BytesIO()
    asked.image.save(encoded, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": asked.content}]
    return [{"role": "user", "content": content}]


def plain(sampler: Sampler) -> dict[str, object]:
    """Draws without truncation, for vLLM and SGLang; vLLM also gives the tokens and their log-probabilities."""
    return {
        "temperature": sampler.sampling.temperature,
        "max_tokens": sampler.sampling.max_new_tokens,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logit_bias": {str(vlm.picture_token_id(sampler.model)): NEVER},
        "skip_special_tokens": False,
        "return_token_ids": True,
        "logprobs": True,
    }


def of_transformers(sampler: Sampler) -> dict[str, object]:
    """The same for `transformers serve`, which by default takes the 50 likeliest tokens, or the likeliest alone."""
    settings = {
        "do_sample": True,
        "temperature": sampler.sampling.temperature,
        "max_new_tokens": sampler.sampling.max_new_tokens,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "typical_p": 1.0,
        "epsilon_cutoff": 0.0,
        "eta_cutoff": 0.0,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "suppress_tokens": [vlm.picture_token_id(sampler.model)],
        "eos_token_id": sorted(sampler.ends),
        "pad_token_id": sampler.processor.tokenizer.pad_token_id,
    }
    return {"generation_config": json.dumps(settings)}
