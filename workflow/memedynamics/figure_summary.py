"""Figure of the analysis `summary`: what each method did, side by side, and what the data says to each question."""

from collections.abc import Sequence
from html import escape
from textwrap import wrap

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels
from memedynamics.verdicts import Line, claims_table

PANELS = [
    ("accuracy", "Accuracy, val", "share of answers", False),
    ("accuracy_gain", "Accuracy gain, val", "share of answers", True),
    ("accuracy_gain_out_of_domain", "Gain out of domain", "share of answers", True),
    ("gain_per_nat", "Accuracy gain per nat", "1 / nat", True),
    ("forward_kl", "KL(π<sub>0</sub>‖π), val", "nat / response", True),
    ("forward_kl_out_of_domain", "KL out of domain", "nat / response", True),
    ("displaced_share", "Displaced pairs", "share of pairs", True),
    ("effective_rank_at_norm", "Directions at equal ‖ΔW‖", "effective rank", False),
    ("decision_entropy", "Entropy of the decision", "nat", False),
    ("auroc_error", "Entropy tells errors", "AUROC", False),
    ("milestone_correlation", "Entropy with accuracy", "ρ over milestones", True),
    ("train_val_gap", "Decision, train − val", "share of decisions", True),
    ("overfit_index", "Overfit index, picture", "Sharpe ratio", True),
    ("image_attention_shift", "Shift to the picture", "share of attention", True),
    ("blank_accuracy_change", "Without the picture", "change of accuracy", True),
    ("noise_accuracy", "Right under noise", "share of decisions", False),
    ("noise_accuracy_change", "Change under noise", "change of accuracy", True),
    ("total_steps", "Steps of training", "step", True),
    ("tokens", "Tokens trained on", "token", True),
    ("flops", "Cost of training", "FLOP", True),
]
ACROSS = 4
COLUMNS = [22, 23, 33, 11, 9, 17]  # relative widths of the table of claims
NOTE = (
    "a–q: end of training, mean over prompts, bars 95 % cluster bootstrap (h: over modules and layers). c, f: the "
    "out-of-domain sets, left to right. d: blank where the KL<br>does not clear the noise floor. h: effective rank of "
    "the update, each run read where its norm passes the smallest final one of plain SFT, DPO and GRPO.<br>"
    "j: how often a wrong decision has more entropy than a right one; ½ says nothing. k: Spearman’s ρ over a run’s "
    "milestones.<br>l: after the base’s own "
    "texts, on some of which SFT and DPO were trained. m: by occlusion.<br>n: attention of the last prompt token, "
    "policy minus base. o–q: the policy’s own greedy answers; p, q: under the strongest noise.<br>"
    "A claim needs every seed’s interval (p is the largest), all runs of one method on one side of the other’s (seeds "
    "agree; of how many), two seeds and ten clusters or more,<br>and Holm’s correction over all claims that could be "
    "decided; the others have no p. Relations: ρ over runs, p over methods, of which it takes six.<br>Entropy at "
    "equal accuracy: at the highest accuracy that both methods reach. Not decided is not equal."
)


def figure_summary(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `summary`; `notes` on the study close its caption."""
    rows = len(PANELS) // ACROSS
    claimed = claims_table(frame)
    share = _share(claimed)
    # Names of many methods stand upright below their panels.
    gap = 0.3 if frame["method"].n_unique() <= 7 else 0.4
    specs = [[{}] * ACROSS] * rows + [[{"type": "table", "colspan": ACROSS}, *[None] * (ACROSS - 1)]]
    figure = make_subplots(
        rows=rows + 1, cols=ACROSS, specs=specs, row_heights=[1] * rows + [share],
        vertical_spacing=gap / (rows + share), horizontal_spacing=0.085,
    )  # fmt: skip
    table = frame.filter(pl.col("question").is_null())
    for place, (statistic, text, unit, from_zero) in enumerate(PANELS):
        row, col = place // ACROSS + 1, place % ACROSS + 1
        panels.title(figure, row, col, chr(ord("a") + place), text)
        panels.by_method(figure, row, col, table.filter(pl.col("statistic") == statistic), unit)
        if from_zero:
            figure.add_hline(y=0, line={"color": figures.COLOURS["base"], "width": 1}, row=row, col=col)
    _questions(figure, rows + 1, claimed)
    return figures.finish(figure, table, "What each method did", NOTE, rows + share, notes)


def _questions(figure: go.Figure, row: int, lines: Sequence[Line]) -> None:
    head = ["question", "claim", "difference or correlation [95 %]", "seeds", "p (Holm)", "what this data says"]
    columns = [[escape(text, quote=False) for text in column] for column in zip(*lines, strict=True)] or [[]] * 6
    said = [text if text.startswith("not decided") else f"<b>{text}</b>" for text in columns[5]]
    look = {"align": "left", "line_color": "#dddddd", "height": 22}
    figure.add_table(
        header={"values": [f"<b>{text}</b>" for text in head], "fill_color": "#f2f2f2", **look},
        cells={"values": [*columns[:5], said], "fill_color": "white", **look},
        columnwidth=COLUMNS, row=row, col=1,
    )  # fmt: skip


def _share(lines: Sequence[Line]) -> float:
    """The height of the table of `lines`, in rows of panels, from how often its cells' texts wrap."""
    letters = [int(1.25 * width) for width in COLUMNS]
    rows = [max(len(wrap(text, n)) for text, n in zip(line, letters, strict=False)) for line in lines]
    return (350 + sum(15 + 15 * count for count in rows)) / figures.PANEL
