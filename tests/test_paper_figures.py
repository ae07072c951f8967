"""The paper's figures: whole ones that fit a page, and every panel alone with its own traces, shapes and words."""

import json

import plotly.graph_objects as go
import polars as pl
import pytest
from plotly.subplots import make_subplots

from memedynamics import figures, panels, paper_panels
from memedynamics.paper_figures import BELOW, SMALLEST, TALLEST, TOP, prints, whole
from memedynamics.paper_panels import COLUMN, TEXT

ROWS = [
    {"method": m, "seed": s, "fraction": 1.0, "step": 1, "dataset": "d", "split": "val", "statistic": "x",
     "value": v, "ci_low": v - 1, "ci_high": v + 1, "n": 9, "unit": "1"}
    for m, s, v in (("sft", 1, 1.0), ("sft", 2, 2.0), ("a-very-long-name-of-a-method", 1, 3.0))
]  # fmt: skip


def drawing(rows=1):
    """Two panels beside each other, the second with a line at 0, and wide ones below them."""
    specs = [[{}, {}], *[[{"colspan": 2}, None]] * rows]
    figure = make_subplots(rows=rows + 1, cols=2, specs=specs, vertical_spacing=0.3 / (rows + 1))
    frame = pl.DataFrame(ROWS)
    panels.title(figure, 1, 1, "a", "Left &lt;x&gt;")
    panels.curves(figure, 1, 1, frame, "unit", 0.0)
    panels.title(figure, 1, 2, "b", "Right, with a title that is far too long for a column of a paper")
    panels.by_method(figure, 1, 2, frame, "unit")
    figure.add_hline(y=0, row=1, col=2)
    for row in range(2, rows + 2):
        panels.title(figure, row, 1, chr(ord("a") + row), "Wide")
        panels.groups(figure, row, 1, frame.with_columns(kind=pl.lit("k")), "kind", [("k", "k<br>k")], "unit")
    done = figures.finish(figure, frame, "A figure", "A note<br>of two lines.", rows + 1)
    return json.loads(done.to_json())


def fonts(part):
    """All font sizes of a drawing."""
    if isinstance(part, list):
        return [size for each in part for size in fonts(each)]
    if not isinstance(part, dict):
        return []
    own = [v["size"] for k, v in part.items() if k.endswith("font") and isinstance(v, dict) and "size" in v]
    return own + [size for each in part.values() for size in fonts(each)]


def test_panels_are_split_by_their_axes():
    found = list(paper_panels.panels(drawing()))
    assert [(p.letter, p.width) for p in found] == [("a", COLUMN), ("b", COLUMN), ("c", TEXT)]
    assert sum(len(p.drawing["data"]) for p in found) == len(drawing()["data"])
    for panel in found:
        assert {(trace["xaxis"], trace["yaxis"]) for trace in panel.drawing["data"]} == {("x", "y")}
        go.Figure(panel.drawing)  # every reference is to an axis that is there
        assert panel.drawing["layout"]["xaxis"]["domain"] == panel.drawing["layout"]["yaxis"]["domain"] == [0, 1]
        assert panel.drawing["layout"]["width"] == round(96 * panel.width)
    left, right, _ = (panel.drawing["layout"] for panel in found)
    assert left["xaxis"]["title"]["text"] == "fraction of training" and "shapes" in right
    assert [shape["yref"] for shape in right["shapes"]] == ["y"] and not left["shapes"]
    assert {note["name"] for note in left["annotations"] if "name" in note} == {row["method"] for row in ROWS}


def test_a_panel_says_whose_colours_it_has_and_keeps_its_title_but_not_its_letter():
    left, right, _ = (panel.drawing["layout"]["title"]["text"] for panel in paper_panels.panels(drawing()))
    assert left.endswith("<b>Left &lt;x&gt;</b>") and "SFT" in left and "seed 2" in left
    assert "<b>a</b>" not in left and "A figure" not in left and "A note" not in left
    title = [line for line in right.split("<br>") if "span" not in line]
    assert len(title) == 2 and max(map(len, title)) < 52


def test_fonts_of_panels_are_seven_to_nine_points():
    for panel in paper_panels.panels(drawing()):
        found = fonts(panel.drawing)
        assert min(found) * 0.75 >= 7 and max(found) * 0.75 <= 9
        assert panel.drawing["layout"]["template"]["layout"]["font"]["family"] == figures.FONT


