"""The shell: filters, packed data, escaping; libraries turned from modules into scripts."""

import base64
import json
import zlib

import jinja2
import pytest

from memedynamics import report_page, web_libraries
from memedynamics.report_page import Choice

EVIL = '"><script>alert(1)</script>'


def test_filters_leave_out_what_cannot_be_chosen():
    values = {"method": ["grpo", "mine", "sft"], "seed": [1], "dataset": [], "milestone": [0.0, 1 / 4, 1.0]}
    method, milestone = report_page.study_filters(values)
    assert [choice.value for choice in method.choices] == ["sft", "grpo", "mine"]
    assert method.choices[0].text == "SFT" and method.choices[0].colour == "#0072B2"
    assert milestone.choices == [Choice("0", "0"), Choice("0.25", "0.25"), Choice("1", "1")]


def test_seeds_to_choose_from_are_those_that_tell_runs_apart():
    """A run from elsewhere stands as seed 0, whether it comes first or last, and among one seed or many."""
    elsewhere = [("theirs", 0)]
    for own in ([("sft", 1)], [("sft", 1), ("sft", 2)], [("sft", 1), ("dpo", 2)]):
        assert report_page.own_seeds(own + elsewhere) == report_page.own_seeds(elsewhere + own) == {s for _, s in own}
    assert report_page.own_seeds([("sft", 0), ("sft", 1), *elsewhere, ("base", None)]) == {0, 1}
    assert report_page.own_seeds(elsewhere) == {0} and report_page.own_seeds([]) == set()


def test_what_a_page_is_told_is_text():
    pages = [report_page.Page("index.html", EVIL)]
    filters = report_page.study_filters({"method": [EVIL, "sft"]})
    page = report_page.render("base.html.j2", pages[0], study=EVIL, pages=pages, filters=filters, commit=EVIL)
    assert "<script>alert" not in page and page.count("&gt;&lt;script&gt;alert(1)") >= 5


def test_a_page_that_is_not_told_all_it_needs_is_not_made():
    with pytest.raises(jinja2.UndefinedError):
        report_page.render("base.html.j2", report_page.Page("index.html", "Summary"), study="x", pages=[])


def test_data_come_back_whole(tmp_path):
    payload = {"text": EVIL + "é", "number": 0.1, "none": None}
    report_page.deliver(tmp_path, "memes/12", payload)
    call = (tmp_path / "memes/12.js").read_text()
    name, packed = json.loads(call.removeprefix("deliver(").join("[]").replace(");\n]", "]"))
    assert name == "memes/12" and json.loads(zlib.decompress(base64.b64decode(packed))) == payload


@pytest.mark.parametrize("name", ['a");alert(1);("', "a b", ""])
def test_a_name_that_would_be_code_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="no name"):
        report_page.deliver(tmp_path, name, {})


def test_numbers_that_json_does_not_know_are_refused(tmp_path):
    with pytest.raises(ValueError):
        report_page.deliver(tmp_path, "a", [float("nan")])


def test_a_module_becomes_a_script_with_one_global():
    script = web_libraries.as_script("var a=1,b$=2;export{a as One,b$ as default};/* licence */")
    assert "export" not in script and "globalThis.DataTable = b$;" in script and "licence" in script


@pytest.mark.parametrize("module", ["var a=1;", "export{a as One};", "export{a as default};export{b as default};"])
def test_a_module_of_another_form_is_refused(module):
    with pytest.raises(ValueError, match="known form"):
        web_libraries.as_script(module)
