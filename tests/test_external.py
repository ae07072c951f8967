"""Checkpoints from elsewhere: what is taken in, and what is told to leave."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

import tiny_models
from memedynamics import adapters, checkpoints, external, saving, sources, tables, trained_on, vlm
from memedynamics.config import Adapter, BaseModelConfig, ExternalMethod
from memedynamics.errors import InputError
from memedynamics.starting import starting_policy
from tiny_study import outputs, script

FAMILY = "qwen2_5_vl"
BASE = BaseModelConfig(source="tiny", dtype="float32")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    sources.link(tiny_models.folder(FAMILY), folder)
    checkpoints.write_manifest(folder, "local", None)
    return folder


def trained(folder: Path, **options: object) -> Path:
    """An adapter on a tiny model, as a user would have trained it: B is not 0."""
    model = vlm.load_model(tiny_models.folder(FAMILY))
    config = adapters.peft_config(model, Adapter(r=4))
    return save(get_peft_model(model, LoraConfig(**{**config.to_dict(), **options})), folder)


def save(model: PeftModel, folder: Path) -> Path:
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        if "lora_magnitude" in name:
            parameter.data.mul_(1.1)
    model.save_pretrained(folder)
    return folder


def bring(folder: Path, base: Path, run: Path) -> dict[str, Path]:
    run.mkdir()
    method = ExternalMethod(kind="external", path=str(folder))
    script("import_external")(model=base, method=method, name="theirs", **outputs(run))
    return outputs(run)


def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=torch.arange(10, 30)[None]).logits


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_starts_at_the_base_and_ends_as_given(base: Path, tmp_path: Path, dora: bool) -> None:
    found = bring(trained(tmp_path / "theirs", use_dora=dora), base, tmp_path / "run")
    record = json.loads(found["run"].read_text())
    assert (record["kind"], record["steps"], record["trainable_parameters"] > 0) == (
        "adapter",
        {"0": 0, "1": None},
        True,
    )
    assert tables.read(found["history"], "history").is_empty() and tables.read(found["rollouts"], "rollouts").is_empty()
    plain = logits(vlm.load_model(base))
    start, end = (
        logits(PeftModel.from_pretrained(vlm.load_model(base), found["milestones"] / label)) for label in ("0", "1")
    )
    given = logits(PeftModel.from_pretrained(vlm.load_model(base), tmp_path / "theirs"))
    assert torch.equal(start, plain)
    assert torch.equal(end, given) and not torch.allclose(end, plain, atol=1e-3)


def test_full_weights_are_links(base: Path, tmp_path: Path) -> None:
    model = vlm.load_model(base)
    next(model.get_decoder().parameters()).data.add_(0.1)
    model.save_pretrained(tmp_path / "theirs")
    found = bring(tmp_path / "theirs", base, tmp_path / "run")
    assert json.loads(found["run"].read_text())["kind"] == "full"
    assert (found["milestones"] / "1/model.safetensors").is_symlink()
    start, end = (vlm.load_model(found["milestones"] / label) for label in ("0", "1"))
    assert torch.equal(logits(start), logits(vlm.load_model(base)))
    assert torch.equal(logits(end), logits(model)) and not torch.equal(logits(end), logits(start))


def test_an_adapter_under_older_module_names_is_not_lost(base: Path, tmp_path: Path) -> None:
    """Written before the decoder became `model.language_model`: PEFT alone would pass over every weight."""
    folder = trained(tmp_path / "theirs")
    given = logits(PeftModel.from_pretrained(vlm.load_model(base), folder))
    weights = external.load_file(folder / external.ADAPTER)
    older = {name.replace("model.language_model.", "language_model.model."): value for name, value in weights.items()}
    external.save_file(older, folder / external.ADAPTER)
    found = bring(folder, base, tmp_path / "run")
    end = logits(PeftModel.from_pretrained(vlm.load_model(base), found["milestones"] / "1"))
    assert older.keys() != weights.keys() and torch.equal(end, given)


def refused(folder: Path, base: Path, tmp_path: Path, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        bring(folder, base, tmp_path / "run")
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)
    assert not any(path.exists() for path in outputs(tmp_path / "run").values())


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    folder = trained(tmp_path / "theirs")
    weights = external.load_file(folder / external.ADAPTER)
    deeper = {name.replace("layers.1.", "layers.40."): value for name, value in weights.items()}
    external.save_file(deeper, folder / external.ADAPTER)
    refused(folder, base, tmp_path, "adapts .*layers.40.*, which the base model lacks: trained on another base")


def test_an_adapter_of_other_width_is_refused(base: Path, tmp_path: Path) -> None:
    folder = trained(tmp_path / "theirs")
    weights = external.load_file(folder / external.ADAPTER)
    name = next(name for name in weights if "q_proj.lora_A" in name)
    external.save_file({**weights, name: torch.zeros(4, 64)}, folder / external.ADAPTER)
    refused(folder, base, tmp_path, "lora_A of .*q_proj is 4 × 64, the base model's layer takes 32")


def test_an_adapter_of_another_hub_model_is_refused(base: Path, tmp_path: Path) -> None:
    folder, other = trained(tmp_path / "theirs"), tmp_path / "other"
    config = json.loads((folder / external.WHERE).read_text())
    (folder / external.WHERE).write_text(json.dumps({**config, "base_model_name_or_path": "org/seven"}))
    other.mkdir()
    sources.link(base, other)
    checkpoints.write_manifest(other, "org/three", None)
    refused(folder, other, tmp_path, "was trained on org/seven, the study's base model is org/three")


def another_base(folder: Path) -> Path:
    """The tiny model with other weights of the same shapes, as the rule base_model leaves one."""
    model = vlm.load_model(tiny_models.folder(FAMILY))
    next(model.get_decoder().parameters()).data.add_(0.1)
    model.save_pretrained(folder)
    checkpoints.write_manifest(folder, "elsewhere", None)
    return folder


def milestone(model: Path, kind: str, folder: Path) -> Path:
    """The end of a run of this project on the base model in `model`."""
    policy = starting_policy(model, BASE, Adapter(kind=kind, r=4))
    if kind != "full":
        policy = get_peft_model(policy, adapters.peft_config(policy, Adapter(kind=kind, r=4)))
    saving.save(policy, folder / "milestones/1")
    return folder / "milestones/1"


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_of_another_base_of_equal_shapes_is_refused(kind: str, base: Path, tmp_path: Path) -> None:
    """Nothing but its weights tells that base apart; a run of this one is taken in, and says so in turn."""
    strange = milestone(another_base(tmp_path / "other"), kind, tmp_path)
    shutil.rmtree(tmp_path / "other")
    said = (
        r"was trained on elsewhere \(digest \w{12}\), the study's base model is local \(digest \w{12}\): shapes agree"
    )
    refused(strange, base, tmp_path, said)
    found = bring(milestone(base, kind, tmp_path / "own"), base, tmp_path / "ours")
    for label in ("0", "1"):
        held = json.loads((found["milestones"] / label / trained_on.FILE).read_text())
        assert held["digest"] == checkpoints.weights_digest(base)


def test_an_adapter_that_names_the_folder_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    """One without a note of its own: the base that it names tells while it is there; else the shapes decide."""
    other, folder = another_base(tmp_path / "other"), trained(tmp_path / "theirs")
    config = json.loads((folder / external.WHERE).read_text())
    (folder / external.WHERE).write_text(json.dumps({**config, "base_model_name_or_path": str(other)}))
    refused(
        folder, base, tmp_path, rf"was trained on {other} \(digest .*: shapes agree, weights do not; use one of both"
    )
    shutil.rmtree(other)
    (tmp_path / "run").rmdir()
    bring(folder, base, tmp_path / "run")


def test_a_base_from_the_hub_is_not_compared_with_a_copy(base: Path, tmp_path: Path) -> None:
    """Of large files the two have different digests, whatever is in them."""
    folder = milestone(another_base(tmp_path / "other"), "lora", tmp_path)
    held = json.loads((folder / trained_on.FILE).read_text())
    (folder / trained_on.FILE).write_text(json.dumps({**held, "revision": "0" * 40}))
    bring(folder, base, tmp_path / "run")


def test_a_run_that_goes_on_from_full_weights_names_their_base(base: Path, tmp_path: Path) -> None:
    """Its own reference is the parent's milestone, which is no base model."""
    parent = milestone(base, "full", tmp_path)
    policy = starting_policy(base, BASE, Adapter(kind="full"), parent.parent, "parent")
    saving.save(policy, tmp_path / "next")
    assert (tmp_path / "next" / trained_on.FILE).read_bytes() == (parent / trained_on.FILE).read_bytes()


