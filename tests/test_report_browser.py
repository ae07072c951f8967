"""The report's first page in a browser, from disk and from a server: filters, tables, hostile texts, keyboard."""

import shutil

import pytest

import reported_study
from browser import NARROW, WIDE, chromium, faults, served, watched

MEGABYTES_6 = 6_000_000


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def sites(reported):
    with served(reported) as address:
        yield {"disk": f"file://{reported}/index.html", "server": f"{address}/index.html"}


def see(page, kind, name):
    """Scroll to a figure's panels or to a table, and wait until they are drawn."""
    page.locator(f'[data-{kind}="{name}"]').scroll_into_view_if_needed()
    if kind == "table":
        page.wait_for_selector(f'[data-table="{name}"] tbody td')
        return
    page.wait_for_selector(f'[data-figure="{name}"] .panel')
    for panel in page.locator(f'[data-figure="{name}"] .panel').all():
        panel.scroll_into_view_if_needed()
        panel.locator("svg.main-svg").first.wait_for()


def see_all(page):
    for name in reported_study.NAMES:
        see(page, "figure", name)
        see(page, "table", name)


def methods(page, table):
    """The methods of all rows that a table shows, on whichever of its pages."""
    rows = f"""new DataTable.Api('[data-table="{table}"] table').rows({{ search: "applied" }}).data().toArray()"""
    return set(page.evaluate(f"{rows}.map((row) => row[0])"))


def points(page, figure, colour):
    """How many visible points of one colour the figure has, over all panels."""
    return page.evaluate(
        """([figure, colour]) => [...document.querySelectorAll(`[data-figure="${figure}"] .panel`)].flatMap(
            (panel) => panel.data.filter((trace) => trace.visible !== false && trace.marker?.color === colour)
        ).flatMap((trace) => trace.y).filter((value) => value !== null).length""",
        [figure, colour],
    )


@pytest.fixture(scope="module")
def drawn(sites, browser):
    """The page from disk with everything drawn, which takes a while; who uses it leaves the filters alone."""
    with watched(browser, WIDE) as page:
        page.goto(sites["disk"])
        see_all(page)
        yield page


def is_whole(page, width):
    assert page.title().startswith("Summary")
    assert page.locator(".panel").count() == page.locator(".panel svg.main-svg:first-child").count() > 10
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert faults(page) == []


def test_everything_is_drawn_without_errors_sticks_out_nowhere_and_passes_axe(drawn):
    is_whole(drawn, WIDE["width"])


def test_so_it_is_from_a_server_on_a_narrow_screen(sites, browser):
    with watched(browser, NARROW) as page:
        page.goto(sites["server"])
        see_all(page)
        is_whole(page, NARROW["width"])


def test_the_question_and_the_summary_come_first(drawn):
    assert drawn.locator("h1").inner_text() == "What did SFT, DPO and GRPO each do to this vision-language model?"
    first = drawn.locator("main section").first
    assert first.locator(".said li").first.inner_text().startswith("On val of memes the base’s answers are right in")
    rows = first.locator("table").first.locator("tbody tr")
    assert rows.count() == 6 and "[" in rows.first.inner_text()
    titles = drawn.locator("main section:not(#outcome) h2").all_inner_texts()
    assert titles == ["Summary", "Accuracy", "KL divergence", "Length", "Data", "Provenance"]


@pytest.mark.parametrize("where", ["disk", "server"])
def test_filters_change_what_is_shown_and_survive_reload(where, sites, browser):
    blue, orange = "#0072B2", "#D55E00"
    with watched(browser, WIDE) as page:
        page.goto(sites[where])
        see(page, "figure", "accuracy")
        see(page, "table", "accuracy")
        both = points(page, "accuracy", blue), points(page, "accuracy", orange)
        assert min(both) > 10 and methods(page, "accuracy") >= {"base", "sft", "dpo"}
        page.get_by_label("SFT", exact=True).check()
        for _ in range(2):
            assert page.evaluate("location.search") == "?method=sft"
            assert (points(page, "accuracy", blue), points(page, "accuracy", orange)) == (both[0], 0)
            assert methods(page, "accuracy") == {"base", "sft"}
            assert page.locator("#outcome tr[data-method]:visible").count() == 2 * 2
            page.reload()
            see(page, "figure", "accuracy")
            see(page, "table", "accuracy")
        page.get_by_role("button", name="Show all").click()
        assert page.evaluate("location.search") == "" and points(page, "accuracy", orange) == both[1]


