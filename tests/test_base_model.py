"""The base model's folder from a local folder or the hub's cache, and every source that is refused."""

import importlib.util
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import pytest
import torch
from huggingface_hub import constants

import tiny_models
from memedynamics import processors, sources, vlm
from memedynamics.config import BaseModelConfig, Dataset, ExternalMethod
from memedynamics.errors import InputError
from memedynamics.prompts import load_prompt

ROOT = Path(__file__).parents[1]
PROMPT = load_prompt(ROOT / "config/prompts/think_answer.yaml")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "workflow/scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def base(target, source, **keys):
    config = BaseModelConfig(source=str(source), **keys)
    script("base_model").main(target, config, threads=1, work=target.with_name("work"))
    return target


def refused(target, words, source, **keys):
    """The error is one line, and nothing of the folder is left under its name."""
    with pytest.raises(InputError, match=words) as error:
        base(target, source, **keys)
    assert "\n" not in str(error.value) and not target.exists()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs: a repository's file list and its files at one commit."""

    repository = tiny_models.folder("smolvlm")

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        names = sorted(path.name for path in self.repository.iterdir())
        if "/tree/" in self.path:
            sizes = [(self.repository / name).stat().st_size for name in names]
            entries = [{"type": "file", "path": n, "size": s, "oid": n} for n, s in zip(names, sizes, strict=True)]
            self.answer(json.dumps(entries).encode(), body)
        elif f"/api/models/org/tiny/revision/{COMMIT}" in self.path:
            info = {"id": "org/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            self.answer(json.dumps(info).encode(), body)
        elif f"/org/tiny/resolve/{COMMIT}/" in self.path and self.path.split("/")[-1] in names:
            self.answer((self.repository / self.path.split("/")[-1]).read_bytes(), body)
        else:
            self.send_error(404)

    def answer(self, content, body):
        self.send_response(200)
        for key, value in {
            "Content-Length": len(content),
            "ETag": f'"{len(content)}"',
            "X-Repo-Commit": COMMIT,
        }.items():
            self.send_header(key, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine, with an empty cache."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    yield server
    server.shutdown()


def cached(cache, family):
    """The hub's cache after a download: files as links into blobs."""
    repository = cache / "models--org--tiny"
    snapshot, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(tiny_models.folder(family).iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    return snapshot


def same_logits(one, other):
    processor = vlm.load_processor(one)
    inputs = vlm.encode(processor, ["Is it hateful?"], [tiny_models.picture(1)])
    with torch.no_grad():
        return torch.equal(*(vlm.load_model(folder)(**inputs).logits for folder in (one, other)))


@pytest.mark.parametrize("family", list(tiny_models.BUILDERS))
def test_a_local_folder_is_linked_and_its_processor_saved(tmp_path, family):
    origin = tiny_models.folder(family)
    model = base(tmp_path / "deep/model", origin)
    weights = model / "model.safetensors"
    assert weights.is_symlink() and weights.readlink() == (origin / "model.safetensors").resolve()
    assert (model / "generation_config.json").read_bytes() == (origin / "generation_config.json").read_bytes()
    assert json.loads((model / "base.json").read_text())["source"] == str(origin)
    assert same_logits(model, origin)
    assert [path.name for path in model.parent.iterdir()] == ["model"]


def test_running_it_again_gives_the_same_bytes(tmp_path):
    one, other = (base(tmp_path / name, tiny_models.folder("llava")) for name in "ab")
    base(one, tiny_models.folder("llava"))
    files = {path.name for path in one.iterdir()}
    assert files == {path.name for path in other.iterdir()}
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in files)


def test_a_relative_folder_becomes_absolute_links(tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_models.folder("llava").parent)
    model = base(tmp_path / "model", "llava")
    monkeypatch.chdir(tmp_path)
    assert same_logits(model, tiny_models.folder("llava"))


def test_a_folder_beside_the_results_is_linked_so_that_both_can_be_moved(tmp_path, monkeypatch):
    shutil.copytree(tiny_models.folder("llava"), tmp_path / "project/models/llava")
    monkeypatch.chdir(tmp_path / "project")
    base(Path("results/s/model"), "models/llava")
    monkeypatch.chdir(tmp_path)
    moved = (tmp_path / "project").rename(tmp_path / "moved")
    assert not (moved / "results/s/model/model.safetensors").readlink().is_absolute()
    assert same_logits(moved / "results/s/model", tiny_models.folder("llava"))


def test_a_hub_id_is_taken_from_the_cache(tmp_path, cache):
    snapshot = cached(cache, "qwen3_vl")
    (snapshot / "modeling_own.py").write_text("raise SystemExit")
    model = base(tmp_path / "model", "org/tiny", revision=COMMIT)
    assert (model / "model.safetensors").readlink() == snapshot / "model.safetensors"
    assert json.loads((model / "base.json").read_text())["revision"] == COMMIT
    assert not (model / "modeling_own.py").exists()
    assert same_logits(model, tiny_models.folder("qwen3_vl"))


@pytest.mark.parametrize(
    ("family", "override", "tokens"),
    [
        ("qwen2_5_vl", {"max_pixels": 2 * 28 * 28}, 2),
        ("qwen2_5_vl", {"min_pixels": 30 * 28 * 28, "max_pixels": 90 * 28 * 28}, 32),
        ("qwen2_5_vl", {"size": {"shortest_edge": 784, "longest_edge": 2 * 784}}, 2),
        ("qwen3_vl", {"max_pixels": 2 * 32 * 32}, 2),
        ("smolvlm", {"do_image_splitting": False}, 4),
        ("idefics3", {"size": {"longest_edge": 28}}, 4),
        ("gemma3", {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 10}, 12),
    ],
)
def test_processor_overrides_last(tmp_path, family, override, tokens):
    """Picture tokens of a 200 x 100 meme, by hand: 2 merged patches of 28 or 32 px; grown by
    sqrt(30 * 784 / 20000) = 1.084 to 217 x 109, rounded up, 8 x 4 of them; one tile of 4; a picture and two crops of 4.
    """
    model = base(tmp_path / "model", tiny_models.folder(family), processor=override)
    processor = vlm.load_processor(model)
    encoded = vlm.encode(processor, ["x"], [tiny_models.picture(1, 200, 100)])
    image = processor.tokenizer.convert_tokens_to_ids(processor.tokenizer.image_token)
    count = int((encoded["input_ids"] == image).sum())
    assert count == tokens
    with torch.no_grad():
        assert vlm.load_model(model)(**encoded).logits.isfinite().all()


def test_limits_written_as_older_releases_do_are_overridden_too(tmp_path):
    origin = Path(shutil.copytree(tiny_models.folder("qwen2_5_vl"), tmp_path / "origin"))
    old = {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 784, "max_pixels": 784 * 9}
    (origin / "preprocessor_config.json").write_text(json.dumps(old | {"processor_class": "Qwen2_5_VLProcessor"}))
    (origin / "processor_config.json").unlink()
    meme = tiny_models.picture(1, 400, 400)
    counts = []
    for name, override in [("own", {}), ("less", {"max_pixels": 784 * 4})]:
        processor = vlm.load_processor(base(tmp_path / name, origin, processor=override))
        counts.append(len(vlm.encode(processor, ["x"], [meme])["pixel_values"]) // 4)
    assert counts == [9, 4]


def test_an_unknown_override_is_named(tmp_path):
    words = r"base_model\.processor\.max_pixel: Qwen2_5_VLProcessor has no such argument.*max_pixels"
    refused(tmp_path / "model", words, tiny_models.folder("qwen2_5_vl"), processor={"max_pixel": 3})


def test_an_override_of_the_wrong_type_is_named(tmp_path):
    refused(tmp_path / "model", "processor", tiny_models.folder("qwen2_5_vl"), processor={"max_pixels": "many"})


def test_sources_that_do_not_exist(tmp_path, cache):
    refused(tmp_path / "model", r"base_model\.source: /absent: no such folder", "/absent")
    refused(tmp_path / "model", "no such folder", "a/b/c")
    refused(tmp_path / "model", "not in the hub cache; run `snakemake prefetch`", "org/tiny", revision=COMMIT)
    assert not cache.exists()


@pytest.mark.parametrize("revision", ["main", COMMIT[:7]])
def test_a_hub_id_needs_a_commit(tmp_path, cache, revision):
    cached(cache, "llava")
    refused(tmp_path / "model", "org/tiny needs a pinned revision", "org/tiny", revision=revision)
    refused(tmp_path / "model", "org/tiny: no such folder; give a folder, or a hub id with revision", "org/tiny")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "processor_config.json").unlink(), "has no processor"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickled weights only"),
        (lambda folder: shutil.copy(tiny_models.folder("llava") / "tokenizer.json", folder), "stands for pictures"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
        (lambda folder: (folder / "processor_config.json").write_text("{oops"), "processor does not load"),
        (lambda folder: (folder / "processor_config.json").write_text("{}"), "takes no pictures|does not load"),
    ],
)
def test_folders_that_are_no_model(tmp_path, spoil, words):
    origin = Path(shutil.copytree(tiny_models.folder("qwen2_5_vl"), tmp_path / "origin"))
    spoil(origin)
    refused(tmp_path / "model", words, origin)


def test_another_familys_processor_is_refused(tmp_path):
    """The tokenizer is the model's own; the processor writes picture tokens it does not have."""
    origin = Path(shutil.copytree(tiny_models.folder("gemma3"), tmp_path / "origin"))
    for name in ("processor_config.json", "chat_template.jinja"):
        shutil.copy(tiny_models.folder("smolvlm") / name, origin)
    refused(tmp_path / "model", "processor", origin)


def test_an_earlier_result_survives_a_refused_source(tmp_path):
    model = base(tmp_path / "model", tiny_models.folder("llava"))
    with pytest.raises(InputError):
        base(model, "/absent")
    assert same_logits(model, tiny_models.folder("llava"))


def test_prefetched_models_need_no_network_later(tmp_path, hub, monkeypatch):
    source = BaseModelConfig(source="org/tiny", revision=COMMIT)
    script("prefetch").main(BaseModelConfig(source="demo"), {}, {}, judge=source)
    hub.shutdown()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = base(tmp_path / "model", "org/tiny", revision=COMMIT)
    assert same_logits(model, tiny_models.folder("smolvlm"))


def test_prefetch_names_a_repository_that_is_not_there(hub):
    with pytest.raises(InputError, match=r"base_model\.source: org/none at .* cannot be fetched: .*404"):
        script("prefetch").main(BaseModelConfig(source="org/none", revision=COMMIT), {}, {})


def test_prefetch_names_what_cannot_be_fetched(cache):
    prefetch = script("prefetch").main
    local = BaseModelConfig(source=str(tiny_models.folder("llava")))
    prefetch(local, {"m": Dataset(reader="table", root="/x")}, {"e": ExternalMethod(kind="external", path="/x")})
    with pytest.raises(InputError, match=r"base_model\.source: org/tiny at 0123.* cannot be fetched"):
        prefetch(BaseModelConfig(source="org/tiny", revision=COMMIT), {}, {})
    with pytest.raises(InputError, match=r"methods\.e\.path: org/run: no such folder; give a folder, or a hub id"):
        prefetch(local, {}, {"e": ExternalMethod(kind="external", path="org/run")})
    with pytest.raises(InputError, match=r"datasets\.d: org/memes cannot be fetched"):
        prefetch(local, {"d": Dataset(reader="huggingface", hub_id="org/memes", revision=COMMIT)}, {})


def test_hub_ids_and_folders_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sources.is_hub_id("Qwen/Qwen2.5-VL-7B-Instruct")
    assert not any(map(sources.is_hub_id, ["demo", "/a/b", "./a", "../a/b", "~/a", "a/b/c", "a b/c"]))
    Path("Qwen/mine").mkdir(parents=True)
    assert not sources.is_hub_id("Qwen/mine")


def test_a_text_only_processor_is_refused(tmp_path):
    vlm.load_processor(tiny_models.folder("llava")).tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="takes no pictures|does not load"):
        processors.check(processors.overridden(tmp_path, {}), tmp_path)
