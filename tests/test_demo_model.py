"""The demo's base model: what it is taught, and that it is a real model folder, the same bytes every time."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from memedynamics import checkpoints, demo_model, tables
from memedynamics.config import BaseModelConfig, DemoTraining
from memedynamics.demo_text import BREAKS, target
from memedynamics.images import open_image
from memedynamics.job import contents
from memedynamics.pictograms import rows, scene
from memedynamics.prompts import load_prompt, messages, user_text
from memedynamics.rewards import grade

ROOT = Path(__file__).parents[1]
PROMPTS = {
    file.stem: load_prompt(file) for file in sorted((ROOT / "config/prompts").glob("*.yaml")) if file.stem != "judge"
}
PROMPT = PROMPTS["think_answer_text"]
SCENES = [scene(f"train-{number:04d}") for number in range(48)]
SHORT = DemoTraining(steps=3)


def unusable(one):
    """Malformed, or well-formed blocks without a decision in the last."""
    return not one.format_ok or one.answer == "invalid"


def grades(prompt, settings, count=4000):
    rng = np.random.default_rng(7)
    chosen = [SCENES[i % len(SCENES)] for i in range(count)]
    return [grade(target(meant, prompt, settings, rng), meant.label, prompt) for meant in chosen]


@pytest.mark.parametrize("name", PROMPTS)
def test_sound_targets_keep_every_prompts_format(name):
    found = grades(PROMPTS[name], DemoTraining(malformed=0, wrong=0), 480)
    assert all(one.format_ok and one.correct for one in found)


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize(("malformed", "wrong"), [(0.25, 0.25), (0.1, 0.4)])
def test_shares_of_malformed_and_wrong_targets(name, malformed, wrong):
    """Of 4,000 draws a share p has standard error sqrt(p (1 - p) / 4000) < 0.008: 0.03 is four of them."""
    found = grades(PROMPTS[name], DemoTraining(malformed=malformed, wrong=wrong))
    assert np.mean([unusable(one) for one in found]) == pytest.approx(malformed, abs=0.03)
    assert np.mean([not one.correct for one in found if not unusable(one)]) == pytest.approx(wrong, abs=0.03)


@pytest.mark.parametrize("name", PROMPTS)
def test_all_wrong_and_all_malformed(name):
    wrong = grades(PROMPTS[name], DemoTraining(malformed=0, wrong=1), 480)
    assert all(one.format_ok and not one.correct and one.answer != "invalid" for one in wrong)
    assert all(unusable(one) for one in grades(PROMPTS[name], DemoTraining(malformed=1, wrong=0), 480))


@pytest.mark.parametrize("name", PROMPTS)
def test_every_break_makes_a_response_unusable(name):
    blocks = [(block, PROMPTS[name].labels["yes"] if block == "answer" else "words") for block in PROMPTS[name].blocks]
    for spoil in BREAKS:
        assert unusable(grade(spoil(blocks), 1, PROMPTS[name]))


def test_targets_tell_the_meme():
    """A sound target names the group and the act, and two draws of it are worded differently now and then."""
    rng = np.random.default_rng(0)
    told = [target(SCENES[0], PROMPT, DemoTraining(malformed=0, wrong=0), rng) for _ in range(50)]
    assert all(SCENES[0].group.lower() in text and SCENES[0].act in text for text in told)
    assert len(set(told)) > 5


@pytest.fixture(scope="session")
def memes(tmp_path_factory):
    """A data table of 32 drawn memes, its path."""
    folder = tmp_path_factory.mktemp("demo")
    drawn = pl.DataFrame([row | {"image": str(row["image"])} for row in rows("train", 32, "plain", folder)])
    constant = {"dataset": "pictograms", "split": "train", "image_sha256": "0" * 64, "width": 168, "height": 168}
    tables.write(drawn.with_columns(**{k: pl.lit(v) for k, v in constant.items()}), folder / "train.parquet", "data")
    return folder / "train.parquet"


def build(memes, folder):
    folder.mkdir(parents=True)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        demo_model.build_and_train(
            tables.read(memes, "data"), PROMPT, "hateful", SHORT, folder, threads=1, work=folder.parent
        )
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="session")
def model(memes, tmp_path_factory):
    return build(memes, tmp_path_factory.mktemp("demo_model") / "model")


def test_equal_seeds_give_equal_bytes(memes, model, tmp_path):
    assert contents(build(memes, tmp_path / "again")) == contents(model)


def test_a_killed_training_goes_on_to_the_same_bytes(memes, model, tmp_path, monkeypatch):
    """What the first leaves behind after two of three steps is what a killed one would."""
    begun, restore = [], demo_model.demo_state.restore
    monkeypatch.setattr(demo_model, "KEPT_EVERY", 2)
    monkeypatch.setattr(demo_model.demo_state, "restore", lambda *given: begun.append(restore(*given)) or begun[-1])
    for name in ("first", "second"):
        assert contents(build(memes, tmp_path / name)) == contents(model)
    assert begun == [0, 2]


def test_it_is_a_whole_model_of_1_3_million_parameters(model):
    checkpoints.check_folder(model)
    assert 1.1e6 < checkpoints.count_parameters(model) < 1.4e6


def test_the_auto_classes_load_it(model, memes):
    """Loaded by the classes every model goes through, it reads a picture and a prompt and answers in tokens."""
    processor, loaded = AutoProcessor.from_pretrained(model), AutoModelForImageTextToText.from_pretrained(model)
    row = tables.read(memes, "data").row(0, named=True)
    chat = messages(user_text(PROMPT, "hateful", row["text"]))
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=[open_image(Path(row["image"]))], return_tensors="pt")
    with torch.no_grad():
        logits = loaded(**inputs).logits
    assert logits.shape == (1, inputs.input_ids.shape[1], len(processor.tokenizer)) and logits.isfinite().all()
    reply = loaded.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert 1 <= reply.shape[1] - inputs.input_ids.shape[1] <= 3
    assert loaded.generation_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_pictures_take_nine_tokens(model, memes):
    """84 px, patches of 14 merged two by two: 3 × 3 tokens."""
    processor = AutoProcessor.from_pretrained(model)
    image = open_image(Path(tables.read(memes, "data")["image"][0]))
    ids = processor(text=["<|image_pad|>"], images=[image], return_tensors="pt").input_ids
    assert ids.shape == (1, 9) and (ids == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).all()


def test_every_spelling_of_an_answer_is_one_token(model):
    tokenizer = AutoProcessor.from_pretrained(model).tokenizer
    words = [word for label in ("Yes", "No") for word in (label, label.lower(), label.upper())]
    for word in [*words, *[f" {word}" for word in words]]:
        assert len(tokenizer.encode(word)) == 1, word


def test_text_survives_the_tokenizer(model):
    """Byte-level: any text comes back, that of targets and words never seen alike."""
    tokenizer = AutoProcessor.from_pretrained(model).tokenizer
    for text in [target(SCENES[0], PROMPT, SHORT, np.random.default_rng(1)), "Zürich, größer 🙂 <think>"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_training_moves_every_weight(model, memes, tmp_path):
    """All is trained, the vision tower too: three steps change every weight matrix."""
    processor = AutoProcessor.from_pretrained(model)
    torch.manual_seed(SHORT.seed)
    start = dict(demo_model.make_model(processor.tokenizer).named_parameters())
    trained = AutoModelForImageTextToText.from_pretrained(model)
    still = [name for name, weight in trained.named_parameters() if torch.equal(weight, start[name])]
    assert not still


def test_the_loss_counts_the_responses_tokens_alone(model):
    processor = AutoProcessor.from_pretrained(model)
    lessons = [("a", "yes"), ("a longer question", "a longer reply")]
    made = demo_model.spoken(processor, lessons, patches=36)
    for row, (asked, told) in enumerate(lessons):
        ids, labels = made["input_ids"][row], made["labels"][row]
        assert processor.tokenizer.decode(labels[labels != -100]) == told + "<|im_end|>"
        assert torch.equal(ids[labels != -100], labels[labels != -100])
        before = processor.tokenizer.decode(ids[: int((labels != -100).nonzero()[0])])
        assert before.count("<|image_pad|>") == 9 and asked in before and before.endswith("assistant\n")
        assert made["attention_mask"][row].sum() == (ids != processor.tokenizer.pad_token_id).sum()


def test_as_a_job(memes, tmp_path):
    """The rule's script makes the folder with its manifest, in place of what was there."""
    spec = importlib.util.spec_from_file_location("base_model", ROOT / "workflow/scripts/base_model.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path / "results/model"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    source = BaseModelConfig(source="demo", dtype="float32", demo=DemoTraining(steps=1))
    deterministic = torch.are_deterministic_algorithms_enabled()
    script.main(folder, source, torch.get_num_threads(), tmp_path, memes, PROMPT, "hateful")
    torch.use_deterministic_algorithms(deterministic)
    manifest = json.loads((folder / "base.json").read_text())
    assert manifest["source"] == "demo" and manifest["revision"] is None
    assert manifest["architecture"] == "Qwen2_5_VLForConditionalGeneration"
    assert manifest["digest"] == checkpoints.weights_digest(folder)
    assert not (folder / "old").exists() and list(folder.parent.iterdir()) == [folder]
