"""Base samples drawn by a real server: `transformers serve` on loopback, behind a proxy that fails at first.

The server loads any folder that a request names, so one process is the study's model, and others to be refused.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import polars as pl
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import tiny_models
from faulty_proxy import Proxy, before
from memedynamics import engines, tables, vlm
from memedynamics import sampling as drawing
from memedynamics.config import BaseModelConfig, Sampling, Server
from memedynamics.elsewhere import ask
from memedynamics.errors import InputError
from memedynamics.forced_logps import reader
from memedynamics.noise import seed_of
from memedynamics.prompts import load_prompt, user_text
from smoke_study import HERE, SMOKE, snakemake, told

pytestmark = pytest.mark.workflow
KEY = "-".join(["sk", "planted", "and", "never", "seen", "again"])  # not in this file, which lies in the project too
# What keeps `transformers serve` from cutting the reasoning out of a Qwen model's responses (docs/sampling.md).
WHOLE = {
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {"content": {"content": "text", "content_args": {"strip": False}}},
}
OOD, QUESTION = ("pictograms_ood", "test"), {"pictograms_ood": "hateful"}
PROMPT = load_prompt(HERE / "config/prompts/think_answer_text.yaml")
BASE = BaseModelConfig(source="demo", dtype="float32")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a `transformers serve` that loads what it is asked for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("server") / "log").open("w")
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--log-level", "error"], env=environment, stdout=log, stderr=log)
    origin = f"http://127.0.0.1:{port}"
    while not listens(origin):
        assert process.poll() is None, Path(log.name).read_text()[-4000:]
        time.sleep(0.2)
    yield origin
    process.terminate()
    process.wait(30)


def listens(origin):
    try:
        return urlopen(f"{origin}/health").status == 200
    except URLError:
        return False


@pytest.fixture(scope="module")
def proxy(server):
    proxy = Proxy(before(server))
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    """The finished study, and its model as it is served."""
    folder = tmp_path_factory.mktemp("engines") / "project"
    shutil.copytree(finished, folder, symlinks=True)
    served = folder / "served"
    shutil.copytree(folder / "results/smoke/model", served)
    settings = json.loads((served / "tokenizer_config.json").read_text())
    (served / "tokenizer_config.json").write_text(json.dumps({**settings, "response_template": WHOLE}))
    # Pictures are named from there.
    with contextlib.chdir(folder):
        yield folder


def study(project, name, **sampling):
    """The smoke study with other settings of sampling; its path."""
    settings = yaml.safe_load((project / SMOKE).read_text())
    settings["sampling"] |= sampling
    (project / name).write_text(yaml.safe_dump(settings, sort_keys=False))
    return name


def of_server(proxy, project, **others):
    return {"base_url": proxy.url, "model": str(project / "served"), "key_variable": "STUDY_KEY", **others}


def start(project, argument):
    """The job as Snakemake would run it."""
    script = [sys.executable, f"workflow/scripts/{argument['rule']}.py", json.dumps(argument)]
    environment = {**os.environ, "PYTHONPATH": "workflow", "STUDY_KEY": KEY, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(script, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def parts(project, argument):
    return {part.name for part in (project / argument["work"]).glob("*/drawn/[!.]*.parquet")}


@pytest.fixture(scope="module")
def drawn(project, proxy):
    """One shard of a split, drawn by a job that is killed after its first batch and run again.

    Its rows, its argument, what both tries said, the finished batches' names, and what was asked before and after.
    """
    few = {"num_samples": 2, "batch_size": 2, "engine": "openai", "server": of_server(proxy, project)}
    config = study(project, "server.yaml", **few)
    argument = told(project, "sample_base", '"dataset": "pictograms_ood"', '"1-of-2"', config=config)
    proxy.faults = [429, "drop", 500]
    killed = start(project, argument)
    while not (kept := parts(project, argument)):
        assert killed.poll() is None, killed.stdout.read().decode()[-4000:]
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    said = killed.stdout.read().decode()
    killed.wait()
    kept |= parts(project, argument)
    proxy.settle()
    before_kill = len(proxy.asked)
    rerun = start(project, argument)
    said += rerun.communicate(timeout=300)[0].decode()
    assert rerun.returncode == 0, said[-4000:]
    rows = tables.read(project / argument["output"]["samples"], "drawn")
    return rows, argument, said, kept, (proxy.asked[:before_kill], proxy.asked[before_kill:])


@pytest.fixture(scope="module")
def sampler(project):
    """The study's model here."""
    folder = project / "results/smoke/model"
    settings = Sampling(num_samples=2, max_new_tokens=56, engine="openai")
    return drawing.sampler(vlm.load_model(folder), vlm.load_processor(folder), PROMPT, settings)


