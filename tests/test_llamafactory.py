"""LLaMA-Factory as a backend: its arguments, its environment, its process, and real runs beside TRL's.

Real runs need its environment: MEMEDYNAMICS_LLAMAFACTORY names an interpreter, or `snakemake llamafactory_env` made
one in .environments. Without it they are skipped, but never in CI, where they fail.
"""

import ast
import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import TrainerControl, TrainerState, TrainingArguments

import tiny_models
from memedynamics import exports, failures, llamafactory, llamafactory_data, llamafactory_process, resuming, tables
from memedynamics.adapters import activate, load_adapters
from memedynamics.config import Adapter, BaseModelConfig
from memedynamics.errors import InputError
from memedynamics.examples import training_rows
from memedynamics.images import open_image
from memedynamics.llamafactory_entry import Study, check_batch
from memedynamics.llamafactory_run import adopt, begin, facts, first_loss
from memedynamics.methods import TrainedMethod
from memedynamics.training import trainer_config
from memedynamics.vlm import encode, load_model, load_processor, render
from tiny_study import OWN, PROMPT, ROOT, inputs, outputs, script, settings, train, write_study

GIVEN = "MEMEDYNAMICS_LLAMAFACTORY"
MADE = ROOT / ".environments/llamafactory.json"
KINDS = ("sft", "dpo")
DORA = Adapter(kind="dora", r=4)
ARGS = {"num_train_epochs": 4, "save_steps": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that names LLaMA-Factory's interpreter."""
    if GIVEN in os.environ:
        file = tmp_path_factory.mktemp("environment") / "llamafactory.json"
        file.write_text(json.dumps({"python": os.environ[GIVEN]}))
        return file
    if not MADE.exists():
        missing = "LLaMA-Factory's environment is missing: make it with `snakemake llamafactory_env --cores 1`"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return MADE


def given(study: Path, run: Path, environment: Path) -> dict[str, object]:
    (run / "work").mkdir(parents=True, exist_ok=True)
    return {**inputs(study), **outputs(run), "work": run / "work", "threads": 1, "environment": environment}


def recipe(kind: str, **args: object) -> dict[str, object]:
    method = TrainedMethod(kind=kind, backend="llamafactory", args={**OWN[kind], **args})
    return {**settings(kind), "method": method}


@pytest.fixture(scope="module")
def runs(study: Path, environment: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """The same SFT and DPO by both backends: 18 pairs, 12 steps."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for kind in KINDS:
        found[kind] = train(kind, study, folder / kind, **ARGS)
        script("train_llamafactory")(**given(study, folder / f"lf_{kind}", environment), **recipe(kind, **ARGS))
        found[f"lf_{kind}"] = outputs(folder / f"lf_{kind}")
    return found


def logged(run: dict[str, Path], metric: str) -> list[float]:
    return tables.read(run["history"], "history").filter(pl.col("metric") == metric).sort("step")["value"].to_list()


# Arguments.


def config(kind: str, tmp_path: Path, **args: object):
    return trainer_config(kind, args, tmp_path, seed=3)


def test_arguments_have_trls_values_under_their_names(tmp_path: Path) -> None:
    """What the study sets, and TRL's own defaults: DPO's learning rate is 1e-6 there and 5e-5 in LLaMA-Factory."""
    args = {"beta": 0.3, "max_steps": 7, "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "weight_decay": 0.01}
    args |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "gradient_checkpointing": False}
    found = llamafactory.arguments(config("dpo", tmp_path, **args), args)
    expected = {name: value for name, value in args.items() if name not in ("beta", "gradient_checkpointing")}
    expected |= {"pref_beta": 0.3, "pref_loss": "sigmoid", "disable_gradient_checkpointing": True, "seed": 3}
    assert {name: found[name] for name in expected} == expected
    assert found["learning_rate"] == 1e-6 and found["logging_steps"] == 1 and found["report_to"] == "none"
    assert "output_dir" not in found and "beta" not in found and "max_length" not in found


def test_sft_has_no_preference_loss(tmp_path: Path) -> None:
    found = llamafactory.arguments(config("sft", tmp_path), [])
    assert found["learning_rate"] == 2e-5 and found["disable_gradient_checkpointing"] is False
    assert not any(name.startswith("pref_") for name in found)


def test_own_names_pass_and_reserved_ones_do_not() -> None:
    trl, own = llamafactory.split("dpo", {"beta": 0.1, "pref_ftx": 0.5, "learning_rate": 1e-4})
    assert trl == {"beta": 0.1, "learning_rate": 1e-4} and own == {"pref_ftx": 0.5}
    with pytest.raises(InputError, match=r"trainer argument lora_rank: is set by the study itself \(use adapter.r\)"):
        llamafactory.split("sft", {"lora_rank": 8})


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        ("dpo", {"loss_type": ["ipo"]}, "loss_type: ipo: LLaMA-Factory has sigmoid, hinge"),
        ("dpo", {"disable_dropout": False}, "disable_dropout: LLaMA-Factory's DPO always disables dropout"),
        ("dpo", {"use_weighting": True}, "use_weighting: LLaMA-Factory has no counterpart"),
        ("sft", {"loss_type": "dft"}, "loss_type: dft: LLaMA-Factory has nll"),
        ("sft", {"max_length": 64}, "max_length: nothing is cut"),
        ("sft", {"assistant_only_loss": True}, "assistant_only_loss: LLaMA-Factory has no counterpart"),
    ],
)
def test_arguments_without_counterpart_are_refused(
    kind: str, args: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        llamafactory.arguments(config(kind, tmp_path, **args), args)


@pytest.mark.parametrize(
    ("kind", "adapter", "stored", "message"),
    [
        ("sft", "ia3", "float32", "trains lora, rslora, dora, not ia3"),
        ("sft", "lora", "bfloat16", "base_model.dtype: float32, but the model's files are in bfloat16"),
    ],
)
def test_what_it_cannot_train_is_refused(kind: str, adapter: str, stored: str, message: str) -> None:
    method = TrainedMethod(kind=kind, backend="llamafactory")
    with pytest.raises(InputError, match=message):
        llamafactory.check(method, adapter, BaseModelConfig(source="tiny", dtype="float32"), stored)


def test_a_parent_that_would_be_rounded_is_no_reference() -> None:
    method = TrainedMethod(kind="dpo", backend="llamafactory", reference="parent", **{"from": "sft"})
    llamafactory.check(method, "lora", BaseModelConfig(source="tiny", dtype="float32"), "float32")
    with pytest.raises(InputError, match="reference parent: LLaMA-Factory adds the parent's adapter to weights in bfl"):
        llamafactory.check(method, "lora", BaseModelConfig(source="tiny", dtype="bfloat16"), "bfloat16")


def test_reference_is_the_parent_only_where_it_is_named(tmp_path: Path) -> None:
    base = BaseModelConfig(source="tiny", dtype="float32")
    plain = llamafactory.fixed("dpo", tmp_path / "model", tmp_path / "adapter", base, tmp_path, tmp_path)
    named = llamafactory.fixed("dpo", tmp_path / "model", tmp_path / "adapter", base, tmp_path, tmp_path, tmp_path)
    assert "ref_model" not in plain and plain["flash_attn"] == "sdpa" and plain["dataset"] == "preferences"
    assert named["ref_model"] == str(tmp_path / "model") and named["ref_model_adapters"] == str(tmp_path)


# Data and prompt.


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava", "gemma3"])
def test_template_parts_are_the_rendered_prompt(family: str) -> None:
    model, processor = load_model(tiny_models.folder(family)), load_processor(tiny_models.folder(family))
    shape = llamafactory_data.template(model, processor)
    picture = llamafactory_data.PLUGINS[model.config.model_type][1]
    names = {"image_token": processor.image_token, "boi_token": getattr(processor, "boi_token", None)}
    whole = shape["head"] + picture.format(**names) + shape["between"] + "Hi {{content}}" + shape["tail"]
    assert whole == render(processor, "Hi {{content}}")


def test_a_family_that_it_places_pictures_otherwise_for_is_refused() -> None:
    folder = tiny_models.folder("smolvlm")
    with pytest.raises(InputError, match="backend llamafactory: takes qwen2_vl, .* here, not smolvlm; use backend trl"):
        llamafactory_data.template(load_model(folder), load_processor(folder))


def test_a_response_may_speak_of_images(study: Path, tmp_path: Path) -> None:
    """What holds the picture's place is no word: LLaMA-Factory counts these against the pictures."""
    rows = rows_of(study).with_columns(chosen=pl.lit("an <image> in words"))
    llamafactory_data.write_dataset(rows, "\n", tmp_path)
    first = json.loads((tmp_path / "sft.json").read_text())[0]
    said = [turn["value"] for turn in first["conversations"]]
    assert said == [f"{llamafactory_data.PICTURE}\n{rows['content'][0]}", "an <image> in words"]
    assert (tmp_path / first["images"][0]).samefile(rows["image"][0])
    exports.write_llamafactory(rows.with_columns(prompt="content"), tmp_path)
    assert json.loads((tmp_path / "sft.json").read_text())[0]["conversations"][0]["value"].startswith("<image>")


def rows_of(study: Path) -> pl.DataFrame:
    pairs, memes = (
        tables.read(study / "preferences.parquet", "preferences"),
        tables.read(study / "data.parquet", "data"),
    )
    return training_rows(pairs, memes, PROMPT, "hateful", "paired")


def collate(examples: list[dict]) -> dict[str, torch.Tensor]:
    """A collator as LLaMA-Factory's: padded on the right."""
    width = max(len(example["input_ids"]) for example in examples)
    padded = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    batch = {
        name: torch.tensor([example[name] + [fill] * (width - len(example[name])) for example in examples])
        for name, fill in padded.items()
    }
    return batch | {"pixel_values": torch.cat([example["pixel_values"] for example in examples])}


def test_the_first_batch_must_be_the_studys(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_file({"pixel_values": torch.ones(2, 3)}, tmp_path / "pixels.safetensors")
    told = {"examples": 2, "sequences": [[5, 6, 7], [5, 8, 9, 7]], "prompts": [1, 2], "tolerance": 0.05}
    told["pixels"] = str(tmp_path / "pixels.safetensors")

    def data() -> list[dict]:
        rows = [([5, 6, 7], [-100, 6, 7]), ([5, 8, 9, 7], [-100, -100, 9, 7])]
        ones = torch.ones(1, 3)
        return [dict(input_ids=i, labels=y, attention_mask=[1] * len(i), pixel_values=ones.clone()) for i, y in rows]

    check_batch(told, data(), collate)
    for name, place, message in (
        ("input_ids", 1, "tokens or labels of training example 1"),
        ("labels", 0, "example 0"),
    ):
        wrong = data()
        wrong[place][name][-1] += 1
        with pytest.raises(SystemExit, match=message):
            check_batch(told, wrong, collate)
    wrong = data()
    wrong[1]["pixel_values"] += 0.1
    with pytest.raises(SystemExit, match="pixel values of the first training pictures are not the study's"):
        check_batch(told, wrong, collate)


@pytest.mark.parametrize(
    ("kind", "args", "own", "reference", "expected"),
    [
        ("dpo", {}, {}, None, math.log(2)),
        ("dpo", {"label_smoothing": 0.1}, {"loraplus_lr_ratio": 4}, None, math.log(2)),
        ("dpo", {}, {}, "parent", math.log(2)),
        ("dpo", {}, {}, "base", None),
        ("dpo", {}, {"pref_ftx": 0.5}, None, None),
        ("dpo", {"loss_type": ["hinge"]}, {}, None, None),
        ("sft", {}, {}, None, None),
    ],
)
def test_what_is_known_of_the_first_loss(
    kind: str, args: dict, own: dict, reference: str | None, expected: float | None, tmp_path: Path
) -> None:
    """ln 2 where DPO compares with the run's own start; other terms of the loss, or another reference, say nothing."""
    policy = begin(load_model(tiny_models.folder("qwen2_5_vl")), Adapter(r=2), 1, tmp_path / "start")
    policy.starts_at = "sft" if reference else "base"
    (tmp_path / "llamafactory.json").write_text(json.dumps({"python": "x", "packages": {"llamafactory": "0.9.5"}}))
    made = config(kind, tmp_path, **args)
    known = facts(policy, made, reference, tmp_path / "llamafactory.json")
    assert known["packages"] == {"llamafactory": "0.9.5"}
    assert known["loss_reference"] == (None if kind == "sft" else "sft" if reference == "parent" else "base")
    assert first_loss(made, own, known) == expected


def test_another_first_loss_ends_the_run(tmp_path: Path) -> None:
    """PiSSA's 0.6955 at step 1; later, or without an expectation, a loss may be anything finite. All of it is noted."""
    args, control = TrainingArguments(output_dir="x", report_to="none"), TrainerControl()
    milestones = str(tmp_path / "milestones")
    study = Study({"milestones": milestones, "first_loss": math.log(2)})
    study.on_log(args, TrainerState(global_step=1), control, {"loss": 0.6931})
    study.on_log(args, TrainerState(global_step=2), control, {"loss": 0.6})
    study.on_log(args, TrainerState(global_step=1), control, {"train_runtime": 3.0})
    with pytest.raises(SystemExit, match="first loss is 0.695500, not 0.693147: the policy does not start at its ref"):
        study.on_log(args, TrainerState(global_step=1), control, {"loss": 0.6955})
    study = Study({"milestones": milestones, "first_loss": None})
    study.on_log(args, TrainerState(global_step=1), control, {"loss": 3.0})
    assert [json.loads(line).get("loss") for line in (tmp_path / "live.jsonl").open()] == [0.6931, 0.6, None, 0.6955, 3]


# Its environment and process.


def test_pins_are_exact_and_the_conda_twin_has_them() -> None:
    """As those of the main environment; and direct dependencies are among them as they are asked for."""
    envs = ROOT / "envs"
    pins = (envs / "llamafactory.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+(==|===)[\w.+]+( ; sys_platform == \"linux\")?", line) for line in pins)
    asked = [line for line in (envs / "llamafactory.in").read_text().splitlines() if not line.startswith("#")]
    assert set(asked) <= set(pins) and "torch===2.8.0" in asked
    twin = yaml.safe_load((envs / "llamafactory.yaml").read_text())
    assert twin["dependencies"][-1]["pip"] == pins


def make_environment(folder: Path, pins: str, **variables: str) -> subprocess.CompletedProcess:
    (folder / "pins.txt").write_text(pins)
    program = ROOT / "workflow/scripts/llamafactory_env.py"
    command = [sys.executable, str(program), "pins.txt", "made/llamafactory.json", "logs/llamafactory_env.log"]
    return subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)


def test_a_failed_build_names_its_log_and_is_taken_up_again(tmp_path: Path) -> None:
    """A pin that no index has: pip's own message stands in the log and in ours, the last; nothing counts as made."""
    done = make_environment(tmp_path, "no-such-package==1\n", PIP_NO_INDEX="1", **{GIVEN: ""})
    assert done.returncode and "No matching distribution found for no-such-package==1" in done.stderr
    words = done.stderr.rstrip().splitlines()[-1]
    assert words.startswith(
        "error: LLaMA-Factory's environment could not be made: pip: ERROR: Could not find a version"
    )
    assert "ERROR: No matching distribution found for no-such-package==1; what failed" in words
    assert words.endswith("what failed stands in logs/llamafactory_env.log")
    # What the terminal shows of the job, whose log holds all it said.
    (tmp_path / "job.log").write_text(done.stdout + done.stderr)
    assert failures.last_words(tmp_path / "job.log") == words
    assert not (tmp_path / "made/llamafactory.json").exists() and not list(tmp_path.rglob("complete"))


def test_an_environment_that_is_there_is_used(tmp_path: Path) -> None:
    """An interpreter without LLaMA-Factory is refused in the same words; one that has it is written down."""
    done = make_environment(tmp_path, "", **{GIVEN: sys.executable})
    assert done.returncode and "PackageNotFoundError" in done.stderr
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho \'{"llamafactory": "0.9.5"}\'\n')
    program.chmod(0o755)
    assert not make_environment(tmp_path, "", **{GIVEN: str(program)}).returncode
    assert llamafactory_process.interpreter(tmp_path / "made/llamafactory.json") == str(program)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "LLaMA-Factory's environment is missing; make it with `snakemake llamafactory_env --cores 1`"),
        ("{", "does not name an interpreter; delete it"),
        ('{"python": "/nowhere/python"}', "/nowhere/python is no longer there; delete the file"),
    ],
)
def test_a_missing_environment_says_how_to_make_it(content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "llamafactory.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=message):
        llamafactory_process.interpreter(file)


def fake(folder: Path, body: str) -> str:
    """An interpreter that runs `body` instead of LLaMA-Factory."""
    program = folder / "python"
    program.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{textwrap.dedent(body)}")
    program.chmod(0o755)
    return str(program)


def test_a_failing_training_shows_its_words_and_its_log(tmp_path: Path) -> None:
    body = """
        print("memedynamics step 1 of 3", flush=True)
        print("loading", flush=True)
        raise ValueError("Some keys are not used by the HfArgumentParser: ['learning_rat']")
    """
    log = tmp_path / "llamafactory.log"
    with pytest.raises(InputError) as caught:
        llamafactory_process.train(fake(tmp_path, body), tmp_path, tmp_path, log, {}, "SFT")
    words = "ValueError: Some keys are not used by the HfArgumentParser: ['learning_rat']"
    assert str(caught.value) == f"LLaMA-Factory failed: {words}; its log is {log}"
    assert "loading\n" in log.read_text() and "memedynamics step" not in log.read_text()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (["error: training diverged: loss is nan", "Traceback"], "training diverged: loss is nan"),
        (["torch.OutOfMemoryError: CUDA out of memory", "  at line 3"], "torch.OutOfMemoryError: CUDA out of memory"),
        (["Killed"], "Killed"),
        ([], "it said nothing and ended with status -9"),
    ],
)
def test_last_words(said: list[str], words: str) -> None:
    assert llamafactory_process.last_words(said, -9) == words


