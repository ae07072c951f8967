"""What a model folder holds, read without loading it: files, weight shapes, parameter counts, tokenizer, manifest."""

import hashlib
import json
import re
from math import prod
from pathlib import Path

from memedynamics.errors import InputError

INDEX = "model.safetensors.index.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
SETTINGS = ("*.json", "*.jinja", "*.txt", "*.model")
MANIFEST = "base.json"
HASHED_BELOW = 1 << 30  # bytes; of larger files a sample is read
ENDS, BLOCK, BLOCKS = 16 << 20, 64 << 10, 64  # bytes at each end, bytes of a block between them, their number
SHA256 = re.compile(r"[0-9a-f]{64}")
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def check_folder(folder: Path) -> None:
    """Raise InputError unless `folder` is a whole model: config, safetensors, processor, a tokenizer that fits."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of a model saved with save_pretrained")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: has no {name}; save the whole model and its processor there")
    if not any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        raise InputError(f"{folder}: has no processor (preprocessor_config.json); save the model's processor there")
    config = _read(folder / "config.json")
    _needs_no_code(folder, config)
    _tokenizer_fits(folder, config, embedding_rows(folder))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the model, sorted; raises InputError where they are missing or only pickled."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if (folder / INDEX).is_file():
        files = sorted({folder / name for name in _read(folder / INDEX)["weight_map"].values()})
        for file in files:
            if not file.is_file():
                raise InputError(f"{folder}: {file.name} is missing, but {INDEX} names it; fetch it again")
        return files
    if any(next(folder.glob(pattern), None) for pattern in PICKLED):
        raise InputError(f"{folder}: has pickled weights only, which can run code; save them as safetensors")
    raise InputError(f"{folder}: has no model.safetensors; save the model there with save_pretrained")


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name, from the headers of the weight files."""
    found: dict[str, tuple[int, ...]] = {}
    for file in weight_files(folder):
        found |= {name: tuple(entry["shape"]) for name, entry in _header(file).items() if name != "__metadata__"}
    return found


def count_parameters(folder: Path) -> int:
    """Parameters of the model; tied ones count once, as they are stored once."""
    return sum(prod(shape) for shape in shapes(folder).values())


def stored_dtype(folder: Path) -> str:
    """The dtype that most of the weights in `folder` are stored in, in torch's name."""
    counts: dict[str, int] = {}
    for file in weight_files(folder):
        for name, entry in _header(file).items():
            if name != "__metadata__":
                counts[entry["dtype"]] = counts.get(entry["dtype"], 0) + prod(entry["shape"])
    return DTYPES.get(max(counts, key=counts.get), "float32")


def embedding_rows(folder: Path) -> int:
    """Rows of the text decoder's token embedding."""
    rows = [shape[0] for name, shape in shapes(folder).items() if name.endswith("embed_tokens.weight")]
    if not rows:
        raise InputError(f"{folder}: the weights hold no token embedding; is this a vision-language model?")
    return rows[0]


def write_manifest(folder: Path, source: str, revision: str | None) -> None:
    """Write base.json: where the model came from, its class, and digests of its weights and of every other file.

    The model's other jobs know it by this file alone (`job.contents`), so it tells apart all that they could read.
    """
    config = _read(folder / "config.json")
    manifest = {
        "source": source,
        "revision": revision,
        "architecture": (config.get("architectures") or [config["model_type"]])[0],
        "digest": weights_digest(folder),
        "files": {name: content_digest(folder / name) for name in _settings(folder)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def weights_digest(folder: Path) -> str:
    """Digest of the weight files' names, sizes and contents (`content_digest`)."""
    digest = hashlib.sha256()
    for file in weight_files(folder):
        digest.update(f"{file.name} {file.stat().st_size} {content_digest(file)}\n".encode())
    return digest.hexdigest()


def content_digest(file: Path) -> str:
    """SHA-256 of a file's content; of 1 GiB or more the one by which the hub's cache names it, or that of a sample.

    The sample is the size, 16 MiB at each end and 64 blocks of 64 KiB evenly between them. Weights that were trained
    differ everywhere, so it tells checkpoints apart; a few bytes changed by hand it can miss.
    """
    size, stored = file.stat().st_size, file.resolve()
    if size < HASHED_BELOW:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    # In the hub's cache a snapshot's large files are links to blobs, named by their content's SHA-256.
    if stored.parent.name == "blobs" and SHA256.fullmatch(stored.name):
        return stored.name
    return _sampled_digest(file, size)


def _sampled_digest(file: Path, size: int) -> str:
    digest = hashlib.sha256(f"{size}\n".encode())
    between = [ENDS + n * (size - 2 * ENDS - BLOCK) // (BLOCKS - 1) for n in range(BLOCKS)]
    with file.open("rb") as content:
        for start, length in [(0, ENDS), *((start, BLOCK) for start in between), (size - ENDS, ENDS)]:
            content.seek(start)
            digest.update(content.read(length))
    return digest.hexdigest()


def _settings(folder: Path) -> list[str]:
    """Configuration, processor, tokenizer and chat templates, by their path in `folder`; not the manifest itself."""
    found = {path.relative_to(folder).as_posix() for pattern in SETTINGS for path in folder.rglob(pattern)}
    return sorted(found - {MANIFEST})


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file.parent}: {file.name} is not JSON ({error}); fetch it again") from error


def _header(file: Path) -> dict[str, dict]:
    # A safetensors file begins with its header's length (8 bytes, little endian) and the header in JSON.
    with file.open("rb") as content:
        try:
            size, length = file.stat().st_size, int.from_bytes(content.read(8), "little")
            if length > size:
                raise ValueError("header longer than the file")
            header = json.loads(content.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            if 8 + length + max(ends, default=0) > size:
                raise ValueError("tensors missing at its end")
            return header
        except ValueError as error:
            raise InputError(f"{file}: is no safetensors file or is cut short ({error}); fetch it again") from error


def _needs_no_code(folder: Path, config: dict) -> None:
    # Imported here: the tables of model types cost seconds, and a plan only counts parameters.
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as known

    kind = config.get("model_type")
    if kind not in known:
        own = "its own code, which is never run" if config.get("auto_map") else "no image-text-to-text class"
        raise InputError(f"{folder}: model type {kind!r} has {own}; use a model that transformers has a class for")


def _tokenizer_fits(folder: Path, config: dict, rows: int) -> None:
    tokenizer = _read(folder / "tokenizer.json")
    added = {entry["id"]: entry["content"] for entry in tokenizer.get("added_tokens", [])}
    words = tokenizer["model"]["vocab"]
    size = 1 + max([*added, *(words.values() if isinstance(words, dict) else [len(words) - 1])])
    if size > rows:
        raise InputError(f"{folder}: the tokenizer has {size} tokens, the model only {rows}; use the model's own")
    image = config.get("image_token_id", config.get("image_token_index"))
    if image is not None and "image" not in added.get(image, "").lower():
        raise InputError(
            f"{folder}: token {image} stands for pictures in config.json but is "
            f"{added.get(image, 'an ordinary token')!r} in the tokenizer; use the model's own tokenizer"
        )