@pytest.fixture(scope="module")
def memes(project):
    return tables.read(project / "results/smoke/data/pictograms_ood/test.parquet", "data")


def of_prompts(asked):
    """Seeds and answers of requests with pictures; the first of each job has none."""
    return [(body["seed"], body, answer) for body, answer in asked if "image_url" in json.dumps(body)]


def test_every_response_is_there(drawn, memes):
    rows, argument, *_ = drawn
    assert rows.select("id", "sample").rows() == [(id, k) for id in memes["id"][:12] for k in range(2)]
    assert set(rows["tokens"]) <= {"text", "recut"} and (rows["tokens"] == "text").mean() > 0.8
    assert list(Path(argument["work"]).glob("*/ended"))  # which Snakemake takes away


def test_failures_were_waited_out_and_finished_batches_not_asked_again(drawn, memes):
    """The seeds of a finished batch are in no later request; all seeds are those of the responses' names."""
    _, _, said, kept, (first, second) = drawn
    assert said.count("sent again in") == 3
    assert "429" in said and "500" in said and "RemoteDisconnected" in said
    names = {id: [seed_of(0, *OOD, id, k) for k in range(2)] for id in memes["id"][:12]}
    finished = {seed for name in kept for id in batch_of(name, memes) for seed in names[id]}
    again = [seed for seed, *_ in of_prompts(second)]
    assert finished and not finished & set(again)
    assert len(set(again)) == len(again) and set(again) | {seed for seed, *_ in of_prompts(first)} == set(
        sum(names.values(), [])
    )


def batch_of(name, memes):
    number = int(name.removesuffix(".parquet").rpartition("-")[2])
    return memes["id"][2 * number : 2 * number + 2]


