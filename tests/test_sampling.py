"""Samples are exact draws from the policy, the same on any number of shards, and survive a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from peft import get_peft_model

import tiny_models
from memedynamics import answers, sampling, tables, vlm
from memedynamics.adapters import peft_config
from memedynamics.config import Adapter, BaseModelConfig, OwnSamples, Sampling
from memedynamics.decoding import pick, respond
from memedynamics.noise import uniforms
from memedynamics.prefix import prefill
from memedynamics.prompts import load_prompt

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow/scripts"))
import sample_base  # noqa: E402
import sample_policy  # noqa: E402

PROMPT = load_prompt(ROOT / "config/prompts/answer_only.yaml")
FEW = Sampling(num_samples=3, max_new_tokens=6, batch_size=2)
BASE = BaseModelConfig(source="demo", dtype="float32")


def model_of(family):
    model = vlm.load_model(tiny_models.folder(family))
    for weight in model.parameters():
        weight.mul_(4 if weight.ndim > 1 else 1)
    return model


def encoded(family, contents=("Is it hateful?", "Is it?")):
    processor = vlm.load_processor(tiny_models.folder(family))
    return vlm.encode(processor, list(contents), [tiny_models.picture(n, 56 + 28 * n) for n in range(len(contents))])


# Noise


def test_noise_depends_on_the_response_alone():
    name = (0, "memes", "val", "17", 2)
    assert np.array_equal(uniforms(*name, 10), uniforms(*name, 10))
    assert np.array_equal(uniforms(*name, 10), uniforms(*name, 500)[:10])
    for place, other in enumerate((1, "meme", "test", "18", 3)):
        changed = [*name[:place], other, *name[place + 1 :]]
        assert not np.isin(uniforms(*changed, 100), uniforms(*name, 100)).any()


def test_noise_is_uniform_over_responses():
    """Kolmogorov-Smirnov over 4,000 responses at one position, and between samples and positions no correlation."""
    grid = np.array([uniforms(0, "m", "val", str(n), n % 8, 3) for n in range(4000)])
    steps = np.arange(1, 4001) / 4000
    for column in grid.T:
        distance = np.abs(np.sort(column) - steps).max()
        assert distance < 1.95 / np.sqrt(4000)  # p = .001
    assert np.abs(np.corrcoef(grid.T) - np.eye(3)).max() < 0.06
    assert abs(np.corrcoef(grid[:-1, 0], grid[1:, 0])[0, 1]) < 0.06


# Picking a token


def test_pick_inverts_the_cdf():
    """p = (.2, 0, .5, .3): CDF .2, .2, .7, 1."""
    logits = torch.tensor([0.2, 0.0, 0.5, 0.3]).log().expand(6, -1)
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 1 - 2**-53], dtype=torch.float64)
    assert pick(logits, uniform).tolist() == [0, 0, 2, 2, 3, 3]


def test_pick_never_takes_an_impossible_token():
    """At both ends of the vocabulary and of the uniform range."""
    logits = torch.full((2, 9), -torch.inf)
    logits[:, 3:6] = torch.tensor([0.0, -1.0, -2.0])
    extremes = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert pick(logits, extremes).tolist() == [3, 5]


def test_drawn_tokens_follow_the_exact_probabilities():
    """χ² of 8,000 first tokens against softmax, in 20 bins of tokens: 19 degrees of freedom, p = .001 at 43.8."""
    model = model_of("qwen2_5_vl")
    prefix = prefill(model, encoded("qwen2_5_vl", ["Is it hateful?"]))
    logits = vlm.project(model, prefix.last_hidden)[0].double()
    p = logits.index_fill(0, torch.tensor(vlm.picture_token_id(model)), -torch.inf).softmax(-1).numpy()
    noise = np.array([uniforms(3, "m", "val", "1", n, 1) for n in range(8000)])
    drawn = [r.token_ids[0] for r in respond(model, prefix.repeat(len(noise)), noise, set(), 1.0)]
    bins = np.arange(len(p)) % 20
    expected = np.bincount(bins, p) * len(noise)
    observed = np.bincount(bins[drawn], minlength=20)
    assert ((observed - expected) ** 2 / expected).sum() < 43.8


# Responding


def naive(model, prompt, uniform, ends, temperature):
    """One response the plain way: the whole sequence anew for every token."""
    tokens, total = [], 0.0
    for number in uniform:
        response, shape = torch.tensor(tokens, dtype=torch.long), prompt["input_ids"].shape
        inputs = {}
        for name, value in prompt.items():
            new = {"input_ids": response, "attention_mask": torch.ones_like(response)}.get(name, 0 * response)
            inputs[name] = torch.cat([value, new[None].to(value.dtype)], 1) if value.shape == shape else value
        logits = model(**inputs).logits[0, -1].double()
        possible = logits.index_fill(0, torch.tensor(vlm.picture_token_id(model)), -torch.inf)
        cdf = np.cumsum((possible / temperature).softmax(-1).numpy())
        tokens.append(int(np.searchsorted(cdf, number * cdf[-1], side="right")))
        total += logits.log_softmax(-1)[tokens[-1]].item()
        if tokens[-1] in ends:
            return tokens, "stop", total
    return tokens, "length", total


@pytest.mark.parametrize(
    ("family", "temperature"), [*((family, 1.0) for family in tiny_models.FAMILIES), ("idefics3", 1.0), ("llava", 0.7)]
)
def test_responses_equal_those_drawn_the_plain_way(family, temperature):
    """Every twentieth token ends a response, so rows leave the batch; Gemma 3's prompt is longer than its window."""
    model, random = model_of(family), np.random.default_rng(5)
    noise, ends = random.random((8, 12)), set(range(0, 400, 20))
    contents, processor = ["Is it hateful?", "Is it?"], vlm.load_processor(tiny_models.folder(family))
    responses = respond(model, prefill(model, encoded(family, contents)).repeat(4), noise, ends, temperature)
    assert len({len(r.token_ids) for r in responses}) > 1
    for row, response in enumerate(responses):
        n = row // 4
        alone = vlm.encode(processor, [contents[n]], [tiny_models.picture(n, 56 + 28 * n)])
        tokens, reason, logp = naive(model, alone, noise[row], ends, temperature)
        assert (response.token_ids, response.finish_reason) == (tokens, reason)
        assert response.logp == pytest.approx(logp, abs=1e-4)


