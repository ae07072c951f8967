"""vLLM's API as its wheel declares it, read without importing it: what may be called, and with what.

vLLM cannot be imported beside the pinned environment (it wants another NumPy, and a GPU build of everything), while a
call with an argument that it does not have fails wherever it runs. So its Python files are parsed where they lie.
"""

import ast
import inspect
import os
import subprocess
import sys
import zipfile
from functools import cached_property
from pathlib import Path

import pytest

VERSION = "0.30.0"
# Beside the other environments, out of git: 315 MB, downloaded once.
WHEELS = Path(__file__).parents[1] / ".environments"


def wheel() -> Path:
    """The wheel of vLLM, downloaded where it is not there yet; skips the test where that fails, unless in CI."""
    if not (found := list(WHEELS.glob(f"vllm-{VERSION}-*.whl"))):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--dest", WHEELS, f"vllm=={VERSION}"], capture_output=True, text=True)
        if done.returncode:
            assert not os.environ.get("CI"), done.stderr[-2000:]
            pytest.skip(f"vllm {VERSION} cannot be downloaded")
        found = list(WHEELS.glob(f"vllm-{VERSION}-*.whl"))
    return found[0]


class Source:
    """The classes of one file of the wheel."""

    def __init__(self, wheel: Path, file: str) -> None:
        self.wheel, self.file = wheel, file

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        """The file's classes by name."""
        with zipfile.ZipFile(self.wheel) as archive:
            tree = ast.parse(archive.read(f"vllm/{self.file}"))
        return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def fields(self, name: str) -> dict[str, bool]:
        """The annotated fields of a class in order: whether each has a default."""
        body = self.classes[name].body
        return {node.target.id: node.value is not None for node in body if isinstance(node, ast.AnnAssign)}

    def made_by(self, name: str) -> inspect.Signature:
        """How a class without `__init__` is called: its fields, in order."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        missing = inspect.Parameter.empty
        return inspect.Signature(
            [
                inspect.Parameter(field, kind, default=None if default else missing)
                for field, default in self.fields(name).items()
            ]
        )

    def method(self, name: str, method: str) -> inspect.Signature:
        """The signature of a method, `self` left out."""
        defined = [node for node in self.classes[name].body if isinstance(node, ast.FunctionDef)]
        given = next(node for node in defined if node.name == method).args
        kinds = inspect.Parameter
        plain = [*given.posonlyargs, *given.args][1:]
        without = len(plain) - len(given.defaults)
        found = [
            kinds(arg.arg, kinds.POSITIONAL_OR_KEYWORD, default=kinds.empty if n < without else None)
            for n, arg in enumerate(plain)
        ]
        found += [
            kinds(arg.arg, kinds.KEYWORD_ONLY, default=kinds.empty if default is None else None)
            for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
        ]
        return inspect.Signature([*found, *([kinds(given.kwarg.arg, kinds.VAR_KEYWORD)] if given.kwarg else [])])
