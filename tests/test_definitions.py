"""Definitions: of the project's analyses from `definitions`, of a user's from its script."""

import pytest

from memedynamics import definitions
from memedynamics.definitions import KNOWN, definition


@pytest.mark.parametrize("name", KNOWN)
def test_known_ones_are_whole_sentences(name):
    found = definition(name)
    assert found.question.endswith("?") and found.words.endswith(".") and found.estimator.endswith(".")
    assert found.title and found.unit


def test_a_user_s_own_is_what_its_script_says(tmp_path, monkeypatch):
    monkeypatch.setattr(definitions, "SCRIPTS", tmp_path)
    (tmp_path / "word_length.py").write_text('"""How long <words>\nare.\n\nAnd more."""\n')
    (tmp_path / "bare.py").write_text("x = 1\n")
    found = definition("word_length")
    assert (found.title, found.words, found.question) == ("Word length", "How long <words> are.", "")
    assert "its script has no docstring" in definition("bare").words
    assert "its script has no docstring" in definition("gone").words
