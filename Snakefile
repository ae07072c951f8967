import sys

from snakemake.utils import min_version

min_version("9.27")
sys.path.insert(0, f"{workflow.basedir}/workflow")

# A study file replaces the demo: with a plain `configfile:` Snakemake would merge the two.
if not workflow.overwrite_configfiles:

    configfile: "config/demo.yaml"


report: "workflow/report/study.rst"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/model.smk"
include: "rules/sampling.smk"
include: "rules/preferences.smk"
include: "rules/training.smk"
include: "rules/scoring.smk"
include: "rules/extracts.smk"
include: "rules/analyses.smk"
include: "rules/figures.smk"
include: "rules/paper.smk"
include: "rules/report.smk"
include: "rules/export.smk"
include: "rules/planning.smk"


onstart:
    arrays = getattr(workflow.executor_settings, "array_jobs", None)
    or_stop(array_tasks.refuse_storage, COPIES, arrays)
    claim(log)


onerror:
    print_failures(log)


rule all:
    default_target: True
    input:
        rules.analyses.input,
        rules.figures.input,
        rules.report.input,
        rules.extrapolate.output.costs_file if STUDY.trial else [],
