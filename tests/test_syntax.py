"""What a file says is kept beside it, and counts for the bytes it was read from alone."""

import json
import shutil
from pathlib import Path

import pytest

from memedynamics import syntax
from memedynamics.fingerprint import fingerprint
from memedynamics.syntax import Import, source

CODE = '''"""A module."""
import json, os.path
from ..up import one as two

SCHEMAS: dict = {"kl": 1}
SCHEMAS["late"] = 2


def f(path):
    """What it does."""
    from memedynamics import tables

    return tables.read(path, "kl")  # a table
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    (tmp_path / "module.py").write_text(CODE)
    return tmp_path / "module.py"


def again(file):
    """What it says to another process."""
    source.cache_clear()
    return source(file)


def kept(file):
    return file.parent / "__pycache__/module.py.source.json"


def test_all_scripts_have_one_fingerprint_read_anew_and_from_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    whole = Path(syntax.__file__).parents[1]
    copy = Path(shutil.copytree(whole, tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__", "web")))
    parsed = syntax.parsed

    def digests(folder):
        source.cache_clear()
        return [fingerprint(script, folder / "memedynamics") for script in sorted(folder.glob("scripts/*.py"))]

    anew = digests(copy)
    monkeypatch.setattr(syntax, "parsed", lambda content: pytest.fail("read anew"))
    assert digests(copy) == anew and len(set(anew)) == len(anew) > 50
    monkeypatch.setattr(syntax, "parsed", parsed)
    monkeypatch.setattr(syntax, "READER", b"another")
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    assert digests(copy) == anew


def test_what_it_says(file):
    said = source(file)
    assert said.imports == [
        Import(0, None, ["json", "os.path"]),
        Import(2, "up", ["one"]),
        Import(0, "memedynamics", ["tables"]),
    ]
    assert (said.words, said.schemas()) == (["kl"], {"kl", "late"})
    code = "def f(path):\n    from memedynamics import tables\n    return tables.read(path, 'kl')"
    assert said.logic({"kl"}).endswith("\n{'kl': 1}\n" + code)
    assert "late" in said.logic({"late"}) and "'kl': 1" not in said.logic({"late"})


def test_it_is_read_once(file, monkeypatch):
    said = source(file)
    monkeypatch.setattr(syntax, "parsed", lambda content: pytest.fail("read anew"))
    assert again(file) == said


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"key": 3}', "null"])
def test_what_is_kept_may_be_damaged(file, damage):
    said = source(file)
    kept(file).write_text(damage)
    assert again(file) == said
    assert json.loads(kept(file).read_text())["words"] == ["kl"]


def test_other_bytes_and_another_reader_are_read_anew(file, monkeypatch):
    source(file)
    file.write_text(CODE.replace('path, "kl"', 'path, "accuracy"'))
    assert again(file).words == ["accuracy"]
    monkeypatch.setattr(syntax, "READER", b"another")
    monkeypatch.setattr(syntax, "parsed", lambda content: syntax.Source([], [], ["by another"]))
    assert again(file).words == ["by another"]


def test_a_folder_that_cannot_be_written_to(file):
    (file.parent / "__pycache__").write_text("a file where the folder would be")
    assert source(file).words == ["kl"]


def test_who_may_not_read_the_file_may_not_read_what_is_kept(file):
    file.chmod(0o600)
    source(file)
    assert kept(file).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in kept(file).parent.iterdir()] == [kept(file).name]


def test_a_schema_whose_name_is_no_text_always_counts(file):
    file.write_text('SCHEMAS: dict = {b"x": 1, NAME: 2, "kl": 3}\n')
    assert source(file).logic(set()) == "{b'x': 1}\n{NAME: 2}"
    assert again(file) == source(file) and source(file).schemas() == {"kl"}


def test_where_python_keeps_nothing_neither_does_it(file, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    source(file)
    assert not kept(file).exists()
