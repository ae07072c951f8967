"""Figures: every run with its interval, nothing fetched from a network, equal bytes from equal tables."""

import json

import plotly.graph_objects as go
import polars as pl
import pytest
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from analysed_study import script, write
from memedynamics import checksums, figures, panels, tables
from memedynamics.errors import InputError
from memedynamics.figure_accuracy import figure_accuracy
from memedynamics.figure_kl import figure_kl
from synthetic import FRACTIONS, METHODS, SEEDS

DRAW = {"accuracy": figure_accuracy, "kl": figure_kl}
RUNS = [(method, seed) for method in METHODS for seed in SEEDS]
LOOKS = {(figures.COLOURS[m], figures.MARKERS[i]): (m, s) for m in METHODS for i, s in enumerate(SEEDS)}


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    return write(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="session")
def frames(study):
    return {name: tables.read(study / f"analyses/{name}.parquet", name) for name in DRAW}


@pytest.fixture(scope="session")
def drawn(frames):
    return {name: DRAW[name](frame) for name, frame in frames.items()}


def of_run(figure, run):
    """The traces drawn in the run's colour and marker."""
    return [t for t in figure.data if t.marker.symbol and LOOKS.get((t.marker.color, t.marker.symbol)) == run]


def bars(trace):
    """(value, upper end, lower end) of every point."""
    return [
        (y, y + up, y - down)
        for y, up, down in zip(trace.y, trace.error_y.array, trace.error_y.arrayminus, strict=True)
    ]


def close(one, other):
    return len(one) == len(other) and all(a == pytest.approx(b) for a, b in zip(one, other, strict=True))


def select(frame, scale, **values):
    """(value, ci_high, ci_low) of the rows, along training."""
    for column, value in values.items():
        frame = frame.filter(pl.col(column).is_null() if value is None else pl.col(column) == value)
    later = frame.filter(pl.col("fraction") > 0).sort("fraction")
    return later.select(pl.col("value", "ci_high", "ci_low") * scale).rows()


VAL = {"dataset": "memes", "split": "val"}
ALONE = {"versus": None}
KL = {"statistic": "per_response", "versus": None}
EXACT = {**KL, "estimator": "exact", "span": "all"}
CURVES = {
    "accuracy gained": ("accuracy", 100, {"statistic": "accuracy_difference", "versus": "base", **VAL}),
    "gap": ("accuracy", 100, {"statistic": "probe_accuracy_gap", **ALONE}),
    "forward": ("kl", 1, {**EXACT, "direction": "forward", **VAL}),
    "reverse": ("kl", 1, {**EXACT, "direction": "reverse", **VAL}),
    "decision": ("kl", 1, {**KL, "estimator": "decision", "direction": "forward", **VAL}),
}


@pytest.mark.parametrize("what", CURVES)
@pytest.mark.parametrize("run", RUNS)
def test_a_curve_for_every_run_with_its_intervals(what, run, drawn, frames):
    """Later points and their bars are the table's values and interval ends, in per cent or nat."""
    name, scale, wanted = CURVES[what]
    rows = select(frames[name], scale, method=run[0], seed=run[1], **wanted)
    assert len(rows) == len(FRACTIONS) and all(low < high for _, high, low in rows)
    curves = [trace for trace in of_run(drawn[name], run) if "lines" in trace.mode]
    (curve,) = [trace for trace in curves if close(bars(trace)[-len(rows) :], rows)]
    assert len(curve.x) == len(FRACTIONS) + 1 and list(curve.x) == sorted(curve.x)
    assert curve.line.dash == figures.DASHES[SEEDS.index(run[1])]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (0.0, {"sft": (0, 2, 3), "on": (1, 2, 3), "lost": (2, 3)}),
        (None, {"sft": None, "on": (1, 2, 3), "lost": (2, 3)}),
    ],
)
def test_a_run_is_joined_to_its_own_start(start, expected):
    """sft begins at the base where that has a value; `on` has a start of its own; the start of `lost` is unknown."""
    rows = [("on", 0.0, 1.0)] + [(name, at, y) for name in expected for at, y in ((0.5, 2.0), (1.0, 3.0))]
    common = {"seed": 1, "dataset": "d", "split": "val", "statistic": "x", "n": 9, "unit": "1"}
    frame = pl.DataFrame(rows, ["method", "fraction", "value"], orient="row").with_columns(
        ci_low="value", ci_high="value", **{name: pl.lit(value) for name, value in common.items()}
    )
    figure = make_subplots(rows=1, cols=1)
    panels.curves(figure, 1, 1, frame, "1", start, elsewhere=[("lost", 1)])
    palette = figures.colours(list(expected))
    lines = {t.line.color: tuple(t.y) for t in figure.data if t.mode == "lines+markers"}
    assert lines == {palette[name]: y for name, y in expected.items() if y}


