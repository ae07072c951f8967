"""Only what changed is rebuilt: edits of a copied, finished study and the jobs a dry run then lists."""

import shutil
from collections import Counter

import pytest
import yaml

from smoke_study import SMOKE, copy_tree, planned, snakemake

pytestmark = pytest.mark.workflow

SAMPLES = {"sample_base": 8, "gather_samples": 4}
PAIRS = {"build_preferences": 1, "greedy_base": 1, "build_probes": 1}
TRAINING = {"preflight": 3, "train_sft": 1, "train_dpo": 1, "train_grpo": 1}
SCORES = {"sample_policy": 6, "gather_own_samples": 3, "score_base": 1, "score": 3}
LOOKED_AT = {"attention": 3, "gradients": 3, "sharpe": 3}
EXTRACTS = {f"extract_{name}": count for name, count in LOOKED_AT.items()} | {"extract_spectrum": 3}
OF_THE_BASE = {**{f"extract_{name}_base": 1 for name in LOOKED_AT}, "base_svd": 1}
OF_SCORES = ("accuracy", "kl", "likelihood", "entropy", "summary")
OF_SAMPLES_AND_EXTRACTS = ("rewards", "spectrum", "sharpe", "attention", "gradients")


def analyses(*names):
    return {job: 1 for name in names for job in (name, f"figure_{name}")}


ANALYSES = analyses(*OF_SCORES, *OF_SAMPLES_AND_EXTRACTS)
SHELL, INDEX, MEMES = ({f"report_{name}": 1} for name in ("shell", "index", "memes"))


def edit(folder, file, old, new):
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def edit_study(folder, change):
    study = yaml.safe_load((folder / SMOKE).read_text())
    change(study)
    (folder / SMOKE).write_text(yaml.safe_dump(study, sort_keys=False))


def test_nothing_to_do_when_finished(copied):
    assert planned(copied) == Counter()


def test_touch_and_comments_rebuild_nothing(copied):
    for file in copied.joinpath("workflow").rglob("*.py"):
        file.write_text(file.read_text() + "\n# The end.\n")
    (copied / "Snakefile").touch()
    assert planned(copied) == Counter()


@pytest.mark.parametrize("links", [True, False])
def test_fresh_clone_beside_copied_results_rebuilds_nothing(finished, tmp_path, links):
    """Also where what links led to was copied."""
    clone = copy_tree(tmp_path / "clone")
    shutil.copytree(finished / "results", clone / "results", symlinks=links)
    assert planned(clone) == Counter()


def test_no_artefact_knows_where_it_lies(finished):
    """So a study can be moved: no absolute path of the project in any result, and no link that leads out of it."""
    artefacts = [path for path in (finished / "results").rglob("*") if "logs" not in path.parts]
    assert not [path for path in artefacts if path.is_symlink() and path.readlink().is_absolute()]
    own = str(finished).encode()
    assert not [path for path in artefacts if path.is_file() and own in path.read_bytes()]


def test_an_unrelated_module_rebuilds_nothing(copied):
    edit(copied, "workflow/memedynamics/failures.py", "import", "UNUSED = 1\nimport")
    edit(copied, "workflow/memedynamics/plan.py", "GB = 1e9", "GB = 1e9 + 0")
    assert planned(copied) == Counter()


def test_an_analysis_rebuilds_itself_its_figure_the_summary_and_the_report(copied):
    edit(copied, "workflow/scripts/kl.py", "tables.write(", "print()\n    tables.write(")
    assert planned(copied) == Counter(analyses("kl", "summary") | INDEX)


def test_a_page_rebuilds_the_report_alone(copied):
    edit(copied, "workflow/web/filters.js", "use strict", "use  strict")
    assert planned(copied) == Counter(SHELL | INDEX | MEMES)


def test_logic_of_an_imported_module_always_rebuilds(copied):
    edit(copied, "workflow/memedynamics/divergences.py", "import torch", "import torch\n\nNEW = 1")
    assert planned(copied) == Counter({"score_base": 1, "score": 3, **analyses(*OF_SCORES), **INDEX, **MEMES})


def test_the_pairing_of_samples_leaves_what_has_no_pairs(copied):
    """Pairs make preferences, hence every run, probes, scores (CHES) and gradients (DPO's): not the base's own part."""
    edit(copied, "workflow/memedynamics/preferences.py", "def pair(", "NEW = 1\n\n\ndef pair(")
    jobs = planned(copied)
    assert jobs["build_preferences"] == jobs["train_sft"] == jobs["extract_gradients_base"] == 1
    assert not jobs.keys() & {"base_model", "sample_base", "base_svd", "extract_attention_base"}