def test_end_token_at_the_last_position_is_a_stop():
    model = model_of("qwen2_5_vl")
    prefix = prefill(model, encoded("qwen2_5_vl", ["Is it?"]))
    everything = set(range(400))
    (response,) = respond(model, prefix, np.array([[0.5]]), everything, 1.0)
    assert response.finish_reason == "stop" and len(response.token_ids) == 1
    (cut,) = respond(model, prefix, np.array([[0.5]]), set(), 1.0)
    assert cut == response._replace(finish_reason="length")


# The study's samples


def memes(folder, split, count, dataset="memes"):
    rows = []
    for n in range(count):
        path = folder / f"{n}.png"
        tiny_models.picture(n, 56, 56 + 28 * (n % 2)).save(path)
        row = {"study": "s", "dataset": dataset, "split": split, "id": f"{n:02d}", "image": str(path), "label": n % 2}
        rows.append(row | {"image_sha256": "", "width": 56, "height": 56, "text": f"caption {n}", "groups": ["a"]})
    path = folder / f"{dataset}-{split}.parquet"
    tables.write(pl.DataFrame(rows), path, "data")
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    splits = [memes(folder, "val", 9), memes(folder, "test", 3), memes(folder, "test", 2, "other")]
    model = model_of("qwen2_5_vl")
    model.save_pretrained(folder / "model")
    vlm.load_processor(tiny_models.folder("qwen2_5_vl")).save_pretrained(folder / "model")
    return folder, splits


def sample_shard(study, folder, shard):
    (root, (val, *_)), output = study, folder / f"{shard}.parquet"
    work = folder / f"work-{shard}"
    arguments = {"prompt": PROMPT, "question": "hateful", "sampling": FEW, "base": BASE}
    sample_base.main(val, root / "model", output, "memes", shard, threads=1, work=work, **arguments)
    return output


@pytest.fixture(scope="module")
def one_shard(study, tmp_path_factory):
    return tables.read(sample_shard(study, tmp_path_factory.mktemp("one"), "1-of-1"), "drawn")


