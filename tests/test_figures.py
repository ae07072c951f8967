"""Figures: every run with its interval, nothing fetched from a network, equal bytes from equal tables."""

import os
import shutil

import plotly.graph_objects as go
import polars as pl
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs

from analysed_study import script, write
from memedynamics import figures, tables
from memedynamics.errors import InputError
from memedynamics.figure_accuracy import figure_accuracy
from memedynamics.figure_kl import figure_kl
from synthetic import FRACTIONS, METHODS, SEEDS

DRAW = {"accuracy": figure_accuracy, "kl": figure_kl}
RUNS = {(method, seed) for method in METHODS for seed in SEEDS}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    return write(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="session")
def frames(study):
    return {name: tables.read(study / f"analyses/{name}.parquet", name) for name in DRAW}


@pytest.fixture(scope="session")
def drawn(frames):
    return {name: DRAW[name](frame) for name, frame in frames.items()}


def panel(figure, row, col):
    """Curves of a panel by (colour, dash), points by (colour, marker), bands by their colour."""
    curves, points, bands = {}, {}, []
    for trace in figure.select_traces(row=row, col=col):
        if trace.fill == "toself":
            bands.append(trace)
        elif trace.mode == "lines+markers":
            curves[trace.line.color, trace.line.dash] = trace
        elif trace.mode == "markers":
            points.setdefault((trace.marker.color, trace.marker.symbol), []).append(trace)
    return curves, points, bands


LOOKS = {(figures.COLOURS[m], figures.DASHES[i]): (m, s) for m in METHODS for i, s in enumerate(SEEDS)}
SHAPES = {(figures.COLOURS[m], figures.MARKERS[i]): (m, s) for m in METHODS for i, s in enumerate(SEEDS)}


def select(frame, **values):
    for column, value in values.items():
        frame = frame.filter(pl.col(column).is_null() if value is None else pl.col(column) == value)
    return frame


VAL = {"dataset": "memes", "split": "val"}
EXACT = {"estimator": "exact", "statistic": "per_response", "span": "all"}
CURVES = {
    ("accuracy", 2, 1): ({"statistic": "accuracy_difference", "versus": "base", **VAL}, 100),
    ("accuracy", 2, 3): ({"statistic": "format_share_difference", "versus": "base", **VAL}, 100),
    ("accuracy", 2, 5): ({"statistic": "probe_accuracy_gap", "versus": None}, 100),
    ("kl", 1, 1): ({**EXACT, "direction": "forward", **VAL}, 1),
    ("kl", 2, 1): ({**EXACT, "direction": "reverse", **VAL}, 1),
    ("kl", 2, 5): ({"estimator": "decision", "statistic": "per_response", "direction": "forward", **VAL}, 1),
}


@pytest.mark.parametrize(("name", "row", "col"), CURVES)
def test_curves_show_every_run_with_its_band(name, row, col, drawn, frames):
    """A curve's later points and its band are the table's values and interval ends, in per cent or nat."""
    wanted, scale = CURVES[name, row, col]
    curves, _, bands = panel(drawn[name], row, col)
    assert {LOOKS[look] for look in curves} == RUNS
    assert len(bands) == len(RUNS)
    for (look, curve), band in zip(curves.items(), bands, strict=True):
        method, seed = LOOKS[look]
        rows = select(frames[name], method=method, seed=seed, **wanted).sort("fraction")
        later = rows.filter(pl.col("fraction") > 0)
        assert later["fraction"].to_list() == list(FRACTIONS)
        assert list(curve.x)[-len(FRACTIONS) :] == list(FRACTIONS) and curve.x[0] == 0
        assert list(curve.y)[-len(FRACTIONS) :] == pytest.approx((scale * later["value"]).to_list())
        n = len(curve.x)
        high, low = list(band.y)[:n], list(band.y)[n:][::-1]
        assert high[-len(FRACTIONS) :] == pytest.approx((scale * later["ci_high"]).to_list())
        assert low[-len(FRACTIONS) :] == pytest.approx((scale * later["ci_low"]).to_list())
        assert all(a <= y <= b for a, y, b in zip(low, curve.y, high, strict=True)) and high[-1] > low[-1]


POINTS = {
    ("accuracy", 1, 1): ({"statistic": "accuracy", "versus": None}, 100, 3),
    ("accuracy", 1, 4): ({"statistic": "auroc", "versus": None}, 100, 3),
    ("kl", 1, 4): ({**EXACT, "direction": "forward"}, 1, 3),
    ("kl", 2, 3): ({**EXACT, "direction": "forward", **VAL}, 1, 4),
}


@pytest.mark.parametrize(("name", "row", "col"), POINTS)
def test_ends_show_every_run_in_every_place_with_its_bar(name, row, col, drawn, frames):
    """Three places (or four spans), every run in each, at the end of training."""
    wanted, scale, places = POINTS[name, row, col]
    _, points, bands = panel(drawn[name], row, col)
    assert {SHAPES[look] for look in points} == RUNS
    if name == "accuracy":
        assert len(bands) == places  # the base's interval
    for look, traces in points.items():
        method, seed = SHAPES[look]
        assert len(traces) == places
        found = [(trace.y[0], trace.error_y.array[0], trace.error_y.arrayminus[0]) for trace in traces]
        assert all(up >= 0 and down >= 0 for _, up, down in found) and any(up > 0 for _, up, _ in found)
        rows = select(frames[name], method=method, seed=seed, fraction=1.0, **wanted)
        if col == 3:  # by span: the parts add up to the whole
            assert sum(value for value, _, _ in found) == pytest.approx(rows["value"].item())
        else:
            kinds = [(v, v + up, v - down) for v, up, down in found]
            ends = rows.select(pl.col("value", "ci_high", "ci_low") * scale).rows()
            for one, other in zip(sorted(kinds), sorted(ends), strict=True):
                assert one == pytest.approx(other)


