"""LaTeX: whatever a name or a text holds is printed, and runs no command."""

import re

import pytest

from memedynamics import latex

HOSTILE = [
    "\\input{/etc/passwd}", "50% & more # $x$ ^_~ {a}", '"><img onerror=alert(1)>', "a\nb\tc\x00\x1b", "[1] `x` |y|",
    "\\\\ \\end{tabular}", "%%%", "π0 ‖ΔW‖ ρ ≥ ½",
]  # fmt: skip


def plain(text):
    """LaTeX without the commands that `escape` itself writes."""
    known = [*latex.SPECIAL.values(), *latex.TEXT.values(), *(rf"\ensuremath{{{s}}}" for s in latex.SIGNS.values())]
    for command in sorted(known, key=len, reverse=True):
        text = text.replace(command, "" if command not in ("'", "`", "``", "''", "--", "---", " ", "~") else command)
    return text


@pytest.mark.parametrize("text", HOSTILE)
def test_no_special_character_is_left(text):
    made = latex.escape(text)
    assert not re.search(r"[\\{}$&#%_^]", plain(made))
    assert not any(ord(letter) < 32 for letter in made)


def test_escape():
    assert latex.escape("a_b & 5 %") == r"a\_b \& 5 \%"
    assert latex.escape("\\[x]") == r"\textbackslash{}{[}x]"
    assert (
        latex.escape("KL(π0‖π) − 1")
        == r"KL(\ensuremath{\pi}\ensuremath{_0}\ensuremath{\|}\ensuremath{\pi}) \ensuremath{-} 1"
    )
    assert latex.escape("Größe") == "Größe"


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("<b>SFT</b> &lt;5&gt;<br>next", r"\textbf{SFT} \textless{}5\textgreater{} next"),
        ("π<sub>0</sub>", r"\ensuremath{\pi}\textsubscript{0}"),
        ('<span style="color:#f00">x_y</span>', r"x\_y"),
        ("<b>open", r"\textbf{open}"),
        ("<b><script>alert(1)</script></b>", r"\textbf{alert(1)}"),
        ("&lt;script&gt;", r"\textless{}script\textgreater{}"),
    ],
)
def test_annotations(text, made):
    assert latex.from_html(text) == made


def test_a_table():
    made = latex.table([["a", "b"]], [["1", "2"], [], ["3", "4"]], "lr", "What", "tab:x", "small")
    assert made.splitlines()[5:13] == [
        r"\begin{tabular}{lr}", r"\toprule", r"a & b \\", r"\midrule", r"1 & 2 \\", r"\addlinespace", r"3 & 4 \\",
        r"\bottomrule",
    ]  # fmt: skip
    assert made.count(r"\begin") == made.count(r"\end") == 2
    assert latex.stacked(["1"], "r") == "1" and latex.stacked(["1", "2"], "r").count(r"\\") == 1
