"""The study file is checked whole; an error names key, value and the nearest valid key."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from memedynamics.config import Adapter, Study, TrainedMethod
from memedynamics.errors import InputError
from memedynamics.prompts import load_prompt
from memedynamics.sections import Strict
from memedynamics.study import adapter_of, check_questions, load_study, plain, warnings_of

HERE = Path(__file__).resolve().parents[1]
STUDY = {
    "study": "x",
    "base_model": {"source": "demo"},
    "datasets": {"p": {"reader": "pictograms"}},
    "in_domain": "p",
    "methods": {"sft": {"kind": "sft"}},
}

TWO = {"p": {"reader": "pictograms"}, "q": {"reader": "pictograms"}}


def drawn(**splits):
    """A change to p, in domain, and q, out of domain, whose `splits` are given."""
    named = {name: {"reader": "pictograms", "splits": splits.get(name, {})} for name in "pq"}
    return {"datasets": named, "out_of_domain": ["q"]}


def warned(**changes):
    """Warnings of the study with `changes`."""
    return warnings_of(load_study(STUDY | changes))


@pytest.mark.parametrize("name", ["demo", "hateful_memes"])
def test_shipped_studies_are_valid_and_matched(name):
    study = load_study(yaml.safe_load((HERE / f"config/{name}.yaml").read_text()))
    assert study.study == name and warnings_of(study) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samplng": {}}, "samplng: unknown key; did you mean 'sampling'?"),
        ({"sampling": {"num_sample": 3}}, "sampling.num_sample: unknown key; did you mean 'num_samples'?"),
        ({"report": {"image": "none"}}, "report.image: unknown key; did you mean 'images'?"),
        ({"report": {"images": "thumbnail"}}, "report.images: no 'thumbnail'; did you mean 'thumbnails'"),
        ({"methods": {"sft": {"kind": "sft", "arg": {}}}}, "methods.sft.arg: unknown key; did you mean 'args'?"),
        ({"methods": {"sft": {"kind": "sft", "prompt": "answer_only"}}}, "methods.sft.prompt: a study has one prompt"),
        ({"datasets": {"p": {"reader": "pictograms", "colums": {}}}}, "datasets.p.colums.*did you mean 'columns'"),
        ({"methods": {"x": {"kind": "gpro"}}}, "methods.x.kind: no kind 'gpro'; did you mean 'grpo'"),
        ({"methods": {"x": {"kind": "ppo"}}}, "methods.x.kind: no kind 'ppo': no trainer has PPO .* rloo or grpo with"),
        ({"methods": {"x": {"kind": "GSPO"}}}, "methods.x.kind: no kind 'GSPO'; did you mean 'gspo'"),
        ({"methods": {"x": {"kind": "online_dpo"}}}, "methods.x.kind: .*docs/methods.md.*; use rloo or grpo"),
        ({"methods": {"x": {"kind": "RLAIF"}}}, "methods.x.kind: no kind 'RLAIF': .*kind: dpo with pairs: judge"),
        ({"methods": {"x": {"kind": "reward_model"}}}, "methods.x.kind: .*set reward_model, and use rloo or grpo"),
        ({"methods": {"x": {"args": {}}}}, "methods.x.kind: missing"),
        ({"adapter": {"kind": "DoRA"}}, "adapter.kind: no 'DoRA'; did you mean 'dora'"),
        ({"adapter": {"kind": "bottleneck"}}, "adapter.kind: no 'bottleneck': PEFT has none"),
        ({"adapter": {"kind": "lorra"}}, "adapter.kind: no 'lorra'; did you mean 'lora'. There are lora, rslora, dora"),
        (
            {"methods": {"x": {"kind": "merge", "how": "tie", "of": ["a", "b"]}}},
            "methods.x.how: no 'tie'; did you mean 'ties'",
        ),
        ({"methods": {"x": {"kind": "sft", "backend": "llama"}}}, "methods.x.backend: .*did you mean 'llamafactory'"),
        ({"methods": {"x": {"kind": "sft", "target": "group"}}}, "methods.x.target: no 'group'; did you mean 'groups'"),
        ({"methods": {"x": {"kind": "grpo", "reward": "modle"}}}, "methods.x.reward: no 'modle'; did you mean 'model'"),
        ({"datasets": {"p": {"reader": "pictograms", "splits": {"trian": 3}}}}, "p.splits.trian: .* mean 'train'"),
        ({"datasets": {"p": {"reader": "pictograms", "labels": {"a": "b"}}}}, r"p.labels.a: .*0 or 1 \(found 'b'\)"),
        ({"judge": {"model": {"source": "demo"}}}, "file: judge.model.source: the demo's .*; leave judge.model empty"),
        ({"methods": {"base": {"kind": "sft"}}}, "cannot be called 'base'"),
        ({"seeds": "a"}, r"seeds: .*list \(found 'a'\)"),
        ({"adapter": {"r": 0}}, r"adapter.r: .*greater than 0 \(found 0\)"),
        ({"milestones": [0.5, 1]}, r"milestones: must rise from 0 to 1 \(found \[0.5, 1"),
        ({"milestones": [0, 0.33333333, 0.33333334, 1]}, "milestones: two are both written 0.333333.*leave one out"),
        ({"in_domain": "q"}, "dataset 'q' is not under datasets"),
        ({"datasets": {"p": {"reader": "harmeme"}}}, "datasets.p: root is missing"),
        ({"base_model": {"source": "org/model"}}, "base_model.revision is missing"),
        ({"datasets": {"p": {"reader": "huggingface", "hub_id": "a/b"}}}, "hub_id needs a pinned revision"),
        ({"datasets": TWO, "out_of_domain": ["q", "q"]}, "out_of_domain: 'q' is listed more than once; name each"),
        (drawn(p={"train": 9, "test": 9}), r"datasets.p.splits: has train, test alone; in_domain needs val, so add"),
        (drawn(p={"test": 9}), "datasets.p.splits: has test alone; in_domain needs train, val"),
        (drawn(q={"train": 9}), "datasets.q.splits: has train alone; out_of_domain needs test, so add it"),
        ({"rewards": {}}, "rewards: no reward is named; give at least one"),
        ({"rewards": {"accuracy": float("nan")}}, r"rewards.accuracy: .*finite number \(found nan\)"),
        ({"rewards": {"accuracy": float("-inf")}}, r"rewards.accuracy: .*finite number \(found -inf\)"),
        ({"rewards": {"acuracy": 1}}, "rewards: no reward 'acuracy'; did you mean 'accuracy'.*module.function"),
        ({"rewards": {"mine.": 1}}, "rewards: no reward 'mine.'; did you mean"),
        ({"seeds": [1, -2]}, r"seeds.1: .*greater than or equal to 0 \(found -2\)"),
        ({"launch": {"processes": 3, "nodes": 2}}, "launch: nodes: 3 processes cannot be spread evenly over 2"),
        ({"launch": {"processes": 3}}, r"launch.processes: 3 cannot share a step of 8 × 1 rows evenly"),
        ({"seeds": [1, 1]}, r"seeds: must be one or more different integers \(found \[1, 1\]\)"),
        ({"methods": {}}, "methods: no method is named; give at least one"),
        ({"probes": {"val": 0}}, r"probes.val: .*greater than 0 \(found 0\)"),
        ({"probes": {"train": -5}}, r"probes.train: .*greater than 0 \(found -5\)"),
        ({"sampling": {"temperature": float("inf")}}, r"sampling.temperature: .*finite number \(found inf\)"),
        ({"sampling": {"temperature": float("nan")}}, r"sampling.temperature: .*\(found nan\)"),
        ({"own_samples": {"num_samples": 2}}, "own_samples.num_samples: unknown key"),
        (
            {"methods": {"sft": {"kind": "sft", "train_prompts": "all"}}},
            r"methods.sft.train_prompts: is for methods without pairs alone .*, sft trains on pairs; remove it",
        ),
    ],
)
def test_bad_keys_are_named(change, words):
    with pytest.raises(InputError, match=words):
        load_study(STUDY | change)


SFT = {"s": {"kind": "sft"}}
LLAMAFACTORY = {"kind": "sft", "backend": "llamafactory"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"adapter": {"options": {"init_lora_weights": "pissa"}}}, "methods.x: .*'pissa': changes the base weights"),
        ({"adapter": {"kind": "full"}}, "methods.x: backend llamafactory: trains lora, rslora, dora, not full"),
        ({"adapter": {"layers": "atention"}}, "methods.x: adapter.layers: no preset 'atention'; .* is attention"),
        ({"methods": {"x": {**LLAMAFACTORY, "launch": {}}}}, "methods.x: launch: LLaMA-Factory trains in one process"),
        ({"training": {"packing": True}}, "methods.x: trainer argument packing: TRL cannot for vision data"),
        ({"training": {"hub_token": "hf_x"}}, "methods.x: trainer argument hub_token: what a study file says"),
        ({"training": {"lora_rank": 8}}, r"methods.x: trainer argument lora_rank: .*\(use adapter.r\)"),
        (
            {"methods": {"x": {"kind": "dpo", "backend": "llamafactory", "from": "s", "reference": "parent"}, **SFT}},
            "methods.x: reference parent: LLaMA-Factory adds the parent's adapter to weights in bfloat16",
        ),
    ],
)
def test_what_llamafactory_cannot_train_is_refused_when_the_file_is_read(change, words):
    with pytest.raises(InputError, match=f"study file: {words}"):
        load_study(STUDY | {"methods": {"x": LLAMAFACTORY}} | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"adapter": {"kind": "dora"}, "reward_model": {}}, "adapter.kind: dora: .* lora or rslora; set reward_model."),
        ({"reward_model": {"adapter": {"kind": "full"}}}, "adapter.kind: full: a reward model takes lora or rslora"),
        ({"reward_model": {"adapter": {"options": {"init_lora_weights": "pissa"}}}}, ".*'pissa': changes the base"),
        (
            {"reward_model": {}, "adapter": {"options": {"use_dora": True}}},
            "adapter.options.use_dora: .* plain factors",
        ),
        ({"reward_model": {"args": {"optim": "galore_adamw"}}}, "trainer argument optim: galore_adamw projects"),
    ],
)
def test_a_reward_model_is_checked_when_the_file_is_read(change, words):
    with pytest.raises(InputError, match=f"study file: reward_model: {words}"):
        load_study(STUDY | change)


def test_a_reward_model_changes_only_the_keys_of_the_adapter_that_it_sets():
    """As a method does: a study-wide DoRA of rank 8 on attention, with plain LoRA for what grades."""
    shared = {"kind": "dora", "r": 8, "layers": "attention"}
    found = load_study(STUDY | {"adapter": shared, "reward_model": {"adapter": {"kind": "lora"}}})
    assert found.reward_model.adapter == Adapter(kind="lora", r=8, layers="attention")


def test_the_study_file_is_read_without_torch():
    code = "import sys, memedynamics.study; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert not subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(HERE / "workflow")}).returncode


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
    long = load_study(STUDY | {"trial": True, "reward_model": {"args": {"max_steps": 99, "learning_rate": 1e-4}}})
    assert long.reward_model.args == {"learning_rate": 1e-4}


def test_unmatched_methods_are_named_with_both_keys():
    other = {"sft": {"kind": "sft", "adapter": {"r": 64}}, "grpo": {"kind": "grpo", "train_prompts": "all"}}
    assert warned(methods=other) == [
        "methods are not matched: methods.sft.adapter.r = 64 but adapter.r = 16",
        "methods are not matched: methods.grpo.train_prompts = 'all' but train_prompts = 'paired'",
    ]
    assert warned() == []


def test_a_method_changes_only_the_keys_of_the_adapter_that_it_sets():
    shared = {"r": 8, "dropout": 0.1, "layers": "attention", "options": {"use_rslora": True}}
    method = {"kind": "sft", "adapter": {"r": 32, "options": {"use_dora": True}}}
    study = load_study(STUDY | {"adapter": shared, "methods": {"sft": method, "dpo": {"kind": "dpo"}}})
    merged = {"r": 32, "dropout": 0.1, "layers": "attention", "options": {"use_rslora": True, "use_dora": True}}
    assert study.methods["sft"].adapter == Adapter(**merged) and study.methods["dpo"].adapter is None
    again = Study.model_validate(plain(study))
    assert again.methods["sft"].adapter == adapter_of(again.adapter, again.methods["sft"]) == Adapter(**merged)
    assert [line.split()[4] for line in warnings_of(study)] == ["methods.sft.adapter.r", "methods.sft.adapter.options"]


@pytest.mark.parametrize(
    ("own", "options"),
    [
        ({"r": 32}, {"init_lora_weights": "gaussian", "use_dora": True}),
        ({"options": {"use_dora": None}}, {"init_lora_weights": "gaussian"}),
        ({"kind": "lora", "options": {"use_dora": False}}, {"init_lora_weights": "gaussian", "use_dora": False}),
        ({"kind": "dora"}, {}),
        ({"kind": "full"}, {}),
        ({"kind": "ia3"}, {}),
        ({"kind": "prompt", "options": {"prompt_tuning_init": "RANDOM"}}, {"prompt_tuning_init": "RANDOM"}),
    ],
)
def test_options_are_those_of_their_kind_and_can_be_taken_back(own, options):
    """A study's options of LoRA's class reach its LoRA methods, whatever else those change, and no other kind."""
    shared = {"options": {"init_lora_weights": "gaussian", "use_dora": True}}
    study = load_study(STUDY | {"adapter": shared, "methods": {"sft": {"kind": "sft", "adapter": own}}})
    assert study.methods["sft"].adapter.options == options
    warned_of = any("methods.sft.adapter.options" in line for line in warnings_of(study))
    assert warned_of == (options != shared["options"])


def test_a_reward_model_of_another_kind_has_options_of_its_own():
    shared = {"kind": "ia3", "options": {"fan_in_fan_out": False}}
    changed = {"adapter": shared, "reward_model": {"adapter": {"kind": "lora", "r": 8}}}
    assert load_study(STUDY | changed).reward_model.adapter == Adapter(kind="lora", r=8)


@pytest.mark.parametrize(
    ("shared", "own", "alpha", "warns"),
    [
        ({"r": 8}, {"r": 32}, None, False),
        ({"r": 8, "alpha": 24}, {"r": 32}, 24, False),
        ({"r": 8}, {"alpha": 24}, 24, True),
        ({"r": 8}, {"alpha": 16}, 16, False),
        ({"r": 8, "alpha": 24}, {"alpha": None}, None, True),
    ],
)
def test_alpha_is_2r_of_the_merged_rank_only_where_neither_sets_it(shared, own, alpha, warns):
    method = TrainedMethod(kind="sft", adapter=own)
    assert adapter_of(Adapter(**shared), method).alpha == alpha
    lines = warned(adapter=shared, methods={"sft": {"kind": "sft", "adapter": own}})
    assert any("adapter.alpha" in line for line in lines) == warns


def test_overrides_of_shared_arguments_are_named_and_a_methods_own_are_not():
    own = {"learning_rate": 1e-5, "num_train_epochs": 3, "warmup_steps": "0.1", "lr_scheduler_type": "linear"}
    methods = {"sft": {"kind": "sft", "args": own}, "dpo": {"kind": "dpo", "args": {"beta": 0.1, "max_steps": 5}}}
    (line,) = warned(methods=methods, training={"warmup_steps": 0.1, "lr_scheduler_type": "cosine"})
    assert line.endswith("methods.sft.args.lr_scheduler_type = 'linear' but training.lr_scheduler_type = 'cosine'")


def test_another_precision_is_named_once():
    methods = {"sft": {"kind": "sft"}, "dpo": {"kind": "dpo", "args": {"bf16": False}}}
    (line,) = warned(methods=methods)
    assert line.endswith("methods.dpo.args.bf16 = False but methods.sft.args.bf16 = True")
    (line,) = warned(methods=methods, training={"bf16": True})
    assert line.endswith("methods.dpo.args.bf16 = False but training.bf16 = True")
    assert warned(methods=methods, base_model={"source": "demo", "dtype": "float32"}) == []


def test_temperatures_are_named():
    methods = {"grpo": {"kind": "grpo", "args": {"temperature": 0.7}}}
    (line,) = warned(methods=methods)
    assert line.endswith("methods.grpo.args.temperature = 0.7 but sampling.temperature = 1.0")
    (line,) = warned(methods={"grpo": {"kind": "grpo"}}, training={"temperature": 0.7})
    assert line.endswith("training.temperature = 0.7 but sampling.temperature = 1.0")
    (line,) = warned(methods=methods, sampling={"temperature": 0.7})
    assert line.startswith("sampling.temperature = 0.7, not 1: responses are not drawn from")


def test_all_prompts_reach_grpo_only():
    grpo = {"kind": "grpo"}
    (line,) = warned(train_prompts="all", methods={"sft": {"kind": "sft"}, "grpo": grpo})
    assert line.endswith("train_prompts = 'all' reaches methods.grpo; on pairs only: sft")
    assert warned(train_prompts="all", methods={"grpo": grpo}) == []
    paired = {"sft": {"kind": "sft"}, "grpo": grpo | {"train_prompts": "paired"}}
    assert warned(train_prompts="all", methods=paired) == []


def test_a_question_the_prompt_does_not_ask():
    prompt = load_prompt(HERE / "config/prompts/think_answer.yaml")
    datasets = {"p": {"reader": "pictograms"}, "q": {"reader": "pictograms", "question": "funny"}}
    check_questions(load_study(STUDY | {"datasets": datasets}), prompt)  # q is not used
    with pytest.raises(
        InputError, match="datasets.q.question: prompt think_answer has no question 'funny'; use one of"
    ):
        check_questions(load_study(STUDY | {"datasets": datasets, "out_of_domain": ["q"]}), prompt)


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


@pytest.mark.parametrize("file", ["README.md", "docs/curriculum.md", "docs/merging.md", "docs/methods.md"])
def test_documented_recipes_are_valid_studies(file):
    """Every YAML block that names methods, as a reader would paste it into a study that has what it refers to."""
    text = (HERE / file).read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    recipes = [block for block in blocks if isinstance(block, dict) and "methods" in block]
    assert recipes
    for block in recipes:
        known = {name: {"kind": name} for name in ("sft", "dpo", "grpo")}
        load_study(STUDY | {"judge": {}, "reward_model": {}} | block | {"methods": known | block["methods"]})


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({"engine": "vlm"}, r"sampling.engine: no 'vlm'; did you mean 'vllm'\? There are transformers, vllm, openai"),
        ({"engine": "openai"}, "sampling.server is missing: engine openai needs its base_url"),
        ({"server": {"base_url": "127.0.0.1:8000"}}, "sampling.server.base_url: "),
        ({"server": {"base_url": "http://me:sk-1@host/v1"}}, "base_url: has a user .* in key_variable$"),
        ({"server": {"base_url": "http://host/v1?api_key=sk-1"}}, "base_url: has a user .* in key_variable$"),
        ({"server": {"base_url": "host/v1?api_key=sk-1"}}, "sampling.server.base_url: String should match"),
        ({"server": {"base_url": "http://host/v1", "key_variable": "sk-1"}}, "sampling.server.key_variable: "),
        ({"server": {"base_url": "http://host/v1", "api_key": "sk-1"}}, "sampling.server.api_key: unknown key"),
    ],
)
def test_engines(sampling, said):
    with pytest.raises(InputError, match=said) as refused:
        load_study(STUDY | {"sampling": sampling})
    assert "sk-1" not in str(refused.value)


def test_a_server_may_be_named_while_another_engine_draws():
    assert (
        load_study(STUDY | {"sampling": {"server": {"base_url": "http://host/v1"}}}).sampling.engine == "transformers"
    )
