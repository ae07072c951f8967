"""The memes browser in Chromium, from disk and from a server: filters, blur, keys, contrast, and hostile text."""

import re
import shutil

import polars as pl
import pytest
from playwright.sync_api import expect

import browsed_study
from browsed_study import IMAGE, SCRIPT
from browser import NARROW, WIDE, chromium, faults, is_too_wide, opened, served
from memedynamics import tables
from memedynamics.keys import MEME
from memedynamics.sections import Report

SEEDS = (1, 2)
METHODS = ("sft", "dpo", "grpo", "theirs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("browsed")


@pytest.fixture(scope="module")
def found(folder):
    return browsed_study.write(folder)


@pytest.fixture(scope="module")
def page_file(folder, found):
    return browsed_study.build(folder, found)


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


@pytest.fixture(params=["file", "http"])
def address(request, page_file):
    """The page's address, either way."""
    if request.param == "file":
        yield page_file.as_uri()
        return
    with served(page_file.parent) as server:
        yield f"{server}/memes.html"


@pytest.fixture
def page(browser, page_file):
    with opened(browser, page_file.as_uri()) as page:
        page.wait_for_selector(".memes-row")
        yield page


def count(page):
    """How many memes the page says are left."""
    page.locator("#memes-count", has_text=" of ").wait_for()
    return int(page.inner_text("#memes-count").split(" of ")[0].replace(",", ""))


def rows(page):
    return page.locator(".memes-row")


def choose(page, place=0):
    row = rows(page).nth(place)
    caption = row.locator(".memes-caption").inner_text()
    row.click()
    expect(page.locator("#memes-detail blockquote")).to_have_text(caption)


def said(page, text):
    """Wait until what is shown of the chosen meme says `text`."""
    page.locator("#memes-detail", has_text=text).wait_for()


def shown(page):
    """The captions and ids of the memes that are left, by scrolling through the list."""
    seen, box = {}, page.locator("#memes-list")
    for top in range(0, count(page) * 98 + 1, 400):
        # The list is drawn in the frame after the scroll's event.
        box.evaluate(
            "(box, top) => { box.scrollTop = top; "
            "return new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then))); }",
            top,
        )
        for place, text in rows(page).evaluate_all("rows => rows.map((row) => [row.ariaPosInSet, row.innerText])"):
            seen[int(place)] = text
    return [seen[place] for place in sorted(seen)]


def verdicts(found):
    """Right on a meme or not, by (method, seed) and meme: more than half of the answers, at the last milestone."""
    return right_at(found, 1.0)


def right_at(found, fraction):
    """As `verdicts` at another milestone; the base's are always its own."""
    right = {}
    for path in [*found["base"], *found["samples"]]:
        frame = tables.read(path, "samples")
        run = ("base", 0) if path in found["base"] else (path.parent.name, int(path.stem.removeprefix("seed")))
        at = 0.0 if run[0] == "base" else fraction
        for row in frame.filter(pl.col("fraction") == at).iter_rows(named=True):
            right.setdefault(run, {}).setdefault(tuple(row[key] for key in MEME), []).append(row["correct"])
    return {run: {meme: 2 * sum(c) > len(c) for meme, c in of.items()} for run, of in right.items()}


def at_seed(right, method, seed):
    return right[method, 0 if method == "theirs" else seed]


def expected(found, test):
    """The memes of which `test` (base right, {method: right}) holds at one seed at least."""
    right = verdicts(found)
    return {
        meme
        for meme in right["base", 0]
        for seed in SEEDS
        if test(right["base", 0][meme], {method: at_seed(right, method, seed)[meme] for method in METHODS})
    }


def test_opens_from_disk_and_from_a_server(browser, address):
    with opened(browser, address) as page:
        assert count(page) == 100
        assert 5 < rows(page).count() < 30  # those on the screen, and a few around them
        assert "40 of 40 of memes val" in page.inner_text("main")
        choose(page)
        assert page.locator(".memes-card h3").all_inner_texts() == [
            "base",
            *(f"{method}, seed {seed}" for method in ("SFT", "DPO", "GRPO") for seed in SEEDS),
            "theirs",
        ]
        assert page.locator(".memes-thumb img").first.evaluate("image => image.complete && image.naturalWidth") == 120


def test_hostile_text_is_shown_as_text(page):
    choose(page)
    assert rows(page).first.locator(".memes-caption").inner_text() == SCRIPT
    assert page.locator("blockquote").inner_text() == SCRIPT
    choose(page, 1)
    assert page.locator("blockquote").inner_text() == IMAGE and IMAGE in page.inner_text(".memes-about .note")
    assert IMAGE in page.locator("[data-key=group] option").all_text_contents()
    texts = set()
    for place in range(6):
        choose(page, place)
        texts |= set(page.locator(".memes-tokens").all_inner_texts())
    assert any(SCRIPT in text for text in texts) and any(IMAGE in text for text in texts)
    assert page.locator("img[src=x]").count() == 0 and page.locator("script:not([src])").count() == 0
    page.goto(page.url.partition("?")[0] + "?q=%3Cscript%3Ealert(1)%3C/script%3E&show=%22%3E&group=x&meme=%3Cb%3E")
    assert count(page) == 16 and page.locator("#memes-search").input_value() == SCRIPT


FILTERS = {
    "disagree": lambda base, right: len(set(right.values())) == 2,
    "fixed:grpo": lambda base, right: not base and right["grpo"] and sum(right.values()) == 1,
    "broken:sft": lambda base, right: base and not right["sft"],
    "broken": lambda base, right: base and not all(right.values()),
}


def test_filters_show_what_the_tables_say(page, found):
    for name, test in FILTERS.items():
        page.select_option("[data-key=show]", name)
        wanted = expected(found, test)
        assert 0 < len(wanted) < 100 and count(page) == len(wanted), name
    page.select_option("[data-key=show]", "fixed:grpo")
    wanted = expected(found, FILTERS["fixed:grpo"])
    assert sum("val" in text.splitlines()[-1] for text in shown(page)) == sum(meme[1] == "val" for meme in wanted)


def test_filters_of_seed_and_method_narrow(page, found):
    page.select_option("[data-key=show]", "fixed:grpo")
    both = count(page)
    seeds = page.locator("[name=seed]").evaluate_all("boxes => boxes.map((box) => box.value)")
    assert seeds == ["1", "2"]  # theirs stands as seed 0, which is no choice
    page.check("[name=seed][value='1']")
    right = verdicts(found)
    alone = [
        meme
        for meme, base in right["base", 0].items()
        if not base and [m for m in METHODS if at_seed(right, m, 1)[meme]] == ["grpo"]
    ]
    assert count(page) == len(alone) < both
    choose(page)
    assert page.locator(".memes-card h3").all_inner_texts() == [
        "base", "SFT, seed 1", "DPO, seed 1", "GRPO, seed 1", "theirs",
    ]  # fmt: skip


def test_filters_and_choice_survive_a_reload(browser, address):
    with opened(browser, address) as page:
        page.fill("#memes-search", "smell TODAY")
        page.select_option("[data-key=label]", "1")
        page.check("[name=dataset][value=other]")
        left = count(page)
        assert 0 < left < 10 and all("smell" in text and "hateful" in text and "other" in text for text in shown(page))
        choose(page)
        page.select_option("[data-key=tokens]", "base")
        page.check("[data-key=attention]")
        page.locator(".memes-grid, #memes-detail > .note").first.wait_for()
        before = page.inner_text("#memes-detail")
        page.reload()
        page.wait_for_selector(".memes-card")
        assert count(page) == left and page.inner_text("#memes-detail") == before
        assert page.input_value("#memes-search") == "smell TODAY" and page.is_checked("[data-key=attention]")
        assert rows(page).and_(page.locator("[aria-selected=true]")).count() == 1
        page.click("button.reset")
        assert count(page) == 100 and page.input_value("#memes-search") == ""


def test_another_milestone_shows_what_was_answered_there_and_survives_a_reload(browser, address, found):
    assets = []
    with opened(browser, address) as page:
        page.on("request", lambda request: assets.append(request.url))
        choose(page)
        values = page.locator("[name=milestone]").evaluate_all("boxes => boxes.map((box) => box.value)")
        assert values == ["0.5", "1"]
        assert assets and not any("/0.5/" in url for url in assets)
        page.check("[name=milestone][value='0.5']")
        heads = ["base", *(f"{method}, seed {seed}, at 0.5" for method in ("SFT", "DPO", "GRPO") for seed in SEEDS)]
        for _ in range(2):
            said(page, "at 0.5")
            assert page.locator(".memes-card h3").all_inner_texts() == heads  # theirs has its end alone
            assert count(page) == browsed_study.ANSWERED and "milestone=0.5" in page.url
            right = right_at(found, browsed_study.EARLY)
            for place, text in enumerate(shown(page)):
                meme = "memes", "val", f"val-{place:05d}{IMAGE if place == 1 else ''}"
                marks = "".join("✓" if right["sft", seed][meme] else "✗" for seed in SEEDS)
                assert f"SFT {marks}" in text
            page.reload()
            page.wait_for_selector(".memes-card")
        page.check("[name=milestone][value='1']")
        said(page, "theirs, at 1")
        heads = page.locator(".memes-card h3").all_inner_texts()
        assert heads[1:5] == [f"SFT, seed {seed}, at {at}" for seed in SEEDS for at in ("0.5", "1")]
        assert count(page) == 100 and re.search("SFT [✓✗]{2} → [✓✗]{2}", rows(page).first.inner_text())


def test_group_and_nothing_found(page):
    page.select_option("[data-key=group]", "nationality")
    assert count(page) == 17
    page.fill("#memes-search", "no such words")
    assert count(page) == 0 and rows(page).count() == 0


def blurred(page, place):
    return page.locator(place).evaluate("image => getComputedStyle(image).filter.includes('blur')")


def test_pictures_are_blurred_until_clicked(page):
    choose(page)
    assert blurred(page, ".memes-head img") and blurred(page, ".memes-thumb img >> nth=0")
    page.click(".memes-reveal")
    page.wait_for_selector(".memes-frame:not(.memes-blurred)")
    assert not blurred(page, ".memes-head img") and blurred(page, ".memes-thumb img >> nth=0")
    choose(page, 1)
    assert blurred(page, ".memes-head img")  # the other one is still blurred
    page.uncheck("#memes-blur")
    page.wait_for_selector(".memes-frame:not(.memes-blurred)")
    assert not blurred(page, ".memes-thumb img >> nth=0") and page.locator(".memes-reveal").count() == 0
    page.reload()
    page.wait_for_selector(".memes-card")
    assert not page.is_checked("#memes-blur") and not blurred(page, ".memes-head img")
    assert "blur" not in page.url, "a link must not unblur for whom it is sent to"


def test_attention_lies_on_the_picture_and_says_where_it_was_not_read(page):
    choose(page)
    page.check("[data-key=attention]")
    page.wait_for_selector(".memes-grid")
    assert page.locator(".memes-grid").count() == 8 and page.locator(".memes-grid >> nth=0").locator("i").count() == 16
    assert blurred(page, ".memes-looked img >> nth=0")
    page.locator("#memes-list").press("End")
    said(page, "Attention was not read")
    assert page.locator(".memes-grid").count() == 0
    page.select_option("[data-key=show]", "looked")
    assert count(page) == 24


def test_tokens_carry_the_distance_of_the_traces(page, found):
    choose(page)
    trace = tables.read(found["traces"][1] / "1-of-1.parquet", "traces")
    first = trace.filter(fraction=1, probe_kind="own_sample", dataset="memes", split="val", id="val-00000", sample=0)
    card = page.locator(".memes-card", has_text="SFT, seed 1")
    titles = [
        float(t.removeprefix("KL ").removesuffix(" nat"))
        for t in card.locator("[title]").evaluate_all("a => a.map(x => x.title)")
    ]
    assert sum(titles) == pytest.approx(first["kl_reverse"].sum(), abs=0.001 * len(titles))
    whole = float(re.search(r"KL\(policy‖base\) (\S+) nat", card.inner_text())[1])
    # Two digits, whatever the rounding of its tokens.
    assert whole == pytest.approx(first["kl_reverse"].sum(), abs=0.006)
    page.select_option("[data-key=tokens]", "base")
    said(page, "KL(base‖policy)")
    texts = page.locator(".memes-tokens").all_inner_texts()
    assert len(set(texts)) == 1  # every policy on the base's response


def test_responses_of_the_base_that_were_not_scored_say_so(page):
    page.check("[name=split][value=test]")
    page.check("[name=dataset][value=memes]")
    choose(page)
    page.select_option("[data-key=tokens]", "base")
    said(page, "Not scored on this response")


def test_keys(page):
    page.focus("#memes-list")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(".memes-card")
    active = page.get_attribute("#memes-list", "aria-activedescendant")
    assert page.get_attribute(f"#{active}", "aria-selected") == "true"
    assert page.get_attribute(f"#{active}", "aria-posinset") == "2"
    page.keyboard.press("End")
    page.locator("[aria-selected=true][aria-posinset='100']").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.memes-shown') !== null")
    page.focus(".memes-reveal")
    page.keyboard.press("Enter")
    page.wait_for_selector(".memes-head .memes-frame:not(.memes-blurred)")
    assert page.evaluate("document.activeElement.className") == "memes-reveal"


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1280", "390"])
def test_axe_finds_nothing_and_nothing_is_too_wide(browser, page_file, size):
    with opened(browser, page_file.as_uri() + "?attention=on", size) as page:
        page.wait_for_selector(".memes-row")
        assert not is_too_wide(page)
        choose(page)
        page.wait_for_selector(".memes-grid")
        assert faults(page) == [] and not is_too_wide(page)


def test_a_missing_piece_is_named(browser, page_file, tmp_path):
    shutil.copytree(page_file.parent, tmp_path / "report")
    shutil.rmtree(tmp_path / "report/assets/memes/dpo")
    page = browser.new_page()
    page.goto((tmp_path / "report/memes.html").as_uri())
    rows(page).first.click()
    assert "assets/memes/dpo/seed1/1/0.js is missing" in page.inner_text("[role=alert]")
    page.close()


def test_a_study_of_one_run_without_pictures(browser, tmp_path):
    found = browsed_study.write(tmp_path, {("memes", "val"): 9}, [("only", 3)])
    page_file = browsed_study.build(tmp_path, found, Report(images="none", blur=False))
    assert not (tmp_path / "report/pictures").exists()
    with opened(browser, page_file.as_uri()) as page:
        assert count(page) == 9
        choose(page)
        assert page.locator("img").count() == 0 and page.locator("#memes-blur").count() == 0
        shows = page.locator("[data-key=show] option").all_inner_texts()
        assert shows == ["all memes", "fixed by only", "broken by training", "format lost", "attention was read"]
        assert re.search("only, seed 3", page.inner_text("#memes-detail"))
    with opened(browser, browsed_study.build(tmp_path, found, Report(images="full")).as_uri()) as page:
        choose(page, 2)
        source = page.locator(".memes-head img").get_attribute("src")
        assert re.fullmatch(r"pictures/memes/val/whole/(..)/\1[0-9a-f]{18}\.jpg", source)
        expect(page.locator(".memes-head img")).to_have_js_property("naturalWidth", 120)
    # Back to none: nothing of the pictures stays in the folder that is published.
    browsed_study.build(tmp_path, found, Report(images="none"))
    assert not list((tmp_path / "report/pictures").rglob("*.*"))
