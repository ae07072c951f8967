"""The summary of a study as LaTeX: what each run did, and what the data says to the study's questions."""

import polars as pl

from memedynamics import figures, latex
from memedynamics.definitions import definition
from memedynamics.latex import escape
from memedynamics.outcomes import summary
from memedynamics.verdicts import claims_table

RUNS = {
    "accuracy before": ("accuracy before", r"\%"),
    "accuracy after": ("accuracy after", r"\%"),
    "format": ("format", r"\%"),
    "KL in domain": ("KL in domain", "nat a response"),
    "KL out of domain": ("KL out of domain", "nat a response"),
}
# Heads of the claims' columns, and their shares of the page's width.
CLAIMS = {
    "question": 0.17,
    "claim": 0.18,
    r"difference or correlation [95~\%]": 0.23,
    "seeds": 0.08,
    r"\(p\) (Holm)": 0.05,
    "what the data says": 0.13,
}


def summary_tables(tables: dict[str, pl.DataFrame]) -> str:
    """Two LaTeX tables from the analyses accuracy, kl and summary: tab:summary, a row a run, and tab:claims."""
    comment = "% Needs \\usepackage{booktabs,array}. Made by `snakemake paper`.\n"
    return comment + _runs(tables["accuracy"], tables["kl"]) + "\n" + _claims(tables["summary"])


def _runs(accuracy: pl.DataFrame, kl: pl.DataFrame) -> str:
    found = summary(accuracy, kl.filter(pl.col("reference") == "base"))
    study = escape(next(iter(accuracy["study"]), ""))
    head = [["method", "seed", *(name for name, _ in RUNS.values())], ["", "", *(f"({u})" for _, u in RUNS.values())]]
    rows: list[list[str]] = []
    for row in found.to_dicts():
        if rows and row["seed"] == min(found.filter(method=row["method"])["seed"]):
            rows.append([])
        cells = [_cell(row[name]) for name in RUNS]
        rows.append([escape(figures.name(row["method"])), str(row["seed"]), *cells])
    caption = (
        f"What each method did in the study {study}: value [95~\\% interval over prompts]. Accuracy and format on val "
        "of the in-domain dataset; KL(\\ensuremath{\\pi_0\\|\\pi}) on the base model's responses, several sets out of "
        "domain one below the other."
    )
    return latex.table(head, rows, "lr" + "r" * len(RUNS), caption, "tab:summary", "footnotesize")


def _cell(text: str | None) -> str:
    return "--" if text is None else latex.stacked([escape(line) for line in text.split("\n")], "r")


def _claims(frame: pl.DataFrame) -> str:
    rows: list[list[str]] = []
    for line in claims_table(frame):
        if rows and line.question:
            rows.append([])
        texts = (line.question, line.claim, line.numbers, line.seeds, line.p, line.verdict)
        rows.append([escape(text) for text in texts])
    columns = "".join(rf">{{\raggedright\arraybackslash}}p{{{share}\textwidth}}" for share in CLAIMS.values())
    caption = f"The study's questions. {escape(definition('summary').estimator)}"
    return latex.table([list(CLAIMS)], rows, columns, caption, "tab:claims", "scriptsize")
