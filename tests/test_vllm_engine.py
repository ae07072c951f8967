"""Engine vllm: every call fits vLLM's own signatures, and what it returns becomes the rows that are drawn here.

Without a GPU vLLM is a stand-in whose classes take what the real ones' source says and nothing else (`vllm_source`),
and whose tokens come from this project's own decoding, so that its rows must equal those drawn here. Where there is a
GPU, or a build of vLLM for CPUs, the real one draws too.
"""

import importlib.util
import re
import sys
import zipfile
from types import ModuleType

import numpy as np
import polars as pl
import pytest
import torch
from peft import get_peft_model

import tiny_study
from memedynamics import demo_model, engines, tables, vllm_engine, vlm
from memedynamics import sampling as drawing
from memedynamics.adapters import activate, load_adapters, peft_config
from memedynamics.config import Adapter, BaseModelConfig, Sampling
from memedynamics.elsewhere import ask
from memedynamics.errors import InputError
from memedynamics.noise import seed_of
from vllm_source import VERSION, Source, wheel

BASE, QUESTION = BaseModelConfig(source="demo", dtype="float32"), {"memes": "hateful"}
SETTINGS = Sampling(num_samples=3, max_new_tokens=6, engine="vllm", vllm={"enforce_eager": True, "max_model_len": 512})
MEMES = 4


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with an untrained demo model, some memes, and two milestones of a LoRA."""
    folder = tiny_study.write_study(tmp_path_factory.mktemp("vllm"), MEMES)
    processor = demo_model.make_processor([tiny_study.response("Yes"), tiny_study.PROMPT.user] * 4)
    torch.manual_seed(0)
    demo_model.make_model(processor.tokenizer).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    for label, scale in (("0.5", 0.1), ("1", 0.4)):
        policy = get_peft_model(
            vlm.load_model(folder / "model"), peft_config(vlm.load_model(folder / "model"), Adapter(r=4))
        )
        for name, weight in policy.named_parameters():
            torch.nn.init.normal_(weight, std=scale) if "lora_B" in name else None
        policy.save_pretrained(folder / label)
    return folder


@pytest.fixture(scope="module")
def batch(study):
    return drawing.Batch("all", 0.0, tables.read(study / "data.parquet", "data"))


def sampler_of(study, model):
    return drawing.sampler(model, vlm.load_processor(study / "model"), tiny_study.PROMPT, SETTINGS)


@pytest.fixture(scope="module")
def sampler(study):
    return sampler_of(study, vlm.load_model(study / "model"))


@pytest.fixture(scope="module")
def here(sampler, batch):
    """The rows that this project draws itself."""
    return drawing.draw(sampler, batch.memes, "hateful", 0.0)


def checked(signature, also=()):
    """A class that is made as `signature` says; extra keyword arguments must be among `also`."""

    class Checked:
        def __init__(self, *args, **kwargs):
            self.given = signature.bind(*args, **kwargs).arguments
            if unknown := set(self.given.get("kwargs", {})) - set(also):
                raise TypeError(f"no such argument: {unknown}")

    return Checked


@pytest.fixture
def stand_in(sampler, batch, here, monkeypatch):
    """`vllm` by its own source; its `LLM` answers with the tokens of `here`, by seed. Every call with its LLM."""
    source, made = wheel(), []
    llm, outputs = Source(source, "entrypoints/llm.py"), Source(source, "outputs.py")
    prompt = Source(source, "inputs/llm.py")
    keys = set(prompt.fields("TokensPrompt")) | set(prompt.fields("_PromptOptions"))
    pictures = prompt.fields("MultiModalDataBuiltins")
    generate = llm.method("LLM", "generate")
    asked = {one.seeds[0]: one for one in ask(sampler, batch, QUESTION)}
    tokens = {
        seed_of(0, *row[:4]): row[4] for row in here.select("dataset", "split", "id", "sample", "token_ids").rows()
    }
    result = checked(outputs.method("RequestOutput", "__init__"))
    completion = checked(outputs.made_by("CompletionOutput"))
    engine_args = Source(source, "engine/arg_utils.py").fields("EngineArgs")

    class LLM(checked(llm.method("LLM", "__init__"), engine_args)):
        def generate(self, *args, **kwargs):
            given = generate.bind(*args, **kwargs).arguments
            made.append((self.given, given))
            return [self.answer(*pair) for pair in zip(given["prompts"], given["sampling_params"], strict=True)]

        def answer(self, prompt, settings):
            assert set(prompt) <= keys and set(prompt["multi_modal_data"]) <= set(pictures)
            one = asked[settings.given["seed"]]
            assert prompt["multi_modal_data"]["image"] == one.image and settings.given["n"] == len(one.seeds)
            texts = [self.text(index, tokens[seed]) for index, seed in enumerate(one.seeds)]
            found = result("0", None, one.tokens, None, texts, True)
            found.prompt_token_ids, found.outputs = found.given["prompt_token_ids"], found.given["outputs"]
            return found

        def text(self, index, drawn):
            made = completion(index=index, text="", token_ids=drawn, cumulative_logprob=None, logprobs=None)
            made.token_ids = made.given["token_ids"]
            return made

    library, request = ModuleType("vllm"), ModuleType("vllm.lora.request")
    library.LLM, library.SamplingParams = LLM, checked(Source(source, "sampling_params.py").made_by("SamplingParams"))
    request.LoRARequest = checked(Source(source, "lora/request.py").made_by("LoRARequest"))
    names = {"vllm": library, "vllm.lora": ModuleType("vllm.lora"), "vllm.lora.request": request}
    for name, module in names.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


def drawn(sampler, batch, engine):
    ((_, rows),) = engines.drawn(sampler, [batch], QUESTION, engine, "float32")
    return rows


def same(rows, others):
    """Equal but for rounding: these were scored behind whole responses, the others as they were drawn."""
    measured = ["logp", "p_hateful", "label_mass"]
    assert rows.drop(measured).equals(others.drop(measured).select(rows.drop(measured).columns))
    for column in measured:
        np.testing.assert_allclose(rows[column], others[column], atol=1e-4)


def test_calls_fit_vllm_and_rows_are_those_drawn_here(sampler, batch, study, here, stand_in):
    same(drawn(sampler, batch, engines.of_base(sampler, study / "model", BASE, None)), here)
    ((llm, call),) = stand_in
    assert llm["kwargs"] == {"enable_prefix_caching": True, "limit_mm_per_prompt": {"image": 1}, "max_model_len": 512}
    assert (llm["dtype"], llm["enforce_eager"], llm["gpu_memory_utilization"]) == ("float32", True, 0.5)
    settings = [params.given for params in call["sampling_params"]]
    assert {(s["temperature"], s["top_p"], s["top_k"], s["min_p"]) for s in settings} == {(1.0, 1.0, 0, 0.0)}
    assert {s["watermarking"] for s in settings} == {False}
    assert [s["n"] for s in settings] == [3] * MEMES and len({s["seed"] for s in settings}) == MEMES
    assert call["lora_request"] is None


def test_adapters_are_arguments_of_requests(sampler, batch, study, stand_in):
    """One loaded model for both milestones, with the smallest rank vLLM has that holds r = 4."""
    engine = engines.of_policy(sampler, study / "model", BASE, {label: study / label for label in ("0.5", "1")})
    for label, number in (("0.5", 1), ("1", 2)):
        list(engine(label)([ask(sampler, batch, QUESTION)]))
        llm, call = stand_in[-1]
        assert (llm["kwargs"]["enable_lora"], llm["kwargs"]["max_lora_rank"]) == (True, 8)
        assert call["lora_request"].given == {
            "lora_name": label,
            "lora_int_id": number,
            "lora_path": str(study / label),
        }


def test_what_vllm_counts_and_knows_is_as_said_here():
    """Seeds of a request's responses count up from its own; their order is their index's; ranks; what is imported."""
    with zipfile.ZipFile(wheel()) as archive:
        files = ("v1/engine/parallel_sampling", "config/lora", "__init__")
        counting, adapters, exported = (archive.read(f"vllm/{name}.py").decode() for name in files)
    assert "child_sampling_params.seed = seed + index" in counting
    assert "self.output_aggregator[completion_output.index] = completion_output" in counting
    ranks = re.search(r"MaxLoRARanks = Literal\[([\d, ]+)\]", adapters)[1]
    assert tuple(map(int, ranks.split(","))) == vllm_engine.RANKS
    assert {"LLM", "SamplingParams"} <= set(re.findall(r'"(\w+)"', exported))


def test_an_argument_that_vllm_lacks_is_named(sampler, study, stand_in):
    """As EngineArgs itself does, the stand-in refuses it."""
    odd = sampler._replace(sampling=SETTINGS.model_copy(update={"vllm": {"gpu_memory": 0.5}}))
    with pytest.raises(InputError, match="sampling.vllm: .*gpu_memory"):
        engines.of_base(odd, study / "model", BASE, None)


def test_other_prompt_tokens_are_refused(sampler, batch, study, stand_in):
    engine = engines.of_base(sampler, study / "model", BASE, None)
    asked = [one._replace(tokens=one.tokens[:-1]) for one in ask(sampler, batch, QUESTION)]
    with pytest.raises(InputError, match=r"vllm: memes/train/m00 has \d+ prompt tokens here and \d+ others in vLLM"):
        next(engine([asked]))


def test_what_vllm_cannot_put_on_is_drawn_here(study, sampler, tmp_path):
    """DoRA, adapters that are no LoRA, and full weights."""
    config = (study / "1/adapter_config.json").read_text()
    for name, old, new in (("dora", '"use_dora": false', '"use_dora": true'), ("ia3", '"LORA"', '"IA3"')):
        (tmp_path / name).mkdir()
        assert old in config
        (tmp_path / name / "adapter_config.json").write_text(config.replace(old, new))
        assert not vllm_engine.serves(tmp_path / name)
    assert vllm_engine.serves(study / "1") and not vllm_engine.serves(study / "model")
    assert engines.of_policy(sampler, study / "model", BASE, {"1": study / "model"})("1") is None


def test_no_vllm(sampler, study, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match=f"sampling.engine vllm: .*; pip install vllm=={VERSION}"):
        engines.of_base(sampler, study / "model", BASE, None)


# The real vLLM


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() and importlib.util.find_spec("vllm") is None,
    reason="needs a GPU, or a build of vLLM for CPUs",
)
def test_the_real_vllm_draws_from_base_and_adapters(study, sampler, batch):
    """Exact draws (`draws` would refuse others), the same ones again whatever else is in the batch; adapters differ."""
    folders = {label: study / label for label in ("0.5", "1")}
    model = load_adapters(vlm.load_model(study / "model"), folders)
    activate(model, None)
    engine = vllm_engine.Vllm(study / "model", "float32", sampler_of(study, model), folders)
    texts = {}
    for name in (None, "0.5", "1"):
        activate(model, name)
        policy = sampler_of(study, model)
        rows = drawn(policy, batch, engine.policy(name))
        alone = drawn(policy, batch._replace(memes=batch.memes[1:2]), engine.policy(name))
        assert alone["token_ids"].to_list() == rows.filter(id="m01")["token_ids"].to_list()
        assert (rows["tokens"] == "drawn").all() and rows["logp"].is_finite().all()
        texts[name] = rows["text"].to_list()
    assert len({tuple(found) for found in texts.values()}) == 3
    many = pl.concat([batch.memes.with_columns(id=pl.col("id") + f"-{n}") for n in range(20)])
    activate(model, "1")
    drawn(sampler_of(study, model), batch._replace(memes=many), engine.policy("1"))