def test_every_training_hears_signals() -> None:
    """A shell that waits for the training would end at SIGTERM, and the job with it, before anything is saved."""
    rules = (ROOT / "rules/training.smk").read_text().split("\n\n\n")
    own = [rule for rule in rules if re.match(r"rule train_\w+:", rule)]
    assert len(own) == 3 and all('f"{LAUNCH} ' in rule for rule in own)


def test_the_collector_runs_while_it_trains(tmp_path: Path) -> None:
    """Jobs import without it (module memedynamics); the entry turns it on before anything is trained."""
    (tmp_path / "llamafactory/train").mkdir(parents=True)
    for name in ("llamafactory", "llamafactory/train"):
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "llamafactory/train/tuner.py").write_text("def run_exp(*_): import gc; print('on', gc.isenabled())\n")
    for name, text in (("a.yaml", "{}"), ("s.json", '{"template": {}}')):
        (tmp_path / name).write_text(text)
    code = "import pathlib, memedynamics.llamafactory_entry as e; e.register = e.Study = lambda told: None; "
    code += "e.main(pathlib.Path('a.yaml'), pathlib.Path('s.json'))"
    surroundings = {**os.environ, "MEMEDYNAMICS_BITSANDBYTES": "no", "PYTHONPATH": f"{ROOT / 'workflow'}:{tmp_path}"}
    run = [sys.executable, "-c", code]
    assert "on True" in subprocess.run(run, cwd=tmp_path, env=surroundings, capture_output=True, text=True).stdout