def test_an_adapter_on_the_vision_tower_is_refused(base: Path, tmp_path: Path) -> None:
    model = vlm.load_model(base)
    folder = save(get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")), tmp_path / "theirs")
    refused(folder, base, tmp_path, "adapts .*visual.*, outside the text decoder; merge it")


def test_an_adapter_that_changed_its_base_is_refused(base: Path, tmp_path: Path) -> None:
    folder = trained(tmp_path / "theirs")
    config = json.loads((folder / external.WHERE).read_text())
    (folder / external.WHERE).write_text(json.dumps({**config, "init_lora_weights": "pissa"}))
    refused(folder, base, tmp_path, "init_lora_weights pissa changed the base")


def test_full_weights_of_another_base_are_refused(base: Path, tmp_path: Path) -> None:
    refused(tiny_models.folder("llava"), base, tmp_path, "is a llava, the base model a qwen2_5_vl: trained on another")


def test_full_weights_of_another_size_are_refused(base: Path, tmp_path: Path) -> None:
    model = vlm.load_model(base)
    layer = model.get_decoder().layers[0].mlp
    layer.up_proj = torch.nn.Linear(32, 64, bias=False)
    model.save_pretrained(tmp_path / "theirs")
    refused(
        tmp_path / "theirs", base, tmp_path, r"layers.0.mlp.up_proj.weight is \(64, 32\), in the base model \(48, 32\)"
    )


def test_pickled_adapters_and_empty_folders_are_refused(base: Path, tmp_path: Path) -> None:
    folder = trained(tmp_path / "theirs")
    (folder / external.ADAPTER).rename(folder / "adapter_model.bin")
    refused(folder, base, tmp_path, "has no adapter_model.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither adapter_config.json nor config.json"):
        external.kind(tmp_path / "empty")


def test_a_missing_folder_is_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        bring(tmp_path / "nowhere", base, tmp_path / "run")


def test_a_mistyped_relative_folder_is_not_taken_for_a_hub_id(base: Path, tmp_path: Path) -> None:
    said = r"methods\.theirs\.path: checkpoints/their-adapter: no such folder; give a folder, or a hub id with revision"
    with pytest.raises(InputError, match=said):
        bring(Path("checkpoints/their-adapter"), base, tmp_path / "run")
