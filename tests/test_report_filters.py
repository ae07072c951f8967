"""The report's filters act on figures and tables alike, and hide nothing that they do not speak of."""

import json
import shutil

import polars as pl
import pytest

import reported_study
from analysed_study import script
from browser import WIDE, chromium, watched
from memedynamics import meme_runs, report_sections, tables
from test_report_browser import see
from test_spectrum import measured, run

MILESTONES = [0.0, 1 / 256, 1 / 3, 0.5, 1.0]
AT_HALF = {0.5: (0.1, (1.0, 2.0, 3.0)), 1.0: (0.2, (1.0, 2.0, 3.0))}


def settings():
    told = reported_study.settings()
    return told | {
        "milestones": MILESTONES, "methods": told["methods"] | {"theirs": told["methods"]["sft"]},
    }  # fmt: skip


def spectrum():
    """Two methods of two seeds and one from elsewhere, at a milestone of more digits than are drawn."""
    table = measured(*(run(method, seed, AT_HALF) for method in ("sft", "dpo") for seed in (1, 2)), resamples=20)
    end = table.filter(method="sft", seed=1, fraction=1).with_columns(method=pl.lit("theirs"))
    table = pl.concat([table, end.with_columns(seed=pl.lit(0, table.schema["seed"]))], how="vertical_relaxed")
    return table.with_columns(fraction=pl.col("fraction").replace(0.5, 1 / 3))


