"""The report of the smoke study: made with it or alone, and anew when its content or its looks change."""

import re
import shutil
from collections import Counter

import pytest

from smoke_study import planned, snakemake

pytestmark = pytest.mark.workflow


def append(file, text):
    file.write_text(file.read_text() + text)


def test_the_report_is_made_of_a_finished_study_and_follows_what_it_shows(copied):
    folder = copied / "results/smoke/report"
    assert planned(copied, "report") == Counter()
    shutil.rmtree(folder)
    made = {"report_shell": 1, "report_index": 1, "report_memes": 1}
    assert planned(copied, "report") == Counter({**made, "thumbnails": 3})
    snakemake(copied, "--cores", "2", "report")
    page = (folder / "index.html").read_text()
    files = re.findall(r'(?:src|href)="((?:assets|tables)/[^"]+)"', page)
    assert len(files) > 20 and all((folder / file).is_file() for file in files)
    assert {file.stem for file in (folder / "tables").glob("*.csv")} >= {"accuracy", "kl", "summary", "gradients"}
    for text in ("learning_rate: 0.001", "train", "base_model", "1 min", "commit"):
        assert text in page, text
    assert planned(copied, "report") == Counter()

    append(copied / "workflow/web/index.css", "/* The end. */\n")
    assert planned(copied, "report") == Counter(made)
    snakemake(copied, "--cores", "2", "report")
    assert (folder / "assets/index/index.css").read_text().endswith("/* The end. */\n")

    script = copied / "workflow/scripts/kl.py"
    script.write_text(script.read_text().replace("tables.write(", "print()\n    tables.write("))
    jobs = ("kl", "figure_kl", "summary", "figure_summary", "report_index")
    assert planned(copied, "report") == Counter(dict.fromkeys(jobs, 1))
