"""Which base model a checkpoint was trained on: kept beside its weights, so that it still tells in another study.

1. Bases of equal shapes load each other's adapters and compare with each other's weights without an error.
2. An adapter without this file names the folder of its base; where that is a base model of a study, its manifest tells.
3. Large files of the hub have other digests than copies in a folder (`checkpoints.content_digest`): a base from the
   hub is not compared with one from a folder.
"""

import json
from pathlib import Path

from memedynamics.adapter_files import WHERE
from memedynamics.checkpoints import MANIFEST
from memedynamics.errors import InputError

FILE = "trained_on.json"
KEYS = ("source", "revision", "digest")


def keep(base: Path, folder: Path) -> None:
    """Write into `folder` which base model `base` is, or where `base` is a milestone, which one it was trained on."""
    if found := _read(base / MANIFEST) or _read(base / FILE):
        (folder / FILE).write_text(json.dumps({key: found.get(key) for key in KEYS}, indent=1) + "\n")


def check(folder: Path, base: Path) -> None:
    """Raise InputError where the checkpoint in `folder` is known to be trained on other weights than `base`'s."""
    theirs, ours = _read(folder / FILE) or _named(folder), _read(base / MANIFEST)
    digests = [found.get("digest") for found in (theirs, ours)]
    from_hub = [found.get("revision") is not None for found in (theirs, ours)]
    if all(digests) and digests[0] != digests[1] and from_hub[0] == from_hub[1]:
        one, other = (f"{found['source']} (digest {found['digest'][:12]})" for found in (theirs, ours))
        raise InputError(
            f"{folder}: was trained on {one}, the study's base model is {other}: shapes agree, weights do not; use one "
            "of both"
        )


def _named(folder: Path) -> dict[str, object]:
    """The manifest in the folder that an adapter names as its base; empty where there is none."""
    name = _read(folder / WHERE).get("base_model_name_or_path")
    return {**found, "source": name} if name and (found := _read(Path(name) / MANIFEST)) else {}


def _read(file: Path) -> dict[str, object]:
    try:
        return json.loads(file.read_text()) if file.is_file() else {}
    except ValueError as error:
        raise InputError(f"{file}: is not JSON ({error}); fetch it again") from error