def test_a_method_has_one_colour_in_every_panel():
    """Unknown names are coloured in alphabetical order of the whole figure's, of which a panel may show the last."""
    common = {"seed": 1, "fraction": 1.0, "dataset": "d", "split": "val", "statistic": "x", "n": 9, "unit": "1"}
    frame = pl.DataFrame([{**common, "method": "zeta", "value": 1.0, "ci_low": 0.0, "ci_high": 2.0, "kind": "k"}])
    for draw in (
        lambda figure: panels.curves(figure, 1, 1, frame, "1", 0.0, among=["alpha", "zeta"]),
        lambda figure: panels.groups(figure, 1, 1, frame, "kind", [("k", "k")], "1", among=["alpha", "zeta"]),
    ):
        figure = make_subplots(rows=1, cols=1)
        draw(figure)
        assert figure.data[-1].marker.color == figures.FURTHER[1]


@pytest.mark.parametrize(("count", "longest"), [(2, "rloo-reward-0"), (8, "rloo-re…")])
def test_names_of_many_methods_are_cut_below_a_panel(count: int, longest: str):
    """They stand upright there, and would run into the panel below."""
    common = {"seed": 1, "fraction": 1.0, "dataset": "d", "split": "val", "statistic": "x", "n": 9, "unit": "1"}
    rows = [{**common, "method": f"rloo-reward-{i}", "value": 1.0, "ci_low": 0.0, "ci_high": 2.0} for i in range(count)]
    figure = make_subplots(rows=1, cols=1)
    panels.by_method(figure, 1, 1, pl.DataFrame(rows), "1")
    assert f"<b>{longest}</b>" in figure.layout.xaxis.ticktext[0] and len(figure.layout.xaxis.ticktext) == count


PLACES = [{"dataset": "memes", "split": "test"}, {"dataset": "other", "split": "test"}, VAL]
PROBED = [{"dataset": "memes", "split": "train"}, *PLACES[1:]]
ENDS = {
    "accuracy": ("accuracy", 100, [{"statistic": "accuracy", **ALONE, **place} for place in PLACES]),
    "auroc": ("accuracy", 100, [{"statistic": "auroc", **ALONE, **place} for place in PLACES]),
    "places": ("kl", 1, [{**EXACT, "direction": "forward", **place} for place in PROBED]),
    "spans": (
        "kl",
        1,
        [{**EXACT, "direction": "forward", **VAL, "span": s} for s in ("format", "rationale", "answer", "end")],
    ),
}


@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("run", RUNS)
def test_ends_show_every_run_in_every_place_with_its_bar(what, run, drawn, frames):
    name, scale, places = ENDS[what]
    points = [bars(trace)[0] for trace in of_run(drawn[name], run) if trace.mode == "markers" and trace.y]
    for place in places:
        (row,) = select(frames[name], scale, method=run[0], seed=run[1], fraction=1.0, **place)
        assert any(close(point, row) for point in points), place


def test_the_bases_accuracy_is_drawn_with_its_interval(drawn, frames):
    chosen = (pl.col("method") == "base") & (pl.col("statistic") == "accuracy") & pl.col("versus").is_null()
    base = frames["accuracy"].filter(chosen)
    traces = [t for t in drawn["accuracy"].data if t.mode == "lines"]
    levels = [t.y[0] for t in traces if t.line.color == figures.COLOURS["base"]]
    ends = [(t.y[0], t.y[2]) for t in traces if t.fill == "toself"]
    for place in PLACES:
        row = base.filter((pl.col("dataset") == place["dataset"]) & (pl.col("split") == place["split"]))
        assert any(level == pytest.approx(100 * row["value"].item()) for level in levels)
        assert any(close(end, (100 * row["ci_low"].item(), 100 * row["ci_high"].item())) for end in ends)


@pytest.mark.parametrize("name", DRAW)
def test_two_runs_never_lie_on_each_other(name, drawn):
    """Within a panel every run has x values of its own, but for the start that all share."""
    seen = {}
    for run in RUNS:
        for trace in of_run(drawn[name], run):
            for x in trace.x[1:] if "lines" in trace.mode else trace.x:
                assert seen.setdefault((trace.xaxis, round(x, 6)), run) == run


@pytest.mark.parametrize("name", DRAW)
def test_methods_and_seeds_are_named(name, drawn):
    words = " ".join(note.text for note in drawn[name].layout.annotations)
    assert all(name in words for name in (">SFT<", ">DPO<", ">GRPO<", "seed 1", "seed 2"))


@pytest.mark.parametrize("name", DRAW)
def test_unmatched_methods_close_the_caption(name, frames, drawn):
    """Users' own words act as words; what is long is cut, and what is many is counted."""
    notes = ["methods are not matched: a = '<b>' but b = 1", "x" * 2000, *(f"methods differ in {i}" for i in range(8))]
    figure = DRAW[name](frames[name], notes)
    lines = figure.layout.annotations[-1].text.split("<br>")
    few = lines.index("Methods are not matched: a = '&lt;b&gt;' but b = 1.")
    assert max(map(len, lines[few:])) <= figures.LINE and len(lines[few:]) <= 2 * figures.MANY + 1
    assert lines[-2:] == ["Methods differ in 3.", "And 4 more such differences, which Snakemake lists when it starts."]
    assert figure.layout.height - drawn[name].layout.height == 16 * len(lines[few:])
    assert DRAW[name](frames[name], []).to_json() == drawn[name].to_json()


