"""What a script's result depends on in the code: a digest over syntax trees, not over bytes.

Comments, formatting, docstrings, timestamps and unrelated modules leave it alone; a change of logic in the script
or in any library module it imports, directly or not, changes it. Snakemake tracks it as a parameter.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from memedynamics.syntax import Import, source

HARNESS = {"job.py", "disk.py", "lease.py", "config.py", "sections.py", "methods.py", "errors.py", "checksums.py"}


def fingerprint(script: Path, library: Path, rewards: Iterable[Path] = (), verbatim: Iterable[Path] = ()) -> str:
    """Hex digest of `script` and of the modules in folder `library` that it reaches.

    `rewards` are the user's own Python files, counted where the script grades; `verbatim` files count byte by byte.
    """
    reached = sorted(_reached(Path(script), Path(library)))
    grades = any(file.name == "rewards.py" for file in reached)
    files = [Path(script), *reached, *(map(Path, rewards) if grades else [])]
    words = {word for file in files if file.name != "schemas.py" for word in source(file).words}
    digest = hashlib.sha256()
    for file in files:
        said = source(file)
        digest.update(f"{file.name}\n{said.logic(words & said.schemas())}\n".encode())
    for file in verbatim:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def user_files(dotted: Iterable[str], folder: Path) -> list[Path]:
    """The files under `folder` that hold the functions at the `dotted` paths (`my_rewards.brevity`), and their imports.

    What is not found there is left to the import itself, which says so.
    """
    held = {file for name in dotted for file in _files(name.rpartition(".")[0], folder)}
    return sorted(held | _closure(held, lambda file: _imports(file, folder)))


def _reached(script: Path, library: Path) -> set[Path]:
    def own(file: Path) -> set[Path]:
        found = _imports(file, library.parent)
        return {other for other in found if other.is_relative_to(library) and other.name not in HARNESS}

    return _closure({script}, own)


def _closure(start: set[Path], imports: Callable[[Path], set[Path]]) -> set[Path]:
    """All that `imports` leads to from `start`, directly or not."""
    found: set[Path] = set()
    todo = list(start)
    while todo:
        fresh = imports(todo.pop()) - found
        found |= fresh
        todo += fresh
    return found


@functools.cache
def _imports(file: Path, root: Path) -> set[Path]:
    """The files under `root`, which holds top-level modules, that `file` imports anywhere in it."""
    names: set[str] = set()
    for each in source(file).imports:
        if each.module is None and not each.level:
            names |= set(each.names)
        else:
            base = _absolute(each, file, root)
            names |= {base} | {f"{base}.{name}" for name in each.names}
    return {path for name in names for path in _files(name, root)}


def _absolute(each: Import, file: Path, root: Path) -> str:
    if not each.level:
        return each.module or ""
    package = file.parent.relative_to(root).parts if file.is_relative_to(root) else ()
    return ".".join([*package[: len(package) - each.level + 1], *filter(None, [each.module])])


@functools.cache
def _files(name: str, root: Path) -> tuple[Path, ...]:
    """The files under `root` that importing the dotted `name` runs, packages' `__init__` included."""
    files, folder = [], root
    for part in filter(None, name.split(".")):
        files += [folder / f"{part}.py", folder / part / "__init__.py"]
        folder = folder / part
    return tuple(file for file in files if file.is_file())
