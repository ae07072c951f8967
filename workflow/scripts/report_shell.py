"""What the report's pages share: style, filters, loading of data."""

from pathlib import Path

from memedynamics import report_page
from memedynamics.job import run


def main(assets: list[Path]) -> None:
    report_page.copy_assets(assets[0].parent, [asset.name for asset in assets])


if __name__ == "__main__":
    run(main)