def test_a_study_s_notes_reach_the_file(study, tmp_path):
    script("figure_kl").main(study / "analyses/kl.parquet", tmp_path / "kl.html", ["methods are not matched: r = 4"])
    assert "Methods are not matched: r = 4." in (tmp_path / "kl.html").read_text()


@pytest.mark.parametrize("name", DRAW)
def test_html_needs_no_network_and_repeats(name, study, tmp_path):
    """plotly.js is inside; what is left names no address and no file. The same table gives the same bytes."""
    files = [tmp_path / "first.html", tmp_path / "second/again.html"]
    for file in files:
        script(f"figure_{name}").main(study / f"analyses/{name}.parquet", file, [])
    text = files[0].read_text()
    assert text.count(get_plotlyjs()) == 1
    rest = text.replace(get_plotlyjs(), "")
    for reference in ("http:", "https:", "src=", "href=", "@import", "url(", "//cdn"):
        assert reference not in rest
    assert files[0].read_bytes() == files[1].read_bytes()
    drawings = [file.with_suffix(".json") for file in files]
    checksums.check_inputs(drawings)
    assert drawings[0].read_bytes() == drawings[1].read_bytes()
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == {*files, *drawings}


def test_the_drawing_says_whose_and_where_its_points_are(study, tmp_path):
    """What the report's filters go by: a run a trace, and dataset, split and fraction a point."""
    script("figure_accuracy").main(study / "analyses/accuracy.parquet", tmp_path / "accuracy.html", [])
    drawing = json.loads((tmp_path / "accuracy.json").read_text())
    told = [trace for trace in drawing["data"] if trace.get("meta")]
    assert {(trace["meta"]["method"], trace["meta"]["seed"]) for trace in told} == set(RUNS)
    assert all(len(trace["customdata"]) == len(trace["x"]) for trace in told)
    assert {tuple(point) for trace in told for point in trace["customdata"]} >= {("memes", "val", f) for f in FRACTIONS}
    named = [note["name"] for note in drawing["layout"]["annotations"] if "name" in note]
    assert set(named) == {*METHODS, figures.HEADING, figures.KEY, figures.NOTE, figures.PANEL_TITLE}
    assert all(named.count(name) == 1 for name in (figures.HEADING, figures.KEY, figures.NOTE))


def test_equal_rows_in_another_order_draw_the_same(frames, drawn):
    for name, frame in frames.items():
        assert DRAW[name](frame.sample(fraction=1, shuffle=True, seed=1)).to_json() == drawn[name].to_json()


def test_colours_of_unknown_methods_do_not_depend_on_order():
    one, other = figures.colours(["mine", "sft", "ablated"]), figures.colours(["ablated", "mine"])
    assert one["mine"] == other["mine"] != one["ablated"]
    assert one["sft"] == figures.COLOURS["sft"]
    assert len(set(one.values())) == len(one)
    assert figures.ordered(["mine", "grpo", "base", "ablated", "sft"]) == ["base", "sft", "grpo", "ablated", "mine"]


def test_names_beside_curves_never_meet():
    """0.50 and 0.51 need 0.07 between them; below a ceiling of 1 − 0.1 / 2 the lower name makes room."""
    assert panels.apart({"dpo": 0.51, "sft": 0.5, "grpo": 0.9}, 0.07, (0, 1)) == pytest.approx(
        {"sft": 0.5, "dpo": 0.57, "grpo": 0.9}
    )
    assert panels.apart({"sft": 0.98, "dpo": 0.99}, 0.1, (0, 1)) == pytest.approx({"sft": 0.85, "dpo": 0.95})


def test_undefined_values_are_left_out():
    frame = pl.DataFrame(
        {
            "method": "sft", "seed": 1, "dataset": "memes", "split": "val", "fraction": [0.5, 1.0],
            "statistic": "accuracy", "value": [0.4, None], "ci_low": [0.3, None], "ci_high": [0.6, None],
            "n": 10, "unit": "1",
        }
    )  # fmt: skip
    figure = go.Figure().set_subplots(1, 1)
    panels.curves(figure, 1, 1, frame, "share", start=0.1)
    (curve,) = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert close(bars(curve)[0], (0.1, 0.1, 0.1)) and close(bars(curve)[1], (0.4, 0.6, 0.3)) and len(curve.y) == 2
    assert "[0.3, 0.6] 1<br>n = 10 prompts" in curve.hovertext[1]


def test_a_missing_table(tmp_path):
    with pytest.raises(InputError, match="no such table"):
        script("figure_kl").main(tmp_path / "kl.parquet", tmp_path / "kl.html", [])
    assert not (tmp_path / "kl.html").exists()
