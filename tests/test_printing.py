"""Figures on paper: one browser for all, equal bytes, fonts inside, and a clear word where there is no browser."""

import base64
import io
import json
import os
import re
import shutil
import time
import zlib

import plotly.graph_objects as go
import polars as pl
import pytest
from fontTools.ttLib import TTFont
from PIL import Image
from plotly.subplots import make_subplots

from memedynamics import figures, panels, printing, svg_fonts, svg_printing
from memedynamics.errors import InputError
from memedynamics.printing import Print, print_drawings

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture
def chromium():
    if not os.environ.get("CI") and not any(map(shutil.which, BROWSERS)):
        pytest.skip("no Chromium here")


@pytest.fixture(scope="module")
def drawing():
    rows = [
        {"method": m, "seed": 1, "fraction": 1.0, "step": 1, "dataset": "d", "split": "val", "statistic": "x",
         "value": v, "ci_low": v - 1, "ci_high": v + 1, "n": 9, "unit": "1"}
        for m, v in (("sft", 1.0), ("dpo", 3.0))
    ]  # fmt: skip
    frame, figure = pl.DataFrame(rows), make_subplots(rows=1, cols=2)
    for col, letter in enumerate("ab", 1):
        panels.title(figure, 1, col, letter, "Forward KL(π<sub>0</sub>‖π) <b>on</b> val")
        panels.curves(figure, 1, col, frame, "nat", 0.0)
    return json.loads(figures.finish(figure, frame, "T", "N", 1).to_json())


@pytest.fixture(scope="module")
def printed(drawing, tmp_path_factory):
    """The same drawing twice in every format, 7 inches wide, each time by a browser of its own."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "again")]
    for folder in folders:
        print_drawings([Print(drawing, folder / "a", 7.0)])
    return folders


@pytest.mark.parametrize("kind", printing.FORMATS)
def test_equal_drawings_give_equal_bytes(kind, chromium, printed):
    first, again = (folder / f"a.{kind}" for folder in printed)
    assert first.read_bytes() == again.read_bytes()
    assert first.stat().st_size > 5_000
    assert sorted(file.name for file in printed[0].iterdir()) == ["a.pdf", "a.png", "a.svg"]


def objects(data):
    """The dictionaries of a pdf's objects, those of object streams too."""
    found = re.findall(rb"\d+ 0 obj\s*(.*?)(?:endobj|stream)", data, re.DOTALL)
    for packed in re.findall(rb"/ObjStm.*?stream\r?\n(.*?)endstream", data, re.DOTALL):
        found.append(zlib.decompress(packed))
    return found


def test_a_pdf_holds_its_fonts_and_its_width_and_no_date(chromium, printed, drawing):
    data = (printed[0] / "a.pdf").read_bytes()
    found = objects(data)
    descriptors = [each for each in found if b"/FontDescriptor" in each and b"/Type" in each and b"/FontName" in each]
    assert descriptors and all(re.search(rb"/FontFile[23]?\b", each) for each in descriptors)
    (box,) = set(re.findall(rb"/MediaBox\s*\[([^\]]*)\]", b"".join(found)))
    layout = drawing["layout"]
    left, low, right, high = map(float, box.split())
    assert right - left == pytest.approx(7 * 72, abs=1)
    assert high - low == pytest.approx(7 * 72 * layout["height"] / layout["width"], abs=1)
    assert str(time.gmtime().tm_year).encode() not in b"".join(re.findall(rb"Date ?\(([^)]*)\)", data))


def test_a_png_says_how_wide_it_is(chromium, printed):
    with Image.open(printed[0] / "a.png") as picture:
        picture.load()
        assert picture.size[0] == 7 * printing.DPI and picture.info["dpi"] == pytest.approx((printing.DPI,) * 2, abs=1)
        assert len(picture.convert("RGB").resize((200, 150)).getcolors(30000)) > 20


def test_an_svg_has_the_paper_s_width_and_its_text_as_text(chromium, printed):
    text = (printed[0] / "a.svg").read_text()
    assert re.search(r'<svg[^>]* width="672(\.0+)?"', text) and "Forward KL" in text
    assert not re.search(r'(href|src)="http', text)


def faces(text):
    """The fonts inside an svg by weight."""
    rule = r"@font-face\{font-family:'([^']*)';font-weight:(\d+);src:url\(data:font/woff;base64,([^)]*)\)"
    return {int(weight): TTFont(io.BytesIO(base64.b64decode(font))) for _, weight, font in re.findall(rule, text)}


def test_an_svg_holds_the_letters_of_its_text_in_every_weight_and_no_others(chromium, printed):
    text = (printed[0] / "a.svg").read_text()
    found = faces(text)
    assert set(found) == {svg_fonts.REGULAR, svg_fonts.BOLD}
    for weight, letters in svg_fonts.letters(text).items():
        held = {chr(code) for code in found[weight].getBestCmap()}
        assert held == letters and len(held) < 100
        assert {"F", "π"} <= letters if weight == svg_fonts.REGULAR else "n" in letters
    named = re.search(r"@font-face\{font-family:('[^']*')", text)[1]
    assert all(style.startswith(named) for style in re.findall("font-family: ([^;]*);", text))
    assert len(text) < 120_000


def hidden(monkeypatch, tmp_path):
    """No browser on the path, and none that kaleido fetched."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(printing.Chromium, "find_browser", lambda **_: shutil.which("chromium"))


def test_without_a_browser_one_line_says_how_to_get_one(drawing, tmp_path, monkeypatch):
    hidden(monkeypatch, tmp_path)
    with pytest.raises(InputError) as error:
        print_drawings([Print(drawing, tmp_path / "a", 7.0)])
    text = str(error.value)
    assert "apt-get install chromium" in text and "\n" not in text and "HTML figures need none" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/no/such/browser", "/etc/hostname"])
def test_a_wrong_browser_path_is_named(path, drawing, tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", path)
    monkeypatch.setattr(printing.Chromium, "find_browser", lambda **_: os.environ["BROWSER_PATH"])
    with pytest.raises(InputError, match=f"{path}.*apt-get install chromium"):
        print_drawings([Print(drawing, tmp_path / "a", 7.0)])


def test_html_figures_need_no_browser(tmp_path, monkeypatch):
    hidden(monkeypatch, tmp_path)
    figures.save(go.Figure(), tmp_path / "a.html", "a")
    assert (tmp_path / "a.html").stat().st_size > 100_000 and (tmp_path / "a.json").exists()


def test_a_font_that_fontconfig_does_not_know(monkeypatch, tmp_path):
    assert svg_fonts.installed(400, "None", "NoSuchFont-At-All") is None
    monkeypatch.setenv("PATH", str(tmp_path))  # no fc-list either
    assert svg_fonts.installed(400, "DejaVu Sans", "DejaVuSans") is None


def test_without_the_font_s_file_text_keeps_its_fonts_names_and_that_is_said(
    chromium, drawing, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(svg_printing, "installed", lambda *_: None)
    print_drawings([Print(drawing, tmp_path / "a", 3.25)])
    assert [record.getMessage() for record in caplog.records] == [printing.UNEMBEDDED]
    text = (tmp_path / "a.svg").read_text()
    assert "@font-face" not in text and "font-family: Helvetica, Arial" in text
