"""Rows of a training under way: cut ones, repeated ones, and a disk that takes none."""

import json

import pytest

from memedynamics import live


def test_rows_are_what_was_noted(tmp_path):
    live.note(tmp_path, 1, 4, {"loss": 0.5, "learning_rate": 1e-3, "text": "not a number"})
    live.note(tmp_path, 2, 4, {"loss": float("nan")})
    live.note(tmp_path, 2, 4, {"train_runtime": 3.0})  # the summary at the end has the last step's number
    first, second = live.rows(tmp_path / live.FILE)
    assert {**first, "at": 0} == {"step": 1, "max_steps": 4, "at": 0, "loss": 0.5, "learning_rate": 1e-3}
    assert str(second["loss"]) == "nan" and second["train_runtime"] == 3 and second["at"] >= first["at"]


def test_a_cut_row_is_left_out_and_spoils_no_other(tmp_path):
    for step in (1, 2, 3):
        live.note(tmp_path, step, 9, {"loss": step})
    file = tmp_path / live.FILE
    file.write_text(file.read_text()[:-20])
    assert [row["step"] for row in live.rows(file)] == [1, 2]
    live.begin(tmp_path)
    live.note(tmp_path, 3, 9, {"loss": 30})
    assert [row["loss"] for row in live.rows(file)] == [1, 2, 30]


def test_a_resumed_run_takes_the_place_of_what_it_repeats(tmp_path):
    """Killed at step 5, resumed at step 2's checkpoint, now at step 3: steps 4 and 5 are yet to come."""
    for step in (1, 2, 3, 4, 5, 3):
        live.note(tmp_path, step, 9, {"loss": step})
    assert [row["step"] for row in live.rows(tmp_path / live.FILE)] == [1, 2, 3]


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "7", '{"step": "1", "max_steps": 2, "at": 0}', json.dumps({"step": 1})]
)
def test_other_lines_are_passed_over(line, tmp_path):
    (tmp_path / live.FILE).write_text(line + "\n")
    assert live.rows(tmp_path / live.FILE) == []


def test_a_training_goes_on_where_nothing_can_be_noted(tmp_path):
    live.note(tmp_path / "not there", 1, 2, {"loss": 1})
    (tmp_path / live.FILE).mkdir()
    live.begin(tmp_path)
    live.note(tmp_path, 1, 2, {"loss": 1})
    assert [path.name for path in tmp_path.iterdir()] == [live.FILE]
