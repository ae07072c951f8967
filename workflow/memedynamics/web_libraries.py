"""The libraries that the report's pages use, from the packages that hold them: Plotly, and DataTables (of itables).

They are packed as the pages' data are (`report_page.deliver`), to less than half their size, and `library` of load.js
runs them.
"""

import re
import shutil
from pathlib import Path

import itables
from plotly.offline import get_plotlyjs

from memedynamics import report_page

BUNDLE = Path(itables.__file__).parent / "html"
EXPORT = re.compile(r"export\s*\{([^}]*)\};?")


def copy(folder: Path) -> None:
    """Write plotly.js, datatables.js and datatables.css into `folder`, a page's own folder in assets/."""
    folder.mkdir(parents=True, exist_ok=True)
    report_page.deliver(folder.parent, f"{folder.name}/plotly", get_plotlyjs())
    report_page.deliver(folder.parent, f"{folder.name}/datatables", as_script((BUNDLE / "dt_bundle.js").read_text()))
    shutil.copyfile(BUNDLE / "dt_bundle.css", folder / "datatables.css")


def as_script(module: str) -> str:
    """The JavaScript `module` as a plain script, since browsers load no modules from file://.

    What it exports by default becomes the global DataTable. Raises ValueError where it exports nothing so, or more
    than once.
    """
    found = EXPORT.findall(module)
    names = [re.fullmatch(r"\s*([\w$]+) as default\s*", name) for export in found for name in export.split(",")]
    names = [name[1] for name in names if name]
    if len(found) != 1 or len(names) != 1:
        raise ValueError(f"itables' DataTables has {len(found)} exports, {len(names)} by default: not the known form")
    return f'(() => {{\n"use strict";\n{EXPORT.sub("", module)}\nglobalThis.DataTable = {names[0]};\n}})();\n'