def test_many_labels_slant_and_get_the_room_they_take():
    made = drawing()
    axis, height = made["layout"]["xaxis2"], list(paper_panels.panels(made))[1].drawing["layout"]["height"]
    axis |= {"tickvals": list(range(9)), "ticktext": [f"label<br>number {i}" for i in range(9)]}
    layout = list(paper_panels.panels(made))[1].drawing["layout"]
    assert layout["xaxis"]["tickangle"] == paper_panels.SLANT and layout["xaxis"]["ticktext"][0] == "label number 0"
    assert layout["height"] > height + 30


def test_a_long_title_of_the_y_axis_fits_its_plot():
    made = drawing()
    made["layout"]["yaxis2"]["title"]["text"] = "(SR train − SR val) − base’s"
    title = list(paper_panels.panels(made))[1].drawing["layout"]["yaxis"]["title"]
    assert paper_panels.SMALLEST <= title["font"]["size"] < paper_panels.LARGEST and "<br>" not in title["text"]
    made["layout"]["yaxis2"]["title"]["text"] *= 3
    assert "<br>" in list(paper_panels.panels(made))[1].drawing["layout"]["yaxis"]["title"]["text"]


def test_a_panel_over_several_rows_keeps_its_height():
    figure = make_subplots(rows=2, cols=2, specs=[[{"rowspan": 2}, {}], [None, {}]])
    for row, col in ((1, 1), (1, 2), (2, 2)):
        figure.add_scatter(x=[1], y=[1], row=row, col=col)
    made = json.loads(figures.finish(figure, pl.DataFrame(ROWS), "T", "N", 2).to_json())
    heights = [panel.drawing["layout"]["height"] for panel in paper_panels.panels(made)]
    assert heights[0] > 1.8 * heights[1] == 1.8 * heights[2]


def test_a_whole_figure_leaves_title_and_note_to_the_caption():
    made = whole(drawing())
    words = [note["text"] for note in made["layout"]["annotations"]]
    assert "<b>a</b>&nbsp; Left &lt;x&gt;" in words and any("SFT" in text for text in words)
    assert not any("A figure" in text or "A note" in text for text in words)
    assert min(fonts(made)) >= SMALLEST and SMALLEST * 72 * TEXT / figures.WIDTH > 5


@pytest.mark.parametrize("rows", [1, 8])
def test_a_whole_figure_fits_a_page_and_keeps_the_room_between_its_panels(rows):
    given, made = drawing(rows), whole(drawing(rows))
    assert made["layout"]["height"] <= TALLEST * made["layout"]["width"] / TEXT + 1e-6

    def room(found, margins):
        plot, axes = found["layout"]["height"] - margins, [f"yaxis{n}" for n in ("", *range(3, rows + 3))]
        domains = [found["layout"][name]["domain"] for name in axes]
        return [plot * (a[0] - b[1]) for a, b in zip(domains, domains[1:], strict=False)]

    margin = given["layout"]["margin"]
    assert room(made, TOP + BELOW) == pytest.approx(room(given, margin["t"] + margin["b"]))
    assert made["layout"]["yaxis"]["domain"][1] == pytest.approx(1)


def test_a_table_is_typeset_and_its_room_goes():
    figure = make_subplots(rows=2, cols=1, specs=[[{}], [{"type": "table"}]])
    figure.add_scatter(x=[1], y=[1], row=1, col=1)
    figure.add_table(cells={"values": [["x"]]}, row=2, col=1)
    made = whole(json.loads(figures.finish(figure, pl.DataFrame(ROWS), "T", "N", 2).to_json()))
    assert [trace["type"] for trace in made["data"]] == ["scatter"]
    assert made["layout"]["yaxis"]["domain"] == pytest.approx([0, 1])


def test_a_panel_without_a_title_is_lettered_by_its_place():
    figure = go.Figure().set_subplots(1, 2)
    figure.add_scatter(x=[1], y=[1], row=1, col=2)
    figure.add_scatter(x=[1], y=[1], row=1, col=1)
    made = json.loads(figures.finish(figure, pl.DataFrame(ROWS), "T", "N", 1).to_json())
    assert [panel.letter for panel in paper_panels.panels(made)] == ["a", "b"]


def test_what_is_printed(tmp_path):
    found = prints({"kl": drawing()}, tmp_path)
    names = [each.path.relative_to(tmp_path).as_posix() for each in found]
    assert names == ["kl", *(f"panels/kl_{letter}" for letter in "abc")]
