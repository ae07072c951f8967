"""A figure taken apart: every trace and text in its own panel, numbers short, what is no panel shown whole."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from memedynamics import drawings, figures, marked_text
from memedynamics.marked_text import Mark, Piece


@pytest.fixture
def drawing(tmp_path):
    """Two narrow panels above a wide one of twice their height, and a table."""
    specs = [[{}, {}], [{"colspan": 2}, None], [{"type": "table", "colspan": 2}, None]]
    figure = make_subplots(rows=3, cols=2, specs=specs, row_heights=[1, 2, 1], vertical_spacing=0.1)
    for letter, row, col in ("a", 1, 1), ("b", 1, 2), ("c", 2, 1):
        y = np.array([1 / 3, np.nan]) if letter == "a" else [1 / 3, None]
        figure.add_scatter(x=[0, 1], y=y, name=letter, row=row, col=col)
        figure.add_annotation(
            text=f"<b>{letter}</b>&nbsp; π<sub>0</sub>", xref="x domain", yref="y domain", x=0, y=1,
            name=figures.PANEL_TITLE, row=row, col=col,
        )  # fmt: skip
    figure.add_annotation(text="SFT", name="sft", x=1, y=1, row=2, col=1)
    figure.add_hline(y=0, row=1, col=2)
    figure.add_table(cells={"values": [["x"]]}, row=3, col=1)
    key = '<span style="color:#0072B2"><b>SFT</b></span>&nbsp;&nbsp; ● seed 1&nbsp;&nbsp; ◇ seed 2'
    for name, text in {
        figures.HEADING: "<b>T</b>",
        figures.KEY: key,
        figures.NOTE: "a<br>b &lt;b&gt; <sub>c</sub>",
    }.items():
        figure.add_annotation(name=name, text=text, xref="paper", yref="paper", x=0, y=1)
    figure.update_layout(height=850, margin={"t": 100, "b": 150}, template="none")
    figure.write_json(tmp_path / "figure.json")
    return drawings.read(tmp_path / "figure.json")


def test_every_panel_has_its_own_traces_and_texts_alone(drawing):
    assert [panel.title for panel in drawing.panels] == ["a π0", "b π0", "c π0"]
    assert [[trace["name"] for trace in panel.data] for panel in drawing.panels] == [["a"], ["b"], ["c"]]
    for panel in drawing.panels:
        assert all((trace["xaxis"], trace["yaxis"]) == ("x", "y") for trace in panel.data)
        assert {note["xref"].split()[0] for note in panel.layout["annotations"]} == {"x"}
        assert panel.layout["xaxis"]["domain"] == [0, 1] and panel.layout["xaxis"]["anchor"] == "y"
    assert [len(panel.layout["shapes"]) for panel in drawing.panels] == [0, 1, 0]
    assert [note.get("name") for note in drawing.panels[2].layout["annotations"]] == [None, "sft"]


def test_panels_share_their_row_and_keep_their_height(drawing):
    """600 px lie between the margins, of which 0.8 are panels: (1, 2, 1)/4 of that."""
    assert [panel.share for panel in drawing.panels] == pytest.approx([0.5, 0.5, 1.0])
    around = drawings.TOP + drawings.BOTTOM
    assert [panel.layout["height"] - around for panel in drawing.panels] == [120, 120, 240]


def test_numbers_are_short_and_none_is_not_json(drawing):
    """NumPy's arrays come packed, lists do not: both are lists on the page."""
    assert [panel.data[0]["y"] for panel in drawing.panels] == [[0.33333, None]] * 3
    json.dumps(drawing.packed(), allow_nan=False)


def test_key_and_note_are_texts(drawing):
    assert drawing.key == [Mark("#0072B2", "SFT"), Mark("", "● seed 1"), Mark("", "◇ seed 2")]
    assert "".join(piece.text for piece in drawing.note) == "a b <b> c"
    assert drawing.note[-1] == Piece("sub", "c")


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;b&gt;"])
def test_tags_that_figures_do_not_use_stay_text(evil):
    (piece,) = marked_text.pieces(evil)
    assert piece.tag == "" and piece.text == evil.replace("&lt;", "<").replace("&gt;", ">")


def test_a_figure_without_axes_or_with_axes_upon_each_other_is_shown_whole(tmp_path):
    pie = go.Figure(go.Pie(values=[1, 2]))
    two = go.Figure([go.Scatter(y=[1]), go.Scatter(y=[2], yaxis="y2")], {"yaxis2": {"overlaying": "y"}, "xaxis": {}})
    for figure in (pie, two):
        figure.write_json(tmp_path / "figure.json")
        (panel,) = drawings.read(tmp_path / "figure.json").panels
        assert panel.share == 1 and len(panel.data) == len(figure.data) and "automargin" not in str(panel.layout)


def test_what_the_filters_compare_is_not_rounded(tmp_path):
    figure = go.Figure(go.Scatter(x=[1 / 3], y=[1 / 3], customdata=[("memes", "val", 1 / 3), (None, None, 1 / 256)]))
    figure.write_json(tmp_path / "figure.json")
    (trace,) = drawings.read(tmp_path / "figure.json").panels[0].data
    assert trace["customdata"] == [["memes", "val", 1 / 3], [None, None, 1 / 256]] and trace["y"] == [0.33333]