def test_dataset_split_seed_and_milestone_filter_points_and_rows(sites, browser):
    with watched(browser, WIDE) as page:
        page.goto(f"{sites['disk']}?dataset=memes&split=val&seed=2&milestone=0.5&milestone=bogus")
        see(page, "figure", "kl")
        see(page, "table", "kl")
        info = page.locator('[data-table="kl"] .dt-info').inner_text()
        assert "filtered from 2,013" in info
        shown = page.evaluate(
            """[...document.querySelectorAll('[data-figure="kl"] .panel')]
               .filter((panel) => !panel.textContent.includes("Of milestone 1 alone")).flatMap((panel) => panel.data)
               .filter((trace) => trace.visible !== false && trace.customdata && trace.meta?.method)
               .flatMap(({ customdata, y, meta }) =>
                 customdata.filter((_, i) => y[i] !== null).map((at) => [...at, meta.seed]))"""
        )
        assert {tuple(each) for each in shown} == {("memes", "val", 0.5, 2), (None, None, 0, 2)}
        assert "milestone=0.5" in page.url and page.locator("#filters-said").inner_text().count(";") == 3


def test_tables_are_sorted_searched_and_downloaded(drawn, reported):
    table = drawn.locator('[data-table="kl"]')
    head = table.get_by_role("columnheader", name="value")
    head.click()
    place = drawn.evaluate("(head) => [...head.parentElement.children].indexOf(head)", head.element_handle())
    column = [float(text) for text in table.locator(f"tbody td:nth-child({place + 1})").all_inner_texts()]
    assert column == sorted(column) and len(column) == 10
    table.get_by_role("searchbox").fill("per_token")
    found = table.locator("tbody td:nth-child(6)").all_inner_texts()
    assert found and all("per_token" in text for text in found)
    for link in drawn.locator("#kl a[download]").all():
        assert (reported / link.get_attribute("href")).is_file()


def test_hostile_texts_are_shown_as_texts(drawn):
    for summary in drawn.locator("summary").all():
        summary.click()
    drawn.locator('[data-table="accuracy"]').scroll_into_view_if_needed()
    assert drawn.title() == "Summary · synthetic"
    assert drawn.locator("main img, main script").count() == 0
    whole = drawn.locator("main").inner_text()
    for evil in reported_study.EVIL:
        assert whole.count(evil) >= 3, evil
        assert drawn.locator('[data-table="length"]').get_by_text(evil).count() > 0
    table = drawn.locator('[data-table="accuracy"]')
    assert table.get_by_text(reported_study.EVIL[0]).count() == table.get_by_text(reported_study.EVIL[1]).count() == 1


def test_everything_can_be_done_by_keyboard(sites, browser):
    with watched(browser, WIDE) as page:
        page.goto(sites["disk"])
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.get_by_label("SFT", exact=True).focus()
        page.keyboard.press("Space")
        assert page.evaluate("location.search") == "?method=sft"
        page.locator("#filters-toggle").focus()
        page.keyboard.press("Enter")
        assert page.locator("#filters").is_hidden()
        see(page, "table", "kl")
        page.locator('[data-table="kl"] thead [role="button"]').first.focus()
        page.keyboard.press("Enter")
        assert page.locator('[data-table="kl"] th[aria-sort]').count() == 1


def test_the_page_without_pictures_is_light(reported):
    files = [file for file in reported.rglob("*") if file.is_file() and file.parent.name != "tables"]
    assert sum(file.stat().st_size for file in files) < MEGABYTES_6


def test_a_missing_file_is_told_where_its_figure_would_stand(reported, browser, tmp_path):
    shutil.copytree(reported, tmp_path / "report")
    (tmp_path / "report/assets/index/figure_kl.js").unlink()
    page = browser.new_page(viewport=WIDE)
    page.goto(f"file://{tmp_path}/report/index.html")
    page.locator("#kl").scroll_into_view_if_needed()
    page.get_by_text("figure_kl.js is missing: copy the report's whole folder").wait_for()
    page.close()
