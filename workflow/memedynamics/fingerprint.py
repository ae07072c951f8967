"""What a script's result depends on in the code: a digest over syntax trees, not over bytes.

Comments, formatting, docstrings, timestamps and unrelated modules leave it alone; a change of logic in the script
or in any library module it imports, directly or not, changes it. Snakemake tracks it as a parameter.
"""

import ast
import functools
import hashlib
from collections.abc import Callable, Iterable, Set
from pathlib import Path
from typing import NamedTuple

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
HARNESS = {"job.py", "lease.py", "config.py", "sections.py", "methods.py", "errors.py", "checksums.py"}
SCHEMAS = "SCHEMAS"
ACCESS = {"read", "read_all", "frames", "scan", "write", "Writer", "Parts", "conform", "rows"}


def fingerprint(script: Path, library: Path, rewards: Iterable[Path] = (), verbatim: Iterable[Path] = ()) -> str:
    """Hex digest of `script` and of the modules in folder `library` that it reaches.

    `rewards` are the user's own Python files, counted where the script grades; `verbatim` files count byte by byte.
    """
    reached = sorted(_reached(Path(script), Path(library)))
    grades = any(file.name == "rewards.py" for file in reached)
    files = [Path(script), *reached, *(map(Path, rewards) if grades else [])]
    words = set().union(*(_source(file).words for file in files if file.name != "schemas.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\n{_logic(file, words & _schemas(file))}\n".encode())
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


class Source(NamedTuple):
    """A file's statements without docstrings; what it imports; and the tables it reads or writes: string arguments of
    the calls in ACCESS.
    """

    body: list[ast.stmt]
    imports: list[ast.Import | ast.ImportFrom]
    words: set[str]


@functools.cache
def _source(file: Path) -> Source:
    found = Source([], [], set())
    try:
        tree = ast.parse(file.read_text(), filename=str(file))
    except (SyntaxError, ValueError):  # importing it says what is wrong
        return found
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and node.body and _is_docstring(node.body[0]):
            node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.imports.append(node)
        elif isinstance(node, ast.Call) and _callee(node) in ACCESS:
            found.words.update(argument.value for argument in node.args if _is_text(argument))
    found.body.extend(tree.body)
    return found


def _is_docstring(first: ast.stmt) -> bool:
    return isinstance(first, ast.Expr) and _is_text(first.value)


def _callee(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _entry(statement: ast.stmt) -> str | None:
    """The schema's name in `SCHEMAS["name"] = …`, else None."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    if isinstance(target, ast.Subscript) and getattr(target.value, "id", None) == SCHEMAS:
        return target.slice.value if _is_text(target.slice) else None
    return None


def _table(statement: ast.stmt) -> ast.Dict | None:
    """The dict in `SCHEMAS: … = {…}`, else None."""
    named = isinstance(statement, ast.AnnAssign) and getattr(statement.target, "id", None) == SCHEMAS
    return statement.value if named and isinstance(statement.value, ast.Dict) else None


@functools.cache
def _schemas(file: Path) -> frozenset[str]:
    """Names of the schemas that `file` declares."""
    body = _source(file).body
    keys = [key.value for statement in body if (table := _table(statement)) for key in table.keys if _is_text(key)]
    return frozenset([*keys, *filter(None, map(_entry, body))])


def _logic(file: Path, schemas: Set[str]) -> str:
    """The file's code without docstrings, comments and the schemas not in `schemas`, in one canonical spelling."""
    return "\n".join(text for name, text in _pieces(file) if name is None or name in schemas)


@functools.cache
def _pieces(file: Path) -> list[tuple[str | None, str]]:
    """The file's statements in one canonical spelling, each schema apart and under its name."""
    found: list[tuple[str | None, str]] = []
    for statement in _source(file).body:
        if table := _table(statement):
            pairs = zip(table.keys, table.values, strict=True)
            found += [(getattr(key, "value", None), ast.unparse(ast.Dict([key], [value]))) for key, value in pairs]
        else:
            found.append((_entry(statement), ast.unparse(statement)))
    return found


@functools.cache
def _imports(file: Path, root: Path) -> set[Path]:
    """The files under `root`, which holds top-level modules, that `file` imports anywhere in it."""
    names: set[str] = set()
    for node in _source(file).imports:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            base = _absolute(node, file, root)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {path for name in names for path in _files(name, root)}


def _absolute(node: ast.ImportFrom, file: Path, root: Path) -> str:
    if not node.level:
        return node.module or ""
    package = file.parent.relative_to(root).parts if file.is_relative_to(root) else ()
    return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])


def _files(name: str, root: Path) -> list[Path]:
    """The files under `root` that importing the dotted `name` runs, packages' `__init__` included."""
    files, folder = [], root
    for part in filter(None, name.split(".")):
        files += [folder / f"{part}.py", folder / part / "__init__.py"]
        folder = folder / part
    return [file for file in files if file.is_file()]
