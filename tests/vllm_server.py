"""What `vllm serve` answers, by a model of this machine: vLLM's own needs a GPU, and cannot lie beside the pins.

Answers have the fields that vLLM's source declares (`vllm_source`), and prompts, tokens and log-probabilities are those
of transformers' own processor and `generate`, which share nothing with this project's decoding.
"""

import base64
import json
import threading
import time
from functools import cache
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from vllm_source import Source, wheel

CHATS = "entrypoints/openai/chat_completion/protocol.py"
COMMON = "entrypoints/serve/engine/protocol.py"


class VllmServer:
    """Answers for `faulty_proxy.Proxy`, the model in `folder` under `name`; `most` requests were under way at once.

    `owner` sglang makes it one that answers to any name and gives no tokens. `together` is how many requests with a
    picture it waits for before it answers them, the last one first.
    """

    def __init__(self, folder: Path, name: str, owner: str = "vllm") -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.name, self.owner, self.lock = name, owner, threading.Lock()
        self.together, self.under_way, self.most = threading.Barrier(1), 0, 0

    def __call__(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        """Status and body of an answer."""
        if path == "/v1/models":
            return reply(data=[fitting("ModelCard", COMMON, id=self.name, owned_by=self.owner)], object="list")
        asked = json.loads(body)
        if self.owner == "vllm" and asked["model"] != self.name:
            words = f"The model `{asked['model']}` does not exist."
            return 404, json.dumps({"error": {"message": words, "type": "NotFoundError", "code": 404}}).encode()
        pictures = [part["image_url"]["url"] for part in parts(asked) if part["type"] == "image_url"]
        return self.crowded(asked, pictures) if pictures else self.answer(asked, pictures)

    def crowded(self, asked: dict, pictures: list[str]) -> tuple[int, bytes]:
        """The answer once as many others wait for theirs as are to."""
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            time.sleep(0.02 * (self.together.parties - self.together.wait(20)))
            return self.answer(asked, pictures)
        finally:
            with self.lock:
                self.under_way -= 1

    def answer(self, asked: dict, pictures: list[str]) -> tuple[int, bytes]:
        """A whole chat completion, as vLLM's ChatCompletionResponse declares it."""
        with self.lock:
            prompt, tokens, logps = self.drawn(asked, pictures)
        ended = tokens[-1] == self.processor.tokenizer.eos_token_id
        text = self.processor.tokenizer.decode(tokens[: len(tokens) - ended], skip_special_tokens=False)
        tells = self.owner == "vllm" and asked["return_token_ids"]
        chances = [fitting("ChatCompletionLogProb", CHATS, token="", logprob=one, bytes=None) for one in logps]
        choice = fitting(
            "ChatCompletionResponseChoice", CHATS, index=0, finish_reason="stop" if ended else "length",
            message=fitting("ChatMessage", CHATS, role="assistant", content=text),
            logprobs={"content": chances} if asked["logprobs"] else None, token_ids=tokens if tells else None,
        )  # fmt: skip
        usage = fitting("UsageInfo", COMMON, prompt_tokens=len(prompt), completion_tokens=len(tokens))
        return reply(**fitting(
            "ChatCompletionResponse", CHATS, id="chatcmpl-1", object="chat.completion", model=asked["model"],
            choices=[choice], usage=usage, prompt_token_ids=prompt if tells else None,
        ))  # fmt: skip

    @torch.inference_mode()
    def drawn(self, asked: dict, pictures: list[str]) -> tuple[list[int], list[int], list[float]]:
        """Tokens of the prompt and of the response, and the log-probability of each of the latter, before any bias."""
        chat = [
            {"role": "user", "content": [{"type": "image"} if p["type"] == "image_url" else p for p in parts(asked)]}
        ]
        text = self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        images = [Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))) for url in pictures]
        given = self.processor(text=[text], images=[images] if images else None, return_tensors="pt")
        torch.manual_seed(asked["seed"])
        found = self.model.generate(
            **given, do_sample=True, temperature=asked["temperature"], max_new_tokens=asked["max_tokens"],
            top_k=0, top_p=asked["top_p"], suppress_tokens=[int(token) for token in asked["logit_bias"]],
            pad_token_id=self.processor.tokenizer.pad_token_id, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        prompt = given["input_ids"][0].tolist()
        tokens = found.sequences[0, len(prompt) :].tolist()
        logps = [logits[0].log_softmax(-1)[token].item() for logits, token in zip(found.logits, tokens, strict=True)]
        return prompt, tokens, logps


def fitting(kind: str, file: str, **values: object) -> dict[str, object]:
    """`values` as a `kind` of vLLM's, which has fields of these names."""
    assert values.keys() <= declared(kind, file), kind
    return values


@cache
def declared(kind: str, file: str = CHATS) -> set[str]:
    """Names of the fields of a class of vLLM's server."""
    return set(Source(wheel(), file).fields(kind))


def parts(asked: dict) -> list[dict]:
    """The parts of a chat's only message; words alone are one part, as vLLM takes them."""
    (message,) = asked["messages"]
    content = message["content"]
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def reply(**content: object) -> tuple[int, bytes]:
    """A good answer."""
    return 200, json.dumps(content).encode()
