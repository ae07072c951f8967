"""Finding the base model's folder on this machine, without fetching or making anything."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

import tiny_models
from memedynamics.config import BaseModelConfig
from memedynamics.sources import find

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A hub cache that holds a snapshot of org/tiny."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub/models--org--tiny/snapshots" / COMMIT
    return Path(shutil.copytree(tiny_models.folder("qwen2_5_vl"), folder))


def test_the_studys_own_model_comes_first(tmp_path):
    built = Path(shutil.copytree(tiny_models.folder("qwen2_5_vl"), tmp_path / "model"))
    assert find(BaseModelConfig(source=str(tiny_models.folder("llava"))), built) == built
    assert find(BaseModelConfig(source="demo"), built) == built


def test_a_local_folder_or_the_hubs_cache(tmp_path, cached):
    absent = tmp_path / "model"
    local = tiny_models.folder("llava")
    assert find(BaseModelConfig(source=str(local)), absent) == local.resolve()
    assert find(BaseModelConfig(source="org/tiny", revision=COMMIT), absent) == cached


def test_what_is_not_here(tmp_path, cached):
    absent = tmp_path / "model"
    assert find(BaseModelConfig(source="demo"), absent) is None
    assert find(BaseModelConfig(source=str(tmp_path / "nowhere")), absent) is None
    assert find(BaseModelConfig(source="org/other", revision=COMMIT), absent) is None


def test_a_download_that_was_cut_short(tmp_path, cached):
    (cached / "model.safetensors").unlink()
    assert find(BaseModelConfig(source="org/tiny", revision=COMMIT), tmp_path / "model") is None