def test_sigterm_is_passed_on(tmp_path: Path) -> None:
    """The process under it saves and stops in its own time, and the job ends with what it said."""
    body = """
        def stop(*_):
            sys.exit("error: training was stopped at step 1 of 3; run it again")
        signal.signal(signal.SIGTERM, stop)
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(30)
    """
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InputError, match="training was stopped at step 1 of 3; run it again; its log is"):
        llamafactory_process.train(fake(tmp_path, body), tmp_path, tmp_path, tmp_path / "log", {}, "SFT")
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_adapter_than_the_one_handed_over_is_refused(tmp_path: Path) -> None:
    model = load_model(tiny_models.folder("qwen2_5_vl"))
    begin(model, Adapter(r=2), 1, tmp_path / "start")
    weights = load_file(tmp_path / "start/adapter_model.safetensors")
    saved = tmp_path / "saved"
    saved.mkdir()
    save_file({name: tensor + 1 for name, tensor in weights.items()}, saved / "adapter_model.safetensors")
    (saved / "README.md").touch()
    adopt(saved, tmp_path / "start", fresh=False)
    files = ["adapter_config.json", "adapter_model.safetensors", "checksums.json"]
    assert sorted(path.name for path in saved.iterdir()) == files
    with pytest.raises(InputError, match="is not the adapter that LLaMA-Factory was given to train"):
        adopt(saved, tmp_path / "start", fresh=True)
    save_file({f"{name}.other": tensor for name, tensor in weights.items()}, saved / "adapter_model.safetensors")
    with pytest.raises(InputError, match="is not the adapter"):
        adopt(saved, tmp_path / "start", fresh=False)


