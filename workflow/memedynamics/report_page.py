"""The shell that the report's pages share: header, filters, style, and how data reach a page that is opened from disk.

A page is a template in workflow/web that extends base.html.j2, rendered by `render` into report/<page>.html; beside it
lies report/assets/: what all pages share, made by the rule report_shell, and a folder for each page's own files, which
its rule declares as an output (assets/index, assets/memes). A template fills these blocks:

    content        the page; sections are <section id="…">, each with its <h2>
    aside          optional, left of it: <nav class="sections" aria-label="Sections"><ol>…
    own_filters    optional, in the filter bar: the page's own <fieldset>s and search boxes, without data-filter
    title, footer  optional

and is told, besides what the page itself needs: `study`, `pages` and `here` (the pages there are, and this one),
`filters`, `commit`, `sheets` and `scripts` (further files in assets/, as index/tables.js; load.js and filters.js come
first).
Everything is escaped by Jinja; no page may mark a text as safe. Inline scripts do not run (Content-Security-Policy):
JavaScript lies in files, data in script files that `deliver` writes and `loaded(name)` of load.js reads on demand.

What filters.js gives a page is said at its top. A page applies them in `filters.subscribe(() => …)`.
"""

import base64
import json
import re
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from memedynamics import figures, milestones

WEB = Path(__file__).parents[1] / "web"
LABELS = {"method": "Method", "seed": "Seed", "dataset": "Dataset", "split": "Split", "milestone": "Milestone"}


class Page(NamedTuple):
    """A page of the report: its file's name and what the header calls it."""

    href: str
    label: str


class Choice(NamedTuple):
    """One value of a filter: as it stands in the data and the URL, as it is read, and its colour where it has one."""

    value: str
    text: str
    colour: str = ""


class Filter(NamedTuple):
    """A filter of the bar: its key in the URL, its label, its choices."""

    name: str
    label: str
    choices: list[Choice]


def own_seeds(runs: Iterable[tuple[str, int | None]]) -> set[int]:
    """The seeds that tell `runs` (method, seed) apart, on all pages: those of the method with most runs, and any but 0.

    Runs trained elsewhere stand as seed 0, which says nothing beside methods that have other seeds.
    """
    seeds: dict[str, set[int]] = {}
    for method, seed in runs:
        seeds.setdefault(method, set()).update(() if seed is None else (seed,))
    most = max(seeds.values(), key=lambda own: (len(own), sum(own)), default=set())
    return most.union(*seeds.values()) - ({0} - most)


def study_filters(values: Mapping[str, Sequence[str | int | float]]) -> list[Filter]:
    """The filters over `values`, by name of filter (keys of LABELS); those with one value or none are left out.

    The base is no choice of the method's: what it did stands beside all others.
    """
    found = [Filter(name, LABELS[name], _choices(name, values.get(name, []))) for name in LABELS]
    return [each for each in found if len(each.choices) > 1]


def _choices(name: str, values: Sequence[str | int | float]) -> list[Choice]:
    if name == "method":
        palette = figures.colours([str(method) for method in values])
        return [Choice(method, figures.name(method), palette[method]) for method in figures.ordered(values)]
    texts = [milestones.label(value) if isinstance(value, float) else str(value) for value in values]
    return [Choice(text, text) for text in texts]


def render(template: str, here: Page, **given: object) -> str:
    """The page that `template`, a file of workflow/web, makes of what it is `given`; raises where something lacks."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["method_name"] = figures.name
    return environment.get_template(template).render(here=here, **{"sheets": [], "scripts": [], "commit": "", **given})


def copy_assets(folder: Path, names: Iterable[str]) -> None:
    """Copy the files of workflow/web called `names` into `folder`, assets/ or a page's own folder in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(WEB / name, folder / name)


def deliver(folder: Path, name: str, payload: object) -> None:
    """Write `payload` (JSON) as the script file <name>.js of `folder`, a report's assets/, for `loaded(name)`.

    `name` leads into the page's own folder (memes/12). Packed, since tables and figures repeat themselves: a tenth of
    the size. NaN is not JSON: raises ValueError.
    """
    if not re.fullmatch(r"[\w./-]+", name):
        raise ValueError(f"{name!r} is no name for a script file")
    text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    file = folder / f"{name}.js"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'deliver("{name}","{packed}");\n')
