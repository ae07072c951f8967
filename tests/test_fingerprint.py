"""The fingerprint follows logic and nothing else."""

import shutil
from pathlib import Path

import pytest

from memedynamics import fingerprint as module
from memedynamics import syntax
from memedynamics.fingerprint import _reached, fingerprint, user_files

HERE = Path(__file__).resolve().parents[1]


@pytest.fixture
def tree(tmp_path):
    """A small library: script -> a -> b, and c, which nothing imports."""
    library = tmp_path / "memedynamics"
    library.mkdir()
    (library / "__init__.py").write_text('"""Package."""\n')
    (library / "a.py").write_text("from memedynamics import b, tables\n\ndef f(x):\n    return b.g(x)\n")
    (library / "b.py").write_text('def g(x):\n    """Double."""\n    return 2 * x\n')
    (library / "c.py").write_text("def h(x):\n    return x\n")
    (library / "tables.py").write_text("from memedynamics.schemas import SCHEMAS\n")
    (library / "schemas.py").write_text('SCHEMAS: dict = {"kl": 1, "accuracy": 2}\nSCHEMAS["late"] = 3\n')
    script = tmp_path / "script.py"
    script.write_text('from memedynamics.a import f\nfrom memedynamics import tables\ntables.read(f(1), "kl")\n')
    return library, script


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def fresh(tree):
    """The fingerprint in a new process, so to speak: without the caches of this one."""
    for cached in (syntax.source, module._imports, module._files):
        cached.cache_clear()
    return fingerprint(tree[1], tree[0])


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("b.py", "return 2 * x", "return 2 * x  # twice"),
        ("b.py", '"""Double."""', '"""Twice as much."""'),
        ("b.py", "return 2 * x", "return (2*x)"),
        ("c.py", "return x", "return x + 1"),
        ("schemas.py", '"accuracy": 2', '"accuracy": 5'),
        ("schemas.py", '"accuracy": 2', '"accuracy": 2, "new": 7'),
        ("schemas.py", '["late"] = 3', '["late"] = 4'),
    ],
)
def test_what_does_not_count(tree, file, old, new):
    before = fresh(tree)
    change(tree[0] / file, old, new)
    assert fresh(tree) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("b.py", "2 * x", "3 * x"),
        ("a.py", "b.g(x)", "b.g(x + 1)"),
        ("schemas.py", '"kl": 1', '"kl": 9'),
        ("__init__.py", '"""Package."""', "SEED = 1"),
    ],
)
def test_what_counts(tree, file, old, new):
    before = fresh(tree)
    change(tree[0] / file, old, new)
    assert fresh(tree) != before


def test_touch_and_copy_do_not_count(tree, tmp_path):
    before = fresh(tree)
    (tree[0] / "b.py").touch()
    assert fresh(tree) == before
    shutil.copytree(tree[0], tmp_path / "copy" / "memedynamics")
    shutil.copy(tree[1], tmp_path / "copy" / "script.py")
    assert fresh((tmp_path / "copy" / "memedynamics", tmp_path / "copy" / "script.py")) == before


def test_relative_import_and_import_inside_a_function_are_followed(tree):
    (tree[0] / "a.py").write_text(
        "from . import b\n\ndef f(x):\n    from memedynamics.c import h\n    return h(b.g(x))\n"
    )
    before = fresh(tree)
    change(tree[0] / "c.py", "return x", "return -x")
    middle = fresh(tree)
    change(tree[0] / "b.py", "2 * x", "4 * x")
    assert len({before, middle, fresh(tree)}) == 3


def test_own_rewards_count_only_where_responses_are_graded(tree, tmp_path):
    own = tmp_path / "my_rewards.py"
    own.write_text("def brevity(completions, **columns):\n    return [0.0 for _ in completions]\n")
    assert user_files({"format": 0.1, "my_rewards.brevity": 0.5}, tmp_path) == [own]
    assert fingerprint(tree[1], tree[0], rewards=[own]) == fresh(tree)
    (tree[0] / "rewards.py").write_text("def grade(x):\n    return x\n")
    change(tree[0] / "a.py", "import b, tables", "import b, rewards, tables")
    without = fresh(tree)
    assert fingerprint(tree[1], tree[0], rewards=[own]) != without


def test_own_rewards_in_packages_and_what_they_import(tmp_path):
    files = {
        "mine/__init__.py": "from . import sub\n",
        "mine/sub.py": "from .deep.scale import by\nimport json, helper\n",
        "mine/deep/__init__.py": "",
        "mine/deep/scale.py": "from ..other import f\n",
        "mine/other.py": "",
        "mine/unused.py": "",
        "helper.py": "def g():\n    import further\n",
        "further.py": "import helper\n",
        "broken.py": "def f(:\n",
        "__init__.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    held = sorted(tmp_path / name for name in files if name not in ("mine/unused.py", "broken.py", "__init__.py"))
    assert user_files(["mine.f"], tmp_path) == user_files(["format", "mine.sub.f"], tmp_path) == held
    assert user_files(["broken.f", "absent.f", "numpy.linalg.norm"], tmp_path) == [tmp_path / "broken.py"]
    package = Path(shutil.copytree(tmp_path / "mine", tmp_path / "copy/mine"))
    (package / "sub.py").unlink()
    assert user_files(["mine.sub.f"], tmp_path / "copy") == [package / "__init__.py"]


def test_a_broken_reward_is_left_to_the_job_that_imports_it(tree, tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tree[0] / "rewards.py").write_text("from memedynamics import b\n")
    change(tree[0] / "a.py", "import b, tables", "import b, rewards, tables")
    broken = fingerprint(tree[1], tree[0], rewards=user_files(["broken.f"], tmp_path))
    (tmp_path / "broken.py").write_text("def f():\n    return 1\n")
    fresh(tree)
    assert fingerprint(tree[1], tree[0], rewards=user_files(["broken.f"], tmp_path)) != broken


def test_every_table_is_named_by_a_literal():
    """The fingerprint finds the schemas a script uses by the literal names in these calls."""
    import ast

    from memedynamics.syntax import ACCESS

    table_calls = {"tables": 0, "gather": 0}
    # What shows any analysis by its name: its table is made anew where its schema changes, and they follow it.
    shows = ("report_index.py", "report_tables.py", "paper_text.py")
    for file in [*(HERE / "workflow/scripts").glob("*.py"), *(HERE / "workflow/memedynamics").rglob("*.py")]:
        if file.name in ("tables.py", "parts.py", "gather.py", *shows):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            if (
                isinstance(called, ast.Attribute)
                and called.attr in ACCESS
                and getattr(called.value, "id", "") in ("tables", "gather")
            ):
                table_calls[called.value.id] += 1
                named = [a for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                assert named, f"{file}:{node.lineno}"
    assert table_calls["tables"] > 5 and table_calls["gather"] > 2


REDUCTIONS = {"gather", "curves", "stats", "figures", "panels", "summary"}
PAIRING = {"preferences", "probe_pairs", "score_plan"}
LOADS = ("sample_policy", "score", "extract_attention", "extract_gradients", "extract_sharpe", "extract_spectrum")


@pytest.mark.parametrize("name", LOADS)
def test_what_loads_a_model_does_not_depend_on_what_reduces_it(name):
    """Only scores (CHES) and gradients (DPO's) rest on which samples make a pair."""
    found = _reached(HERE / f"workflow/scripts/{name}.py", HERE / "workflow/memedynamics")
    reached = {file.stem for file in found}
    assert {"policies", "deltas"} & reached
    assert not reached & REDUCTIONS
    assert name in ("score", "extract_gradients") or not reached & PAIRING
