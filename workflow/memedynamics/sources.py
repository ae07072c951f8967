"""Where a model comes from: a local folder, or a hub repository at a pinned commit, fetched once by `prefetch`."""

import os
import re
import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from memedynamics import checkpoints
from memedynamics.config import BaseModelConfig
from memedynamics.errors import InputError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
# Weights as safetensors only, no code.
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
COPIED = ["config.json", "generation_config.json", checkpoints.INDEX]


def is_hub_id(source: str) -> bool:
    """Whether `source` names a hub repository, not a folder; an existing folder wins."""
    return not Path(source).is_dir() and HUB_ID.fullmatch(source) is not None


def locate(source: str, revision: str | None, key: str) -> Path:
    """The folder of `source`: itself, or the hub's local copy; the config's `key` is named in errors."""
    if not is_hub_id(source):
        if not Path(source).is_dir():
            raise InputError(f"{key}: {source}: no such folder; give a model folder or a hub id such as org/name")
        return Path(source).resolve()
    _pinned(source, revision, key)
    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except OSError as error:
        raise InputError(f"{key}: {source} at {revision} is not in the hub cache; run `snakemake prefetch`") from error


def find(base: BaseModelConfig, built: Path) -> Path | None:
    """The base model's folder where its weights are on this machine: the study's own, `built`, or where it comes from.

    Nothing is fetched or made; None where the model, or a part of it, is still missing.
    """
    try:
        folder = built if built.is_dir() else locate(base.source, base.revision, "base_model.source")
        checkpoints.weight_files(folder)
    except InputError:
        return None
    return folder


def fetch(source: str, revision: str | None, key: str) -> Path:
    """Download the hub repository `source` into the hub cache; the only function here that uses a network."""
    _pinned(source, revision, key)
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=WANTED))
    except (OSError, HfHubHTTPError) as error:
        # The hub's client wraps what went wrong in advice to check the connection.
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"{key}: {source} at {revision} cannot be fetched: {reason}") from error


def link(origin: Path, folder: Path) -> None:
    """Fill `folder` with `origin`'s model: weights as links, configuration as copies.

    A link is relative where both lie in the working directory, which can then be moved as a whole, else absolute.
    """
    for name in COPIED:
        if (origin / name).is_file():
            shutil.copyfile(origin / name, folder / name)
    for file in checkpoints.weight_files(origin):
        inside = all(path.absolute().is_relative_to(Path.cwd()) for path in (file, folder))
        (folder / file.name).symlink_to(os.path.relpath(file, folder) if inside else file.absolute())


def _pinned(source: str, revision: str | None, key: str) -> None:
    if revision is None:
        wanted = "a folder, or a hub id with revision, a commit of 40 hex digits"
        raise InputError(f"{key}: {source}: no such folder; give {wanted}")
    if not COMMIT.fullmatch(revision):
        raise InputError(f"{key}: {source} needs a pinned revision, a commit of 40 hex digits, not {revision!r}")
