"""What the report's first page says of a study, in plain values that its template sets: summary and analyses."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from memedynamics import drawings, figures, overview, plain_tables, report_tables
from memedynamics.definitions import Definition, definition
from memedynamics.gather import BASE
from memedynamics.outcomes import summary
from memedynamics.plain_tables import Plain
from memedynamics.report_page import own_seeds, study_filters
from memedynamics.sentences import sentences
from memedynamics.verdicts import claims_table

HEADLINES = ("accuracy", "kl", "summary")  # the analyses whose first sentences open the page
SPLITS = ("train", "val", "test")


class Section(NamedTuple):
    """An analysis: what it asks, what its table says, how its figure and its table stand on the page."""

    name: str
    definition: Definition
    sentences: Sequence[str]
    drawing: drawings.Drawing
    table: report_tables.Shown


def question(methods: Iterable[str]) -> str:
    """What a study with `methods` asks."""
    names = [figures.name(method) for method in figures.ordered(methods)]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
    return f"What did {listed} {'each ' if len(names) > 1 else ''}do to this vision-language model?"


def filter_values(frames: Iterable[pl.DataFrame], study: Mapping) -> dict[str, list]:
    """The values of the page's filters: those of the `study` file that occur in `frames`, tables of analyses."""
    keys = {"method": pl.String, "seed": pl.Int64, "dataset": pl.String, "split": pl.String}
    found = pl.concat(frame.select(pl.col(key).cast(kind) for key, kind in keys.items()).unique() for frame in frames)
    known = {"method": study["methods"], "dataset": study["datasets"], "split": SPLITS}
    runs = found.filter(pl.col("method").is_in(list(study["methods"]))).select("method", "seed").unique().rows()
    values: dict[str, list] = {key: [n for n in names if n in found[key]] for key, names in known.items()}
    values |= {"seed": sorted(own_seeds(runs)), "milestone": [float(fraction) for fraction in study["milestones"]]}
    return values


def section(name: str, frame: pl.DataFrame, drawing: drawings.Drawing, summary: pl.DataFrame | None = None) -> Section:
    """The section of the analysis `name`, whose table is `frame` and whose figure is `drawing`; see `sentences`."""
    said = sentences(name, frame, summary)
    return Section(name, definition(name), said, drawing, report_tables.shown(frame, name))


def outcomes(accuracy: pl.DataFrame, kl: pl.DataFrame) -> Plain:
    """What each run did to accuracy, format and distance from the base, with intervals; see `memedynamics.outcomes`."""
    found = summary(accuracy, kl.filter(pl.col("reference") == BASE))
    units = {"method": "", "seed": "", "accuracy before": " (%)", "accuracy after": " (%)", "format": " (%)"}
    units |= {"KL in domain": " (nat/response)", "KL out of domain": " (nat/response)"}
    rows = [["–" if cell is None else str(cell) for cell in row] for row in found.select(list(units)).rows()]
    return plain_tables.of_runs([f"{name}{unit}" for name, unit in units.items()], rows)


def effort(runs: Iterable[Path]) -> Plain:
    """What each of `runs`, files run.json, was trained on."""
    return plain_tables.of_runs(overview.EFFORT, overview.trained(runs))


def claims(summary: pl.DataFrame) -> Plain:
    """The study's questions, the claims behind them, and what its data says."""
    heads = ("question", "claim", "difference or correlation [95 %]", "seeds", "p (Holm)", "what this data says")
    return plain_tables.rows(heads, [line[: len(heads)] for line in claims_table(summary)])


def told(
    frames: Mapping[str, pl.DataFrame], drawn: Mapping[str, drawings.Drawing], runs: Iterable[Path], study: dict
) -> dict[str, object]:
    """What the page's template is told of the analyses' tables, `frames` by name, their figures `drawn`, the `runs`
    (files run.json) and the `study` file; the summary comes first.
    """
    order = sorted(frames, key=lambda name: name != "summary")
    summary = frames["summary"]
    opening = [sentences(name, frames[name], summary)[:1] for name in HEADLINES if name in frames]
    return {
        "question": question(study["methods"]),
        "base": study["base_model"]["source"],
        "headlines": [text for told in opening for text in told],
        "outcomes": outcomes(frames["accuracy"], frames["kl"]),
        "effort": effort(runs),
        "answers": plain_tables.printed(overview.answers(summary)),
        "claims": claims(summary),
        "palette": figures.colours(list(study["methods"])),
        "filters": study_filters(filter_values(frames.values(), study)),
        "sections": [section(name, frames[name], drawn[name], summary) for name in order],
    }