def test_what_analyses_share_loads_no_model(copied):
    edit(copied, "workflow/memedynamics/gather.py", "return joined.sort(", "print()\n    return joined.sort(")
    edit(copied, "workflow/memedynamics/stats.py", "LEVEL = 0.95", "LEVEL = 0.95 + 0")
    assert planned(copied) == Counter(ANALYSES | SHELL | INDEX | MEMES)


def test_a_checkpoint_trained_elsewhere_is_a_run(copied):
    """Brought in by a line of the study file, checked and laid out; then it is sampled and scored like the others."""
    theirs = {"kind": "external", "path": "results/smoke/runs/sft/seed1/milestones/1"}
    edit_study(copied, lambda study: study["methods"].update(theirs=theirs))
    jobs = planned(copied)
    assert jobs["import_external"] == jobs["score"] == 1 and not jobs.keys() & {"train_sft", "preflight"}
    snakemake(copied, "--cores", "1", "results/smoke/runs/theirs/seed0/run.json")
    folder = copied / "results/smoke/runs/theirs/seed0/milestones"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"0", "1"}


def test_the_cached_decomposition_serves_a_study_of_another_name(copied, tmp_path):
    """Snakemake's cache hashes what a job's result depends on; the study's name is no part of it."""

    def decompose(study):
        svd = copied / "results" / study / "svd"
        svd.unlink() if svd.is_symlink() else shutil.rmtree(svd)
        cache = {"SNAKEMAKE_OUTPUT_CACHE": str(tmp_path / "cache")}
        done = snakemake(copied, "base_svd", "--cores", "1", "--cache", "base_svd", **cache)
        assert (svd / "base.json").is_file()
        return "Moving output file" in done.stdout

    (tmp_path / "cache").mkdir()
    assert decompose("smoke"), "the first study has nothing to take"
    edit_study(copied, lambda study: study.update(study="another"))
    shutil.move(copied / "results/smoke", copied / "results/another")
    assert not decompose("another"), "computed anew"


def test_a_prompt_rebuilds_sampling_and_everything_after(copied):
    edit(copied, "config/prompts/think_answer_text.yaml", "Is it hateful?", "Is this hateful?")
    everything = Counter(
        {"base_model": 1, **SAMPLES, **PAIRS, **TRAINING, **SCORES, **EXTRACTS, **OF_THE_BASE, **ANALYSES}
        | INDEX
        | MEMES
    )
    assert planned(copied) == everything


def test_a_reward_weight_grades_anew_and_draws_nothing_from_the_base(copied):
    edit_study(copied, lambda study: study.update(rewards={"format": 0.2, "accuracy": 0.8}))
    jobs = planned(copied)
    assert jobs["gather_samples"] == 4 and jobs["train_grpo"] == 1 and jobs["sample_base"] == 0


def test_what_changes_no_result_rebuilds_the_report_alone(copied):
    """A dataset nobody uses, a question nobody asks: the report's first page shows the study file."""

    def unused(study):
        study["datasets"]["more"] = {"reader": "pictograms"}

    edit_study(copied, unused)
    edit(copied, "config/prompts/think_answer_text.yaml", "Is it harmful?", "Is it bad?")
    assert planned(copied) == Counter(INDEX)


def test_a_seed_added_runs_that_seed_and_what_aggregates(copied):
    edit_study(copied, lambda study: study.update(seeds=[1, 2]))
    new_run = {"train_sft": 1, "train_dpo": 1, "train_grpo": 1, "sample_policy": 6, "gather_own_samples": 3, "score": 3}
    assert planned(copied) == Counter({**new_run, **EXTRACTS, **ANALYSES, **INDEX, **MEMES})


def test_two_hyperparameters_swapped_retrain(copied):
    """Snakemake compares several scalar parameters as a set without names; one dict is compared whole."""

    def swap(study):
        args = study["training"]
        args["max_steps"], args["per_device_train_batch_size"] = args["per_device_train_batch_size"], args["max_steps"]

    edit_study(copied, swap)
    assert {"train_sft", "train_dpo", "train_grpo"} <= set(planned(copied))