def test_the_points_of_two_runs_never_lie_on_each_other(drawn):
    for name, row, col in POINTS:
        _, points, _ = panel(drawn[name], row, col)
        at = [trace.x[0] for traces in points.values() for trace in traces]
        assert len(at) == len({round(x, 6) for x in at})


@pytest.mark.parametrize("name", DRAW)
def test_the_key_names_methods_and_seeds(name, drawn):
    shown = [trace.name for trace in drawn[name].data if trace.showlegend is not False]
    base = ["base"] if name == "accuracy" else []
    assert shown == [*base, "SFT", "DPO", "GRPO", "seed 1", "seed 2"]


@pytest.mark.parametrize("name", DRAW)
def test_html_needs_no_network_and_repeats(name, study, tmp_path):
    """plotly.js is inside; what is left names no address and no file. The same table gives the same bytes."""
    files = [tmp_path / "first.html", tmp_path / "second/again.html"]
    for file in files:
        script(f"figure_{name}").main(study / f"analyses/{name}.parquet", file)
    text = files[0].read_text()
    assert text.count(get_plotlyjs()) == 1
    rest = text.replace(get_plotlyjs(), "")
    for reference in ("http:", "https:", "src=", "href=", "@import", "url(", "//cdn"):
        assert reference not in rest
    assert files[0].read_bytes() == files[1].read_bytes()
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["first.html", "again.html"]


def test_equal_rows_in_another_order_draw_the_same(frames, drawn):
    for name, frame in frames.items():
        assert DRAW[name](frame.sample(fraction=1, shuffle=True, seed=1)).to_json() == drawn[name].to_json()


def test_png(drawn, tmp_path):
    if not os.environ.get("CI") and not any(map(shutil.which, BROWSERS)):
        pytest.skip("no Chromium here")
    figures.save(drawn["kl"], tmp_path / "kl.png", "kl")
    with Image.open(tmp_path / "kl.png") as picture:
        size = drawn["kl"].layout.width, drawn["kl"].layout.height
        assert picture.format == "PNG" and picture.size == (2 * size[0], 2 * size[1])
        assert len(picture.convert("RGB").resize((200, 150)).getcolors(30000)) > 20
    assert list(tmp_path.iterdir()) == [tmp_path / "kl.png"]


def test_colours_of_unknown_methods_do_not_depend_on_order():
    one, other = figures.colours(["mine", "sft", "ablated"]), figures.colours(["ablated", "mine"])
    assert one["mine"] == other["mine"] != one["ablated"]
    assert one["sft"] == figures.COLOURS["sft"]
    assert len(set(one.values())) == len(one)
    assert figures.ordered(["mine", "grpo", "base", "ablated", "sft"]) == ["base", "sft", "grpo", "ablated", "mine"]


def test_names_beside_curves_never_meet():
    """Ends 0.50, 0.51 and 0.9 of a panel that spans 1: the second moves to 0.50 + 0.07."""
    figure = go.Figure().set_subplots(1, 1)
    figure.add_scatter(x=[0, 1], y=[0, 1], row=1, col=1)
    figures.label_ends(figure, {"sft": 0.5, "dpo": 0.51, "grpo": 0.9, "mine": None}, 1, 1)
    found = {note.text: note.y for note in figure.layout.annotations}
    assert found == pytest.approx({"<b>SFT</b>": 0.5, "<b>DPO</b>": 0.57, "<b>GRPO</b>": 0.9})


def test_undefined_values_are_left_out():
    frame = pl.DataFrame(
        {
            "method": "sft", "seed": 1, "dataset": "memes", "split": "val", "fraction": [0.5, 1.0],
            "statistic": "accuracy", "value": [0.4, None], "ci_low": [0.3, None], "ci_high": [0.5, None],
            "n": 10, "unit": "1",
        }
    )  # fmt: skip
    figure = go.Figure().set_subplots(1, 1)
    figures.draw_curve(figure, frame, 1, 1, "#0072B2", 0, start=0.1)
    band, curve = figure.data
    assert (list(curve.x), list(curve.y)) == ([0, 0.5], [0.1, 0.4])
    assert list(band.y) == [0.1, 0.5, 0.3, 0.1]
    assert "n = 10 prompts" in curve.hovertext[1]


def test_one_dataset_is_not_named():
    assert figures.place("memes", "val", ["memes", "memes"]) == "val"
    assert figures.place("memes", "val", ["memes", "other"]) == "memes<br>val"


def test_a_missing_table(tmp_path):
    with pytest.raises(InputError, match="no such table"):
        script("figure_kl").main(tmp_path / "kl.parquet", tmp_path / "kl.html")
    assert not (tmp_path / "kl.html").exists()