@pytest.fixture(scope="module")
def page_file(reported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters") / "results/synthetic"
    shutil.copytree(reported.parent, folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(tables.provenance, "study", "synthetic")
        table = folder / "analyses/spectrum.parquet"
        tables.write(spectrum(), table, "spectrum")
        script("figure_spectrum").main(table, folder / "figures/spectrum.html", [])
        theirs = folder / "runs/theirs/seed0/run.json"
        theirs.parent.mkdir(parents=True)
        theirs.write_text(json.dumps({"kind": "adapter"}))
        reported_study.report(folder, settings(), (*reported_study.NAMES, "spectrum"))
    return folder / "report/index.html"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page(browser, page_file):
    """The page, so tall that all panels of a figure are in view and follow the filters at once."""
    with watched(browser, WIDE | {"height": 4000}) as page:
        page.goto(page_file.as_uri())
        for kind in ("figure", "table"):
            see(page, kind, "spectrum")
        yield page


@pytest.fixture
def opened(page):
    """The page at another query, as the browser's buttons go back and forth; it takes seconds to load it anew."""

    def at(query):
        page.evaluate(
            """async (query) => {
                document.querySelector('[data-figure="spectrum"]').scrollIntoView();
                for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
                history.replaceState(null, "", location.pathname + query);
                dispatchEvent(new PopStateEvent("popstate"));
            }""",
            query,
        )
        return page

    return at


def panels(page):
    """Of each panel with points of runs, how many it shows."""
    return page.evaluate(
        """[...document.querySelectorAll('[data-figure="spectrum"] .panel')].map((panel) => panel.data
            .filter((trace) => trace.visible !== false && trace.meta?.method)
            .flatMap((trace) => trace.y).filter((value) => value !== null).length)"""
    )


def left(page, table, column):
    """The values in `column` of all rows that a table shows."""
    return page.evaluate(
        """([table, column]) => {
            const api = new DataTable.Api(`[data-table="${table}"] table`);
            const place = api.columns().titles().toArray().indexOf(column);
            return [...new Set(api.rows({ search: "applied" }).data().toArray().map((row) => row[place]))];
        }""",
        [table, column],
    )


def test_a_dataset_or_split_leaves_what_is_of_weights(opened):
    whole = panels(opened(""))
    assert sum(map(bool, whole)) > 4
    for query in ("?dataset=memes", "?split=val", "?dataset=other&split=test"):
        page = opened(query)
        assert panels(page) == whole
        assert set(left(page, "spectrum", "method")) == {"sft", "dpo", "theirs"}


def test_the_gap_of_train_and_val_stays_with_either(opened):
    for split in ("train", "val"):
        page = opened(f"?split={split}")
        see(page, "table", "accuracy")
        assert set(left(page, "accuracy", "split")) >= {"train-val"} and "test" not in left(page, "accuracy", "split")


def test_a_run_from_elsewhere_stands_beside_every_seed(opened, page_file):
    page = opened("?seed=1&seed=0")
    boxes = page.locator("[name=seed]").evaluate_all("boxes => boxes.map((box) => box.value)")
    assert boxes == ["1", "2"] and page.inner_text("#filters-said") == "seed 1"
    assert set(left(page, "spectrum", "method")) == {"sft", "dpo", "theirs"}
    assert set(left(page, "spectrum", "seed")) == {0, 1}
    assert page.locator("tr[data-method=theirs]:visible").count() == 1
    shown = page.evaluate(
        """[...document.querySelectorAll('[data-figure="spectrum"] .panel')].flatMap((panel) => panel.data)
           .filter((trace) => trace.visible !== false && trace.meta?.method)
           .map(({ meta }) => [meta.method, meta.seed].join())"""
    )
    assert {"theirs,0", "sft,1"} <= set(shown) and "sft,2" not in shown


def test_both_pages_offer_the_same_seeds():
    runs = [("base", None), ("sft", 1), ("sft", 2), ("theirs", 0)]
    frame = pl.DataFrame(runs, ["method", "seed"], orient="row").with_columns(dataset=pl.lit("d"), split=pl.lit("val"))
    study = {"methods": {"theirs": {}, "sft": {}}, "datasets": {"d": {}}, "milestones": [0, 1]}
    of_memes = {each["seed"] for each in meme_runs.described([(*run, 1.0) for run in runs])} - {None}
    assert set(report_sections.filter_values([frame], study)["seed"]) == of_memes == {1, 2}


def test_a_milestone_of_many_digits_can_be_chosen(opened):
    page = opened("")
    whole = panels(page)
    values = page.locator("[name=milestone]").evaluate_all("boxes => boxes.map((box) => box.value)")
    assert values == ["0", "0.00390625", "0.333333", "0.5", "1"]
    page = opened("?milestone=0.333333")
    assert left(page, "spectrum", "fraction") == [1 / 3]
    assert 0 < sum(panels(page)) < sum(whole)
    assert "0.33333" in page.locator('[data-table="spectrum"] tbody tr').first.locator("td").all_inner_texts()
    page = opened("?milestone=0.00390625")
    assert left(page, "spectrum", "fraction") == []


def notes(page):
    """By the letter of each panel what it says of its milestone, empty where the chosen one is shown."""
    found = page.evaluate(
        """[...document.querySelectorAll('[data-figure="spectrum"] .panel')].map((panel) =>
            [panel.ariaLabel, panel.querySelector(".gtitle")?.textContent ?? ""])"""
    )
    return {label.partition(": ")[2][0]: note for label, note in found}


def test_a_panel_of_another_milestone_alone_stays_and_says_so(opened):
    """At equal norm (a, b, h) and at the end (f, g, j) there is one milestone, along training (c, d, e, i) are all."""
    whole = panels(opened(""))
    assert all(whole) and not any(notes(opened("")).values())
    page = opened("?milestone=0.333333")
    said = notes(page)
    assert set(said) >= set("abcdehij") and {letter for letter in said if not said[letter]} == set("cdei")
    assert set(said.values()) == {"", "Of milestone 1 alone, not 0.333333"}
    for note, left, all_of_it in zip(said.values(), panels(page), whole, strict=True):
        assert left == all_of_it if note else 0 < left < all_of_it
    page = opened("?milestone=1")
    assert not any(notes(page).values()) and all(panels(page))
    page = opened("?milestone=0.333333&dataset=other&seed=2")
    assert any(notes(page).values()) and all(panels(page))
