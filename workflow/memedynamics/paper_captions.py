"""Captions of the figures as LaTeX: \\figurecaption{kl} prints that of kl.pdf, \\figurecaption{kl_a} a panel's.

A caption is what the figure is about, what its table shows (`sentences`), what is measured, and the figure's own note.
"""

from collections.abc import Iterator, Mapping

import polars as pl

from memedynamics.definitions import definition
from memedynamics.figures import HEADING, NOTE
from memedynamics.latex import escape, from_html
from memedynamics.paper_panels import notes, panels
from memedynamics.sentences import sentences

PREFIX = "memedynamics@"
MACRO = (
    "% Made by `snakemake paper`. In the preamble: \\input{captions}; in a figure: "
    "\\caption{\\figurecaption{accuracy}}.\n"
    "\\makeatletter\n"
    "\\DeclareRobustCommand{\\figurecaption}[1]{\\csname " + PREFIX + "#1\\endcsname}\n"
)


def captions(drawings: Mapping[str, dict], tables: Mapping[str, pl.DataFrame]) -> str:
    """The captions of `drawings` by name, and of their panels, from the analyses' `tables`."""
    found = [_macro(name, _caption(name, drawing, tables)) for name, drawing in drawings.items()]
    found += [_macro(*each) for name, drawing in drawings.items() for each in _of_panels(name, drawing)]
    return MACRO + "".join(found) + "\\makeatother\n"


def _macro(name: str, text: str) -> str:
    return f"\\expandafter\\def\\csname {PREFIX}{name}\\endcsname{{{text}}}\n"


def _caption(name: str, drawing: dict, tables: Mapping[str, pl.DataFrame]) -> str:
    told = definition(name)
    title = [from_html(note["text"]) for note in notes(drawing, HEADING)] or [escape(told.title)]
    shown = [escape(text) for text in sentences(name, tables[name], tables.get("summary"))]
    note = [from_html(note["text"]) for note in notes(drawing, NOTE)]
    heads = [f"{text.rstrip('.')}." if text[-1:] != "?" else text for text in title]
    return "%\n".join([*(f"{head} " for head in heads), " ".join(shown) + " ", escape(told.words) + " ", *note])


def _of_panels(name: str, drawing: dict) -> Iterator[tuple[str, str]]:
    for panel in panels(drawing):
        title = from_html(panel.title)
        yield f"{name}_{panel.letter}", f"{title}. {escape(definition(name).title)}." if title else escape(name)
