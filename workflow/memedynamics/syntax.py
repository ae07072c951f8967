"""What a Python file says, without docstrings, comments and formatting: its statements, imports, and tables it names.

It is kept in `__pycache__` beside the file, as Python keeps its bytecode, for files of the same bytes: to read the
library anew would take half of every `snakemake`.
"""

import ast
import functools
import hashlib
import json
import os
import sys
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from typing import NamedTuple

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SCHEMAS = "SCHEMAS"
ACCESS = {"read", "read_all", "frames", "scan", "write", "Writer", "Parts", "conform", "rows"}
# Another Python, or another version of this module, may spell the same code in another way.
READER = Path(__file__).read_bytes() + sys.version.encode()


class Import(NamedTuple):
    """`from ..module import names` at level 2, or `import names` where there is no module and the level is 0."""

    level: int
    module: str | None
    names: list[str]


class Source(NamedTuple):
    """A file's statements in one canonical spelling, each schema apart and under its name; what it imports, anywhere in
    it; and the tables that it reads or writes: string arguments of the calls in ACCESS.
    """

    pieces: list[tuple[str | None, str]]
    imports: list[Import]
    words: list[str]

    def schemas(self) -> set[str]:
        """Names of the schemas that the file declares."""
        return {name for name, _ in self.pieces if name is not None}

    def logic(self, schemas: set[str]) -> str:
        """The code, without the schemas that are not in `schemas`."""
        return "\n".join(text for name, text in self.pieces if name is None or name in schemas)


@functools.cache
def source(file: Path) -> Source:
    """What `file` says; nothing where it is no Python, which importing it will tell."""
    content = file.read_bytes()
    key = hashlib.sha256(READER + content).hexdigest()
    kept = Path(cache_from_source(str(file))).with_name(f"{file.name}.source.json")
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        found = json.loads(kept.read_text())
        if found.pop("key") == key:
            imports = [Import(*each) for each in found["imports"]]
            return Source([(name, text) for name, text in found["pieces"]], imports, found["words"])
    read = parsed(content)
    if not sys.dont_write_bytecode:
        with suppress(OSError):  # a library that cannot be written to is read each time
            _keep(json.dumps({"key": key, **read._asdict()}), kept, file.stat().st_mode)
    return read


def _keep(text: str, kept: Path, mode: int) -> None:
    """Write `text`, whole or not at all, for those to read who may read the file it is of (`mode`)."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_name(f".{kept.name}.{os.getpid()}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode & 0o666 | 0o200), "w") as opened:
            opened.write(text)
        partial.replace(kept)
    finally:
        partial.unlink(missing_ok=True)


def parsed(content: bytes) -> Source:
    """What Python code of these bytes says."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return Source([], [], [])
    imports, words = [], set()
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and node.body and _is_docstring(node.body[0]):
            node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.Import):
            imports.append(Import(0, None, [alias.name for alias in node.names]))
        elif isinstance(node, ast.ImportFrom):
            imports.append(Import(node.level, node.module, [alias.name for alias in node.names]))
        elif isinstance(node, ast.Call) and _callee(node) in ACCESS:
            words.update(argument.value for argument in node.args if _is_text(argument))
    return Source([piece for statement in tree.body for piece in _pieces(statement)], imports, sorted(words))


def _is_docstring(first: ast.stmt) -> bool:
    return isinstance(first, ast.Expr) and _is_text(first.value)


def _callee(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _pieces(statement: ast.stmt) -> list[tuple[str | None, str]]:
    if table := _table(statement):
        pairs = zip(table.keys, table.values, strict=True)
        return [(key.value if _is_text(key) else None, ast.unparse(ast.Dict([key], [value]))) for key, value in pairs]
    return [(_entry(statement), ast.unparse(statement))]


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
