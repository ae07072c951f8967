"""The page of the memes browser and its filters; what it shows of memes it reads from the pieces."""

from collections.abc import Mapping, Sequence

from memedynamics import report_page
from memedynamics.report_page import Page
from memedynamics.thumbnails import Pictures

FOLDER = "memes"  # in assets/
SCRIPTS = ("memes_index.js", "memes_list.js", "memes_answers.js", "memes_detail.js", "memes.js")
SHEETS = ("memes.css",)


def page(index: Mapping, study: str, pages: Sequence[Page], images: Pictures, commit: str) -> str:
    """The page that shows `index` (`meme_pieces.index` with its `runs`); `commit` is named at its foot."""
    filtered = _filtered(index)
    return report_page.render(
        "memes.html.j2",
        next(each for each in pages if each.href == "memes.html"),
        study=study,
        pages=pages,
        filters=report_page.study_filters(filtered),
        sheets=[f"{FOLDER}/{name}" for name in SHEETS],
        scripts=[f"{FOLDER}/{name}" for name in SCRIPTS],
        splits=index["splits"],
        methods=list(dict.fromkeys(run["method"] for run in index["runs"][1:])),
        groups=index["groups"],
        milestones=filtered["milestone"],
        looked=index["looked"].count("1"),
        images=images,
        commit=commit,
    )


def _filtered(index: Mapping) -> dict[str, list]:
    """What there is to choose from: of milestones those at which policies have answered, the base's start aside."""
    runs, splits = index["runs"][1:], index["splits"]
    return {
        "method": list(dict.fromkeys(run["method"] for run in runs)),
        "seed": sorted({run["seed"] for run in runs} - {None}),
        "dataset": list(dict.fromkeys(split["dataset"] for split in splits)),
        "split": list(dict.fromkeys(split["split"] for split in splits)),
        "milestone": sorted({run["milestone"] for run in runs}, key=float),
    }
