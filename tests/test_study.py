"""The study file is checked whole; an error names key, value and the nearest valid key."""

from pathlib import Path

import pytest
import yaml

from memedynamics.config import Strict, Study
from memedynamics.errors import InputError
from memedynamics.study import load_study, plain, warnings_of

HERE = Path(__file__).resolve().parents[1]
STUDY = {
    "study": "x",
    "base_model": {"source": "demo"},
    "datasets": {"p": {"reader": "pictograms"}},
    "in_domain": "p",
    "methods": {"sft": {"kind": "sft"}},
}


@pytest.mark.parametrize("name", ["demo", "hateful_memes"])
def test_shipped_studies_are_valid(name):
    assert load_study(yaml.safe_load((HERE / f"config/{name}.yaml").read_text())).study == name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samplng": {}}, "samplng: unknown key; did you mean 'sampling'?"),
        ({"sampling": {"num_sample": 3}}, "sampling.num_sample: unknown key; did you mean 'num_samples'?"),
        ({"methods": {"sft": {"kind": "sft", "arg": {}}}}, "methods.sft.arg: unknown key; did you mean 'args'?"),
        ({"methods": {"sft": {"kind": "sft", "prompt": "answer_only"}}}, "methods.sft.prompt: a study has one prompt"),
        ({"datasets": {"p": {"reader": "pictograms", "colums": {}}}}, "datasets.p.colums.*did you mean 'columns'"),
        ({"methods": {"x": {"kind": "ppo"}}}, "methods.x: .*'ppo'.*'sft', 'dpo', 'grpo'"),
        ({"methods": {"base": {"kind": "sft"}}}, "cannot be called 'base'"),
        ({"seeds": "a"}, r"seeds: .*list \(found 'a'\)"),
        ({"adapter": {"r": 0}}, r"adapter.r: .*greater than 0 \(found 0\)"),
        ({"milestones": [0.5, 1]}, "milestones must rise from 0 to 1"),
        ({"in_domain": "q"}, "dataset 'q' is not under datasets"),
        ({"datasets": {"p": {"reader": "harmeme"}}}, "datasets.p: root is missing"),
        ({"base_model": {"source": "org/model"}}, "base_model.revision is missing"),
        ({"datasets": {"p": {"reader": "huggingface", "hub_id": "a/b"}}}, "hub_id needs a pinned revision"),
    ],
)
def test_bad_keys_are_named(change, words):
    with pytest.raises(InputError, match=words):
        load_study(STUDY | change)


def test_missing_key_is_named():
    with pytest.raises(InputError, match="in_domain: missing"):
        load_study({key: value for key, value in STUDY.items() if key != "in_domain"})


def test_plain_fills_in_defaults():
    assert plain(load_study(STUDY))["sampling"]["num_samples"] == 8


def test_trial_is_short_and_apart():
    trial = load_study(
        STUDY | {"trial": True, "seeds": [4, 5], "methods": {"sft": {"kind": "sft", "args": {"max_steps": 99}}}}
    )
    assert (trial.study, trial.seeds, trial.training["max_steps"]) == ("x-trial", [4], 8)
    assert "max_steps" not in trial.methods["sft"].args


def test_unmatched_methods_are_named_with_both_keys():
    other = {"sft": {"kind": "sft", "adapter": {"r": 64}}, "grpo": {"kind": "grpo", "train_prompts": "all"}}
    lines = warnings_of(load_study(STUDY | {"methods": other}))
    assert "methods.sft.adapter.r = 64 but adapter.r = 16" in lines[0]
    assert "methods.grpo.train_prompts = 'all' but train_prompts = 'paired'" in lines[1]
    assert warnings_of(load_study(STUDY)) == []


def test_every_key_is_described():
    todo, seen = [Study], set()
    while todo:
        section = todo.pop()
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
            for inner in Strict.__subclasses__():
                if inner.__name__ in str(field.annotation) and inner not in seen:
                    seen.add(inner)
                    todo.append(inner)
    assert len(seen) > 8
