"""Text as LaTeX: users' own names and texts escaped, the project's signs as mathematics.

What is made needs booktabs and array, and UTF-8 input (LaTeX's default) for the letters of other alphabets.
"""

import re
from collections.abc import Sequence
from html import unescape

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"{\char34}", "`": r"\textasciigrave{}",
    "[": "{[}",  # at a row's start it would be an argument
}  # fmt: skip
SIGNS = {
    "−": "-", "±": r"\pm", "×": r"\times", "·": r"\cdot", "≥": r"\geq", "≤": r"\leq", "≠": r"\neq", "≈": r"\approx",
    "→": r"\to", "∞": r"\infty", "√": r"\surd", "∇": r"\nabla", "Σ": r"\sum", "Δ": r"\Delta", "α": r"\alpha",
    "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\varepsilon", "λ": r"\lambda", "μ": r"\mu", "π": r"\pi",
    "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau", "φ": r"\varphi", "χ": r"\chi", "‖": r"\|", "⟨": r"\langle",
    "⟩": r"\rangle", "¼": r"\frac{1}{4}", "½": r"\frac{1}{2}", "¾": r"\frac{3}{4}", "²": "^2", "³": "^3",
    "⁻": "^-", "₀": "_0", "ḡ": r"\bar g", "ŷ": r"\hat y", "∈": r"\in", "∝": r"\propto", "†": r"\dagger",
}  # fmt: skip
TEXT = {
    "’": "'", "‘": "`", "“": "``", "”": "''", "–": "--", "—": "---", "…": r"\ldots{}", "\u00a0": "~", "\u202f": r"\,",
    "\n": " ", "\t": " ", "\r": " ",
}  # fmt: skip
TAGS = {"b": r"\textbf{", "i": r"\emph{", "sub": r"\textsubscript{", "sup": r"\textsuperscript{"}


def escape(text: str) -> str:
    """`text` as LaTeX that prints it; letters of other alphabets stay, control characters go."""
    return "".join(map(_letter, text.replace("π0", "π₀")))


def _letter(letter: str) -> str:
    if letter in SIGNS:
        return rf"\ensuremath{{{SIGNS[letter]}}}"
    if letter in TEXT:
        return TEXT[letter]
    return SPECIAL.get(letter, letter if letter.isprintable() else "")


def from_html(text: str) -> str:
    """The text of a Plotly annotation as LaTeX: bold, italic, sub- and superscript stay, a line's end is a space."""
    found, still = [], []
    for part in re.split(r"(<[^>]*>)", text):
        name = part.strip("</>").split(" ")[0] if part.startswith("<") else None
        if name is None:
            found.append(escape(unescape(part)))
        elif name == "br":
            found.append(" ")
        elif part.startswith("</"):
            found.append("}" if still and still.pop() in TAGS else "")
        else:
            still.append(name)
            found.append(TAGS.get(name, ""))
    return "".join(found) + "}" * sum(name in TAGS for name in still)


def table(
    head: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], columns: str, caption: str, label: str, size: str
) -> str:
    """A booktabs table over the page's width: lines of `head`, `rows` (an empty one is some room), all of them LaTeX.

    `columns` is tabular's own description of them, `size` the font's, footnotesize or smaller.
    """
    lines = [_line(cells) for cells in head]
    body = [_line(cells) if cells else r"\addlinespace" for cells in rows]
    parts = [
        r"\begin{table*}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{{label}}}", rf"\{size}",
        rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *lines, r"\midrule", *body, r"\bottomrule", r"\end{tabular}",
        r"\end{table*}", "",
    ]  # fmt: skip
    return "\n".join(parts)


def stacked(lines: Sequence[str], side: str) -> str:
    """Several lines of LaTeX in one cell; `side` is l, c or r."""
    if len(lines) == 1:
        return lines[0]
    return rf"\begin{{tabular}}[t]{{@{{}}{side}@{{}}}}" + r" \\ ".join(lines) + r"\end{tabular}"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
