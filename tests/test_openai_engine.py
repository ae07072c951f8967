"""Engine openai with servers that give their tokens, as vLLM does, and that do not, as SGLang: `vllm_server`.

`transformers serve` itself is in `workflow/test_engines.py`.
"""

import json
import threading

import pytest
import torch

import tiny_study
from faulty_proxy import Proxy
from memedynamics import demo_model, engines, openai_engine, tables, vlm
from memedynamics import sampling as drawing
from memedynamics.config import BaseModelConfig, Sampling, Server
from memedynamics.elsewhere import ask
from memedynamics.errors import InputError
from memedynamics.noise import seed_of
from vllm_server import VllmServer, declared

BASE, QUESTION = BaseModelConfig(source="demo", dtype="float32"), {"memes": "hateful"}
SETTINGS = Sampling(num_samples=3, max_new_tokens=6, engine="openai")
AT_ONCE = 4


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with an untrained demo model and four memes."""
    folder = tiny_study.write_study(tmp_path_factory.mktemp("openai"), 4)
    processor = demo_model.make_processor([tiny_study.response("Yes"), tiny_study.PROMPT.user] * 4)
    torch.manual_seed(0)
    demo_model.make_model(processor.tokenizer).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def sampler(study):
    model, processor = vlm.load_model(study / "model"), vlm.load_processor(study / "model")
    return drawing.sampler(model, processor, tiny_study.PROMPT, SETTINGS)


@pytest.fixture(scope="module")
def batches(study):
    """The memes in two batches of different sizes."""
    memes = tables.read(study / "data.parquet", "data")
    return [drawing.Batch("first", 0.0, memes[:1]), drawing.Batch("rest", 0.0, memes[1:])]


@pytest.fixture
def serve(study):
    """Starts a server of the study's model; gives it, and its address and record."""
    declared("ChatCompletionRequest")  # fetches the wheel, or skips the test
    proxies = []

    def serving(owner="vllm", name="tiny"):
        server = VllmServer(study / "model", name, owner)
        proxies.append(Proxy(server))
        return server, proxies[-1]

    yield serving
    for proxy in proxies:
        proxy.close()


def engine_of(proxy, sampler, study, **settings):
    settings = Server(**{"base_url": proxy.url, "model": "tiny", "concurrency": AT_ONCE, "retries": 0, **settings})
    return engines.of_base(sampler, study / "model", BASE, settings)


def drawn(batches, sampler, engine):
    return [rows for _, rows in engines.drawn(sampler, batches, QUESTION, engine, "float32")]


def test_rows_are_the_tokens_that_the_server_drew(serve, sampler, study, batches):
    """As many requests under way as the study says, answered in another order, become rows in theirs."""
    server, proxy = serve()
    server.together = threading.Barrier(AT_ONCE)
    found = drawn(batches, sampler, engine_of(proxy, sampler, study))
    assert server.most == AT_ONCE
    told = {body["seed"]: answer for body, answer in proxy.asked}
    assert [len(rows) for rows in found] == [3, 9] and len(told) == 1 + 12
    for row in (row for rows in found for row in rows.to_dicts()):
        (choice,) = told[seed_of(0, "memes", "train", row["id"], row["sample"])]["choices"]
        assert (row["token_ids"], row["finish_reason"]) == (choice["token_ids"], choice["finish_reason"])
        assert row["tokens"] == "drawn"
        assert row["logp"] == pytest.approx(sum(one["logprob"] for one in choice["logprobs"]["content"]), abs=1e-4)
    assert len({tuple(tokens) for rows in found for tokens in rows["token_ids"].to_list()}) > 6


def test_requests_are_vllms(serve, sampler, study, batches):
    """A key that vLLM does not know would be passed over in silence; nothing that changes a draw is left to it."""
    _, proxy = serve()
    list(engine_of(proxy, sampler, study)([ask(sampler, batches[0], QUESTION)]))
    fields = declared("ChatCompletionRequest")
    assert all(body.keys() <= fields for body, _ in proxy.asked)
    assert openai_engine.plain(sampler).keys() <= fields
    sent = proxy.asked[-1][0]
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["min_p"]) == (1.0, 1.0, -1, 0.0)
    assert (sent["return_token_ids"], sent["logprobs"], sent["watermarking"]) == (True, True, False)


def test_a_server_that_gives_no_tokens(serve, sampler, study, batches):
    """Texts are cut into tokens again; what vLLM alone knows is not sent."""
    _, proxy = serve("sglang")
    ((*returned,),) = engine_of(proxy, sampler, study)([ask(sampler, batches[0], QUESTION)])
    answers = {body["seed"]: answer for body, answer in proxy.asked if "watermarking" not in body}
    assert len(answers) == 1 + 3
    for number, response in enumerate(returned):
        answer = answers[seed_of(0, "memes", "train", "m00", number)]
        again = sampler.processor.tokenizer.decode(response.token_ids, skip_special_tokens=True)
        assert again == answer["choices"][0]["message"]["content"] and not response.logps
        same = len(response.token_ids) == answer["usage"]["completion_tokens"]
        assert response.tokens == ("text" if same else "recut")


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        ("vllm", r"127.0.0.1.*: 404 .*The model `tiny` does not exist"),
        ("sglang", r"127.0.0.1.*: serves other, and the study asks for 'tiny'; serve that folder, or name it"),
    ],
)
def test_a_server_of_another_name_is_refused(owner, said, serve, sampler, study):
    """Some answer to any name, and only list what they serve."""
    _, proxy = serve(owner, name="other")
    with pytest.raises(InputError, match=said):
        engine_of(proxy, sampler, study)


@pytest.mark.parametrize(
    ("word", "said"),
    [("assistant\t", "the same number, but other ones"), ("the assistant\n", r"\d+")],
)
def test_other_prompt_tokens_are_refused(word, said, serve, sampler, study, batches):
    """Another chat template, with as many tokens or with more."""
    server, proxy = serve()
    assert "assistant\n" in server.processor.chat_template
    server.processor.chat_template = server.processor.chat_template.replace("assistant\n", word)
    with pytest.raises(
        InputError, match=rf"memes/train/m00 has \d+ prompt tokens here and there {said}: it has another"
    ):
        drawn(batches, sampler, engine_of(proxy, sampler, study))


def test_another_models_log_probabilities_are_refused(serve, sampler, study, batches):
    """A sibling under the study's name, with its weights a little off."""
    server, proxy = serve()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in server.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    with pytest.raises(InputError, match="its log-probabilities are .* nat a token from those of the study's"):
        drawn(batches, sampler, engine_of(proxy, sampler, study))


def test_what_an_answer_lacks_is_named(serve, sampler, study, batches):
    server, proxy = serve()
    whole = server.answer

    def without_usage(*given):
        status, body = whole(*given)
        return status, json.dumps({**json.loads(body), "usage": None}).encode()

    server.answer = without_usage
    with pytest.raises(InputError, match="memes/train/m00: its answer lacks"):
        drawn(batches, sampler, engine_of(proxy, sampler, study))