# Real runs.


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_trl(kind: str, runs: dict[str, dict[str, Path]]) -> None:
    """Same data, order, seed, start and arguments: losses agree along training, to float32's rounding."""
    ours, theirs = logged(runs[kind], "loss"), logged(runs[f"lf_{kind}"], "loss")
    assert len(ours) == 12 and ours[-1] < ours[0] - 0.01
    assert theirs == pytest.approx(ours, abs=1e-5)
    assert logged(runs[f"lf_{kind}"], "grad_norm") == pytest.approx(logged(runs[kind], "grad_norm"), rel=1e-3)
    assert logged(runs[f"lf_{kind}"], "learning_rate") == pytest.approx(logged(runs[kind], "learning_rate"))


def test_dpo_starts_at_ln_2_on_both(runs: dict[str, dict[str, Path]]) -> None:
    for name in ("dpo", "lf_dpo"):
        assert logged(runs[name], "loss")[0] == pytest.approx(math.log(2), abs=1e-6)
    for metric in ("rewards/chosen", "rewards/margins", "logps/chosen", "logps/rejected"):
        assert logged(runs["lf_dpo"], metric) == pytest.approx(logged(runs["dpo"], metric), abs=1e-3)


@pytest.fixture(scope="module")
def parent(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Milestones of an SFT with DoRA, far enough from the base to be told from it."""
    folder = tmp_path_factory.mktemp("parent") / "first"
    folder.mkdir()
    given = settings("sft", max_steps=4)
    method = given["method"].model_copy(update={"adapter": DORA})
    where = {**inputs(study), **outputs(folder), "work": folder / "work", "threads": 1}
    script("train_sft")(**where, **{**given, "method": method})
    return folder / "milestones"


@pytest.mark.long
@pytest.mark.parametrize("reference", ["base", "parent"])
def test_a_chain_with_dora_is_trls(
    reference: str, parent: Path, study: Path, environment: Path, tmp_path: Path
) -> None:
    """DPO from where another run ended: ln 2 against the parent, something else against the base; on both backends."""
    losses = []
    for backend, name in (("trl", "train_dpo"), ("llamafactory", "train_llamafactory")):
        given = settings("dpo", max_steps=2)
        args = {"kind": "dpo", "backend": backend, "args": given["method"].args, "adapter": DORA, "from": "first"}
        method = TrainedMethod(**args, reference=reference)
        run = tmp_path / backend
        (run / "work").mkdir(parents=True)
        where = {**inputs(study), **outputs(run), "work": run / "work", "threads": 1, "start": parent}
        where |= {"environment": environment} if backend == "llamafactory" else {}
        script(name)(**where, **{**given, "method": method})
        losses.append(logged(outputs(run), "loss"))
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert (abs(losses[0][0] - math.log(2)) < 1e-6) == (reference == "parent")
    assert reference == "parent" or abs(losses[0][0] - math.log(2)) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_start_is_trls_to_the_last_bit_and_the_end_is_near(kind: str, runs: dict[str, dict[str, Path]]) -> None:
    for label in ("0", "0.0625", "0.125", "0.5", "1"):
        files = [runs[name]["milestones"] / label / "adapter_model.safetensors" for name in (kind, f"lf_{kind}")]
        ours, theirs = (load_file(file) for file in files)
        assert ours.keys() == theirs.keys()
        # Adam divides by the gradient's size: where that is near 0, rounding moves a weight by up to a step (1e-2).
        apart = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in ours])
        assert apart.max() == 0 if label == "0" else apart.mean() < 1e-4
    config = [(runs[name]["milestones"] / "1/adapter_config.json").read_bytes() for name in (kind, f"lf_{kind}")]
    assert config[0] == config[1]


@pytest.mark.parametrize("kind", KINDS)
def test_artefacts_are_those_of_any_run(kind: str, runs: dict[str, dict[str, Path]]) -> None:
    """Steps, tokens, operations, parameters and label balance equal TRL's; the policy loads and differs."""
    ours, theirs = (json.loads(runs[name]["run"].read_text()) for name in (kind, f"lf_{kind}"))
    assert theirs.pop("backend") == "llamafactory" and "packages" in theirs
    theirs.pop("packages")
    assert theirs.pop("crc32") != ours.pop("crc32")  # of two files
    assert theirs == {name: ours[name] for name in theirs} and ours.keys() == theirs.keys()
    assert tables.read(runs[f"lf_{kind}"]["rollouts"], "rollouts").is_empty()
    milestones = runs[f"lf_{kind}"]["milestones"]
    base = load_model(tiny_models.folder("qwen2_5_vl"))
    policy = load_adapters(base, {"0": milestones / "0", "1": milestones / "1"})
    tokens = {"input_ids": torch.tensor([[5, 40, 41]])}
    logits = []
    for label in (None, "0", "1"):
        activate(policy, label)
        logits.append(policy(**tokens).logits)
    assert torch.equal(logits[0], logits[1]) and not torch.allclose(logits[0], logits[2], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_token_ids_it_feeds_are_those_of_sampling(kind: str, study: Path, runs: dict[str, dict[str, Path]]) -> None:
    """What its log says of the first example, beside the prompt's ids of `encode` and the response's with its end."""
    first, processor = rows_of(study).row(0, named=True), load_processor(tiny_models.folder("qwen2_5_vl"))
    prompt = encode(processor, [first["content"]], [open_image(Path(first["image"]))]).input_ids[0].tolist()
    lines = (runs[f"lf_{kind}"]["run"].parent / "work/llamafactory.log").read_text().splitlines()
    prefixes = {"": "chosen"} if kind == "sft" else {"chosen_": "chosen", "rejected_": "rejected"}
    for prefix, column in prefixes.items():
        response = processor.tokenizer(first[column] + "<|im_end|>", add_special_tokens=False).input_ids
        assert ast.literal_eval(lines[lines.index(f"{prefix}input_ids:") + 1]) == prompt + response
        labels = ast.literal_eval(lines[lines.index(f"{prefix}label_ids:") + 1])
        assert labels == [-100] * len(prompt) + response


@pytest.mark.long
def test_what_other_packages_do_is_done_there_too(
    study: Path, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An optimiser with its state in 8 bits (bitsandbytes) and TensorBoard's log, which stays beside run.json."""
    python = llamafactory_process.interpreter(environment)
    asked = [python, "-c", "import bitsandbytes, tensorboard"]
    if subprocess.run(asked, capture_output=True).returncode and os.environ.get("CI") != "true":
        pytest.skip("the environment was made from older pins: `snakemake llamafactory_env --cores 1` makes it anew")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    args = {"max_steps": 2, "optim": "paged_adamw_8bit"}
    alone, beside = train("sft", study, tmp_path / "sft", **args), tmp_path / "beside"
    reporting = recipe("sft", **args, report_to="tensorboard")
    script("train_llamafactory")(**given(study, beside, environment), **reporting)
    losses = [logged(run, "loss") for run in (alone, outputs(beside))]
    assert len(losses[0]) == 2 and losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert list((beside / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.long
def test_a_stopped_run_ends_like_an_uninterrupted_one(
    study: Path, environment: Path, runs: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    """SIGTERM after the first checkpoint: it saves, says so, and goes on where it stopped."""
    code = "import sys, pathlib, test_llamafactory as t; study, run, environment = map(pathlib.Path, sys.argv[1:]); "
    code += "t.script('train_llamafactory')(**t.given(study, run, environment), **t.recipe('sft', **t.ARGS))"
    paths = os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests")])
    variables = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(study), str(tmp_path), str(environment)]
    process = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True)
    mark = tmp_path / f"work/checkpoints/checkpoint-2/{resuming.COMPLETE}"
    while not mark.exists():
        assert process.poll() is None, process.stderr.read()[-3000:]
        time.sleep(0.01)
    process.terminate()
    said = process.communicate()[1]
    assert "InputError: LLaMA-Factory failed: training was stopped at step" in said, said[-3000:]
    assert not any(path.exists() for path in outputs(tmp_path).values())
    script("train_llamafactory")(**given(study, tmp_path, environment), **recipe("sft", **ARGS))
    assert "resume_from_checkpoint" in (tmp_path / "work/arguments.yaml").read_text()
    for label in ("0", "0.5", "1"):
        file = Path("milestones", label, "adapter_model.safetensors")
        whole = runs["lf_sft"]["run"].parent / file
        assert (tmp_path / file).read_bytes() == whole.read_bytes(), label
    assert logged(outputs(tmp_path), "loss") == logged(runs["lf_sft"], "loss")
