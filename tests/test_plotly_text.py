"""Plotly's text on paper: lines that fit, tags that close, fonts that can be read."""

import pytest

from memedynamics.plotly_text import fitted, seen, wrapped


@pytest.mark.parametrize(
    ("text", "letters", "lines"),
    [
        ("one two three", 20, ["one two three"]),
        ("one two three", 8, ["one two", "three"]),
        ("Forward KL(π<sub>0</sub>‖π) on val", 15, ["Forward", "KL(π<sub>0</sub>‖π) on val"]),
        (
            '<span style="color:#f00"><b>one two</b></span> x',
            4,
            ['<span style="color:#f00"><b>one</b></span>', '<span style="color:#f00"><b>two</b></span>', "x"],
        ),
    ],
)
def test_lines(text, letters, lines):
    assert wrapped(text, letters) == lines
    assert all(len(seen(line)) <= letters or " " not in seen(line) for line in lines)


def test_the_key_breaks_between_its_entries_alone():
    key = "SFT&nbsp;&nbsp; DPO&nbsp;&nbsp; ● seed 1&nbsp;&nbsp; ◇ seed 2"
    assert wrapped(key, 16, between="&nbsp;&nbsp; ") == ["SFT&nbsp;&nbsp; DPO", "● seed 1", "◇ seed 2"]


def test_what_is_seen():
    assert seen("<b>a</b>&nbsp;&lt;x") == "a··x"


def test_fonts_are_neither_too_small_nor_too_large():
    drawing = {"layout": {"font": {"size": 5}, "xaxis": {"tickfont": {"size": 30}, "title": {"font": {"size": 9}}}}}
    drawing["data"] = [{"marker": {"size": 4}, "textfont": {"size": 1}}]
    made = fitted(drawing, 8, 12)
    assert made["layout"] == {"font": {"size": 8}, "xaxis": {"tickfont": {"size": 12}, "title": {"font": {"size": 9}}}}
    assert made["data"] == [{"marker": {"size": 4}, "textfont": {"size": 8}}]
