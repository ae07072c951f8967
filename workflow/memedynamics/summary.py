"""All methods side by side, and the study's questions answered from the other analyses' tables (`questions`).

Rows without a question are the table: numbers of other analyses at the end of training with their own intervals and n
(`cells`), what the run cost (steps, tokens, FLOPs), and `gain_per_nat` (`gains`).
"""

from collections.abc import Mapping, Sequence

import polars as pl

from memedynamics.cells import END, Tables, table_rows
from memedynamics.gather import finish
from memedynamics.questions import answer_rows


def cost_rows(records: Mapping[tuple[str, int], Mapping[str, object]], in_domain: str) -> list[dict]:
    """Steps, tokens and FLOPs of every run, from its run.json; a run trained elsewhere has none."""
    rows = []
    for (method, seed), record in records.items():
        where = {"method": method, "seed": seed, "fraction": 1.0, "dataset": in_domain, "split": "train", **END, "n": 1}
        for name, unit in (("total_steps", "step"), ("tokens", "token"), ("flops", "FLOP")):
            value = record.get(name)
            missing = None if value is not None else "it was not trained here"
            rows.append({**where, "statistic": name, "value": value, "unit": unit, "missing": missing})
    return rows


def measure(
    tables: Tables,
    records: Mapping[tuple[str, int], Mapping[str, object]],
    gains: Sequence[dict],
    prompts: pl.DataFrame,
    runs: pl.DataFrame,
    kinds: Mapping[str, str],
    in_domain: str,
) -> pl.DataFrame:
    """The analysis `summary`, in its schema (`study` left to the writer).

    `tables`: the other analyses by name; `records`: run.json by method and seed; `gains` from gains.rows; `prompts`,
    `runs` from gather; `kinds`: each method's kind, those that stand for their kind first.
    """
    table = table_rows(tables, in_domain)
    rows = table + cost_rows(records, in_domain)
    rows += [{key: value for key, value in row.items() if key != "probe_kind"} for row in gains]
    rows += answer_rows(tables, table, prompts, runs, kinds, in_domain)
    empty = {"question": None, "versus": None, "measure": None, "verdict": None, "seed": None, "missing": None}
    return finish(pl.DataFrame([empty | row for row in rows], infer_schema_length=None), runs)