@pytest.mark.parametrize("total", [3, 5])
def test_samples_do_not_depend_on_the_number_of_shards(study, one_shard, tmp_path, total):
    """9 memes in batches of 2 make 5 batches; equality is exact, log-probabilities included."""
    paths = [sample_shard(study, tmp_path, f"{n}-of-{total}") for n in range(1, total + 1)]
    assert tables.read_all(paths, "drawn").equals(one_shard)


def test_a_shard_can_be_redone_alone(study, tmp_path):
    first = sample_shard(study, tmp_path, "2-of-3").read_bytes()
    assert sample_shard(study, tmp_path, "2-of-3").read_bytes() == first


def test_a_killed_shard_loses_at_most_one_batch(study, one_shard, tmp_path, monkeypatch):
    answered, drawn = sampling.answered, []

    def counted(*arguments):
        drawn.append(arguments[1].key)
        return answered(*arguments)

    def killed_in_the_third(*arguments):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return counted(*arguments)

    monkeypatch.setattr(sampling, "answered", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        sample_shard(study, tmp_path, "1-of-1")
    assert not (tmp_path / "1-of-1.parquet").exists()
    monkeypatch.setattr(sampling, "answered", counted)
    resumed = tables.read(sample_shard(study, tmp_path, "1-of-1"), "drawn")
    assert len(drawn) == len(set(drawn)) == 5
    assert resumed.equals(one_shard)


def start(study, folder):
    """The script in a process of its own, with its JSON argument: 9 batches of one meme, written to `folder`."""
    (root, (val, *_)), long = study, Sampling(num_samples=4, max_new_tokens=96, batch_size=1)
    cfg = {"dataset": "memes", "base": BASE, "prompt": PROMPT, "sampling": long}
    argument = {
        **{
            "rule": "sample_base",
            "root": str(folder),
            "study": "s",
            "code": "c",
            "digest": "d",
            "threads": 1,
            "gpu": 0,
        },
        "input": {"data": str(val), "model": str(root / "model")},
        "output": {"samples": str(folder / "samples.parquet")},
        "wildcards": {"scatteritem": "1-of-1"},
        "cfg": {k: v.model_dump(mode="json") if hasattr(v, "model_dump") else v for k, v in cfg.items()}
        | {"question": "hateful"},
        "work": str(folder / "work"),
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "workflow/scripts/sample_base.py", json.dumps(argument)]
    return subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)


def finished(folder):
    """When each part file was written."""
    found = {}
    for part in (folder / "work").glob("*/drawn/*.parquet"):
        try:
            found[part.name] = part.stat().st_mtime_ns
        except FileNotFoundError:  # cleared up meanwhile
            continue
    return {name: at for name, at in found.items() if not name.startswith(".")}


def test_a_job_killed_for_real_goes_on_where_it_was(study, tmp_path):
    """SIGKILL once the first part lies there; the rerun draws the others alone, to the bytes of an undisturbed job."""
    undisturbed, killed = start(study, tmp_path / "whole"), start(study, tmp_path / "killed")
    while not (before := finished(tmp_path / "killed")):
        assert killed.poll() is None, "the job ended before it was killed"
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = finished(tmp_path / "killed")
    assert 0 < len(before) < 9 and not (tmp_path / "killed/samples.parquet").exists()
    rerun, seen = start(study, tmp_path / "killed"), set()
    while rerun.poll() is None:
        seen |= finished(tmp_path / "killed").items()
        time.sleep(0.002)
    assert (rerun.returncode, undisturbed.wait()) == (0, 0)
    # In order: a part that was drawn again would have shown a second time before the first new one.
    assert {(name, at) for name, at in seen if name in before} == before.items() and len(seen) > len(before)
    assert not (tmp_path / "killed/work").exists()
    same = [(tmp_path / name / "samples.parquet").read_bytes() for name in ("killed", "whole")]
    assert same[0] == same[1]


