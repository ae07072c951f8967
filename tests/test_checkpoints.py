"""What is read from a model folder without loading it, and every kind of folder that is refused."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file

import tiny_models
from memedynamics import adapters, checkpoints, parameters, vlm
from memedynamics.config import Adapter
from memedynamics.errors import InputError


@pytest.fixture(params=list(tiny_models.BUILDERS))
def whole(request):
    return tiny_models.folder(request.param)


@pytest.fixture
def copy(tmp_path):
    """A Qwen2.5-VL folder to spoil."""
    return Path(shutil.copytree(tiny_models.folder("qwen2_5_vl"), tmp_path / "model"))


def refused(folder, words):
    with pytest.raises(InputError, match=words) as error:
        checkpoints.check_folder(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_every_family_passes(whole):
    checkpoints.check_folder(whole)


def test_parameters_are_counted_from_headers(whole):
    model = vlm.load_model(whole)
    assert checkpoints.count_parameters(whole) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("layers", ["all", "attention"])
@pytest.mark.parametrize("r", [1, 3])
def test_lora_parameters_are_pefts(whole, r, layers):
    model = vlm.load_model(whole)
    policy = get_peft_model(model, adapters.peft_config(model, Adapter(r=r, layers=layers)))
    counted = parameters.trainable_parameters(whole, Adapter(r=r, layers=layers))
    assert counted == policy.get_nb_trainable_parameters()[0]


def test_lora_parameters_by_hand():
    """Llama of width 32, 2 key-value heads of 8, mlp 48, 2 layers, rank 1: q, o 64 each; k, v 32 + 16 = 48 each; gate,
    up, down 80 each: 224 + 240 = 464 a layer.
    """
    folder = tiny_models.folder("llava")
    assert parameters.trainable_parameters(folder, Adapter(r=1, layers="all")) == 2 * 464
    assert parameters.trainable_parameters(folder, Adapter(r=5, layers="attention")) == 5 * 2 * 224


def test_names_as_newer_releases_save_them_count_alike(tmp_path):
    tensors = load_file(tiny_models.folder("llava") / "model.safetensors")
    renamed = {
        name.replace("language_model.model.", "model.language_model.").replace("language_model.lm_head", "lm_head"): t
        for name, t in tensors.items()
    }
    assert renamed.keys() != tensors.keys()
    save_file(renamed, tmp_path / "model.safetensors")
    for layers in ("all", "attention"):
        expected = parameters.trainable_parameters(tiny_models.folder("llava"), Adapter(r=2, layers=layers))
        assert parameters.trainable_parameters(tmp_path, Adapter(r=2, layers=layers)) == expected


def test_shards_are_read_together(copy):
    model = vlm.load_model(copy)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="100KB")
    assert len(checkpoints.weight_files(copy)) > 1
    assert checkpoints.count_parameters(copy) == checkpoints.count_parameters(tiny_models.folder("qwen2_5_vl"))
    checkpoints.check_folder(copy)
    missing = checkpoints.weight_files(copy)[0]
    missing.unlink()
    refused(copy, f"{missing.name} is missing")


def test_no_folder(tmp_path):
    refused(tmp_path / "absent", "no such folder")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer.json"),
        ("processor_config.json", "has no processor"),
        ("model.safetensors", "has no model.safetensors"),
    ],
)
def test_a_file_is_missing(copy, name, words):
    (copy / name).unlink()
    refused(copy, words)


def test_pickled_weights_only(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    checkpoints.check_folder(copy)
    (copy / "model.safetensors").unlink()
    refused(copy, "pickled weights only.*safetensors")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8 + b"{}", b"\x05\x00\x00\x00\x00\x00\x00\x00{oops"])
def test_broken_weights(copy, content):
    (copy / "model.safetensors").write_bytes(content)
    refused(copy, "is no safetensors file or is cut short")


def test_weights_cut_short(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(copy, "is no safetensors file or is cut short")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_broken_json(copy, name):
    (copy / name).write_text("{oops")
    refused(copy, f"{name} is not JSON")


def test_a_tokenizer_with_more_tokens_than_the_model(copy):
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    edit(copy / "tokenizer.json", model=tokenizer["model"] | {"vocab": tokenizer["model"]["vocab"] | {"zebra": 400}})
    refused(copy, "the tokenizer has 401 tokens, the model only 400")


def test_a_tokenizer_of_another_model(copy):
    """LLaVA's tiny tokenizer is of the same size; Qwen's picture token 5 is an ordinary one there."""
    shutil.copy(tiny_models.folder("llava") / "tokenizer.json", copy)
    refused(copy, "token 5 stands for pictures.*an ordinary token.*use the model's own tokenizer")


def test_models_that_bring_their_own_code(copy):
    edit(copy / "config.json", model_type="homemade", auto_map={"AutoModel": "modeling.Homemade"})
    refused(copy, "'homemade' has its own code, which is never run")
    edit(copy / "config.json", model_type="llama", auto_map=None)
    refused(copy, "'llama' has no image-text-to-text class")


def test_the_manifest_names_source_class_and_weights(copy):
    checkpoints.write_manifest(copy, "org/name", "0" * 40)
    first = (copy / "base.json").read_bytes()
    manifest = json.loads(first)
    assert manifest["source"] == "org/name" and manifest["revision"] == "0" * 40
    assert manifest["architecture"] == "Qwen2_5_VLForConditionalGeneration" and len(manifest["digest"]) == 64
    checkpoints.write_manifest(copy, "org/name", "0" * 40)
    assert (copy / "base.json").read_bytes() == first
    tensors = load_file(copy / "model.safetensors")
    tensors[min(tensors)] += 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert checkpoints.weights_digest(copy) != manifest["digest"]


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"])
def test_the_manifest_knows_every_file_by_its_content(copy, name):
    """And says which one differs; the processor and its templates in folders of their own count too."""
    (copy / "additional_chat_templates").mkdir()
    (copy / "additional_chat_templates/short.jinja").write_text("{{ messages }}")
    checkpoints.write_manifest(copy, "org/name", None)
    before, first = (copy / "base.json").read_bytes(), json.loads((copy / "base.json").read_text())
    assert {name, "processor_config.json", "additional_chat_templates/short.jinja"} <= first["files"].keys()
    content = (copy / name).read_text()
    (copy / name).write_text(f"{content} ")
    checkpoints.write_manifest(copy, "org/name", None)
    second = json.loads((copy / "base.json").read_text())
    assert {file for file in first["files"] if first["files"][file] != second["files"][file]} == {name}
    assert second["digest"] == first["digest"]
    (copy / name).write_text(content)
    checkpoints.write_manifest(copy, "org/name", None)
    assert (copy / "base.json").read_bytes() == before


def sparse(file, places=(), size=checkpoints.HASHED_BELOW + 12345):
    """A file of `size` zeros that takes no room on disk, with another byte at each of `places`."""
    with file.open("wb") as content:
        content.truncate(size)
        for place in places:
            content.seek(place)
            content.write(b"x")
    return file


def test_large_files_are_told_apart_by_a_sample_of_their_content(tmp_path):
    """Of 1 GiB + 12345 zeros 36 MiB are read: both ends, and the first and last of the blocks between them."""
    zeros, size = checkpoints.content_digest(sparse(tmp_path / "a")), checkpoints.HASHED_BELOW + 12345
    assert checkpoints.content_digest(sparse(tmp_path / "b")) == zeros
    inside = [0, checkpoints.ENDS - 1, checkpoints.ENDS, size - checkpoints.ENDS - 1, size - checkpoints.ENDS, size - 1]
    found = [checkpoints.content_digest(sparse(tmp_path / "b", [place])) for place in inside]
    assert len({zeros, *found}) == 1 + len(inside)
    assert checkpoints.content_digest(sparse(tmp_path / "b", size=size + 1)) != zeros
    # One byte between two blocks is what a sample can miss.
    assert checkpoints.content_digest(sparse(tmp_path / "b", [checkpoints.ENDS + checkpoints.BLOCK])) == zeros


def test_large_files_of_the_hub_are_known_by_its_own_digest(tmp_path):
    """Through two links, as `sources.link` leaves them; a blob without such a name, and a small one, are read."""
    blobs, linked, name = tmp_path / "blobs", tmp_path / "model.safetensors", "0a" * 32
    blobs.mkdir()
    (tmp_path / "snapshot.safetensors").symlink_to(f"blobs/{name}")
    linked.symlink_to(tmp_path / "snapshot.safetensors")
    read = checkpoints.content_digest(sparse(tmp_path / "copy"))
    assert checkpoints.content_digest(sparse(blobs / "short")) == read
    sparse(blobs / name)
    assert checkpoints.content_digest(linked) == name
    (blobs / name).write_bytes(b"small")
    assert checkpoints.content_digest(linked) == hashlib.sha256(b"small").hexdigest()


def test_counting_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from pathlib import Path; from memedynamics import checkpoints, methods, parameters; "
        "parameters.trainable_parameters(Path(sys.argv[1]), methods.Adapter()); "
        "checkpoints.weights_digest(Path(sys.argv[1])); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    library = Path(checkpoints.__file__).parents[1]
    command = [sys.executable, "-c", code, tiny_models.folder("llava")]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(library)})
