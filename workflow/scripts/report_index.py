"""The report's first page: summary, a section an analysis, provenance; and the tables to download."""

from pathlib import Path

from memedynamics import drawings, report_page, report_provenance, report_sections, report_tables, tables, web_libraries
from memedynamics.job import run

OWN = ("index.css", "index.js", "figures.js", "index_tables.js")


def main(
    analyses: list[Path], drawn: list[Path], quality: list[Path], rejected: list[Path], runs: list[Path], root: Path,
    study: dict, notes: list[str], pages: list[report_page.Page], page: Path, assets: Path, downloads: Path,
) -> None:  # fmt: skip
    frames = {table.stem: tables.read(table, table.stem) for table in analyses}
    figures = {drawing.stem: drawings.read(drawing) for drawing in drawn}
    for table in analyses:
        report_tables.download(table, table.stem, downloads)
    web_libraries.copy(assets)
    report_page.copy_assets(assets, OWN)
    said = report_sections.told(frames, figures, runs, study)
    for section in said["sections"]:
        report_page.deliver(assets.parent, f"index/table_{section.name}", section.table.packed())
        report_page.deliver(assets.parent, f"index/figure_{section.name}", section.drawing.packed())
    made = report_provenance.provenance(root, analyses, quality, rejected, study)
    page.write_text(
        report_page.render(
            "index.html.j2", pages[0], pages=pages, study=study["study"], notes=notes, provenance=made, **said,
            commit=str(tables.provenance.get("commit", ""))[:12],
            sheets=["index/datatables.css", "index/index.css"],
            scripts=["index/index.js", "index/figures.js", "index/index_tables.js"],
        )
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