def test_samples_hold_what_their_schema_says(study, one_shard):
    root, (val, *_) = study
    model, processor = vlm.load_model(root / "model"), vlm.load_processor(root / "model")
    ends, tokenizer = vlm.end_token_ids(model, processor), processor.tokenizer
    assert one_shard.select("id", "sample").rows() == [(f"{n:02d}", k) for n in range(9) for k in range(3)]
    for row in one_shard.iter_rows(named=True):
        stopped = row["token_ids"][-1] in ends
        assert row["finish_reason"] == ("stop" if stopped else "length")
        assert stopped or len(row["token_ids"]) == FEW.max_new_tokens
        assert row["text"] == tokenizer.decode(row["token_ids"][:-1] if stopped else row["token_ids"], True)
        assert row["forced"] == answers.context(row["token_ids"], tokenizer, PROMPT, ends).forced
        assert 0 < row["p_hateful"] < 1 and 0 < row["label_mass"] < 1 and row["logp"] < 0


def test_halved_batches_draw_the_same_responses(study):
    """What happens when memory runs out: the same noise, other companions."""
    root, (val, *_) = study
    model, processor = vlm.load_model(root / "model"), vlm.load_processor(root / "model")
    sampler, data = sampling.sampler(model, processor, PROMPT, FEW), tables.read(val, "data")[:4]
    together = sampling.draw(sampler, data, "hateful", 0.0)
    halves = pl.concat([sampling.draw(sampler, data[part], "hateful", 0.0) for part in ([0, 1, 2], [3])])
    assert together.select("id", "sample", "token_ids", "text").equals(
        halves.select("id", "sample", "token_ids", "text")
    )
    for column in ("logp", "p_hateful", "label_mass"):
        np.testing.assert_allclose(together[column], halves[column], atol=1e-4)


def adapted(folder, model_folder, fractions):
    for fraction in fractions:
        torch.manual_seed(int(100 * fraction))
        model = vlm.load_model(model_folder)
        policy = get_peft_model(model, peft_config(model, Adapter(r=2)))
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=fraction)
        policy.save_pretrained(folder / f"{fraction:g}")
    return folder


@pytest.fixture(scope="module")
def policy_samples(study, tmp_path_factory):
    (root, splits), folder = study, tmp_path_factory.mktemp("policy")
    milestones = adapted(folder / "milestones", root / "model", [0.5, 1])
    (milestones / "0").mkdir()
    run = folder / "run.json"
    run.write_text(json.dumps({"kind": "adapter", "steps": {"0": 0, "0.5": 4, "1": 8}}))
    output, own = folder / "samples.parquet", OwnSamples(milestones=4)
    arguments = {"prompt": PROMPT, "sampling": FEW, "base": BASE, "own": own, "in_domain": "memes"}
    questions = {"memes": "hateful", "other": "harmful"}
    sample_policy.main(
        splits, root / "model", milestones, run, output, "sft", "1", "1-of-1", questions=questions,
        fractions=[0, 0.5, 1], threads=1, work=folder / "work", **arguments,
    )  # fmt: skip
    return tables.read(output, "drawn")


def test_policy_answers_a_choice_of_val_at_milestones_and_everything_at_the_end(policy_samples):
    """4 val memes at .5; at 1 9 val, 3 test and 2 out of domain; 3 responses each."""
    counts = policy_samples.group_by("fraction", "dataset", "split").len().sort("fraction", "dataset", "split").rows()
    assert counts == [
        (0.5, "memes", "val", 12),
        (1, "memes", "test", 9),
        (1, "memes", "val", 27),
        (1, "other", "test", 6),
    ]
    chosen = policy_samples.filter(pl.col("fraction") == 0.5)["id"].unique().to_list()
    assert sorted(int(name) % 2 for name in chosen) == [0, 0, 1, 1]


def test_each_milestone_is_sampled_from_its_own_adapter(policy_samples, one_shard):
    """With equal noise only the weights differ: all three policies answer the same prompts differently."""
    chosen = policy_samples.filter(pl.col("fraction") == 0.5).select("id", "sample")
    texts = []
    for frame in (policy_samples.filter(fraction=0.5), policy_samples.filter(fraction=1.0, split="val"), one_shard):
        texts.append(frame.join(chosen, ["id", "sample"], "semi").sort("id", "sample")["text"].to_list())
    assert len({json.dumps(text) for text in texts}) == 3