def test_prompt_tokens_are_the_same(drawn, sampler, memes):
    """Of every answer: as many as the study's own encoding has, from a picture that lost no pixel."""
    batch = drawing.Batch("all", 0.0, memes)
    asked = {seed: one for one in ask(sampler, batch, QUESTION) for seed in one.seeds}
    answered = of_prompts(drawn[4][0] + drawn[4][1])
    assert len({answer["usage"]["prompt_tokens"] for *_, answer in answered}) > 1
    for seed, body, answer in answered:
        assert answer["usage"]["prompt_tokens"] == len(asked[seed].tokens)
        url = body["messages"][0]["content"][0]["image_url"]["url"]
        picture = Image.open(BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
        assert picture.tobytes() == asked[seed].image.tobytes()
        assert rendered(sampler.processor, body["messages"], picture) == asked[seed].tokens


def rendered(processor, sent, picture):
    """The tokens that transformers' own chat template makes of what was sent to the server."""
    (message,) = sent
    content = [{"type": "image", "image": picture}, message["content"][1]]
    given = {"tokenize": True, "add_generation_prompt": True, "return_dict": True}
    return list(processor.apply_chat_template([{"role": "user", "content": content}], **given)["input_ids"][0])


def test_nothing_truncates(drawn):
    """What would by the model's own defaults or the server's: the 50 likeliest tokens, or the likeliest alone."""
    (_, body, _), *_ = of_prompts(drawn[4][0])
    sent = json.loads(body["generation_config"])
    assert (sent["do_sample"], sent["temperature"], sent["top_k"], sent["top_p"]) == (True, 1.0, 0, 1.0)


def test_log_probabilities_are_the_study_models_own(drawn, sampler, memes):
    """Against whole sequences, nothing shared, of eight memes."""
    rows, few = drawn[0].filter(tokens="text"), memes[:8]
    content = pl.Series([user_text(PROMPT, "hateful", text) for text in few["text"]])
    plainly = reader(sampler.model, sampler.processor, PROMPT, few.with_columns(content=content), rows, 2)
    for logp, stored in zip(plainly.plain(sampler.model), plainly.stored, strict=True):
        assert logp.double().sum().item() == pytest.approx(stored, abs=1e-3)


def test_the_key_is_nowhere(drawn, project, proxy):
    assert {headers.get("Authorization") for headers in proxy.headers} == {f"Bearer {KEY}"}
    assert KEY not in drawn[2]
    for file in project.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_a_response_depends_on_its_name_alone(drawn, sampler, project, proxy, memes, monkeypatch):
    """The same memes in one batch, in this process, undisturbed: the same texts."""
    monkeypatch.setenv("STUDY_KEY", KEY)
    found = next(rows for _, rows in draw(sampler, memes[6:12], proxy, project))
    columns = ["id", "sample", "token_ids", "text", "finish_reason", "tokens"]
    assert found.select(columns).equals(drawn[0][12:].select(columns))


def draw(sampler, memes, proxy, project, **server):
    """Rows by batch, of all of `memes` at once."""
    engine = engines.of_base(sampler, Path(), BASE, Server(**of_server(proxy, project, **server)))
    return engines.drawn(sampler, [drawing.Batch("all", 0.0, memes)], QUESTION, engine, "float32")


def hotter(project):
    """The study's model with its logits halved: other draws from the same prompts."""
    folder = project / "hotter"
    shutil.copytree(project / "served", folder)
    weights = load_file(folder / "model.safetensors")
    (head,) = (name for name in weights if name.endswith("embed_tokens.weight"))  # tied: the head too
    weights[head] = weights[head] * 0.5
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def other_family(project):
    return tiny_models.folder("llava")


def as_it_is(project):
    return project / "results/smoke/model"


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        (other_family, r"pictograms_ood/test/[\w-]+ has \d+ prompt tokens here and there \d+"),
        (
            hotter,
            "not draws from the study's base model: .* less likely|texts are not as many tokens here as were drawn",
        ),
        (as_it_is, "cuts reasoning_content out of responses"),
    ],
)
def test_another_model_is_refused(folder, said, sampler, project, proxy, memes, monkeypatch):
    monkeypatch.setenv("STUDY_KEY", KEY)
    with pytest.raises(InputError, match=said):
        list(draw(sampler, memes[:16], proxy, project, model=str(folder(project))))


def test_what_a_change_of_engine_samples_anew(project, proxy):
    """The engine counts; where the server is and how many requests go there at once do not.

    The report's first page shows the study file, whatever a line of it changes.
    """
    there = study(project, "there.yaml", engine="openai", server=of_server(proxy, project))
    elsewhere = {"base_url": "http://127.0.0.1:1/v1", "concurrency": 3}
    moved = study(project, "moved.yaml", engine="openai", server=elsewhere)
    here, at_server, at_other = (digests(project, config) for config in (SMOKE, there, moved))
    assert changed(at_server, at_other) == {"report_index"}
    assert changed(here, at_server) == {"report_index", "sample_base"}


def changed(one, other):
    return {rule for rule in one.keys() | other.keys() if one.get(rule) != other.get(rule)}


def digests(project, config):
    """What every rule's jobs depend on besides their inputs, by rule."""
    text = snakemake(project, "--dry-run", "--printshellcmds", "--forceall", config=config).stdout
    found = {}
    for line in text.splitlines():
        if "scripts/" in line and "'{" in line:
            argument = json.loads(line[line.index("'{") + 1 : line.rindex("}'") + 1])
            found.setdefault(argument["rule"], set()).add(argument["digest"])
    return found
