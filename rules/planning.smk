rule plan:
    log:
        f"{ROOT}/logs/plan.log",
    localrule: True
    conda:
        "../envs/main.yaml"
    params:
        **task("plan", cfg=PLAN),
    shell:
        "python {params.script} {params.job:q} 2>&1 | tee {log}"


# Shows and writes nothing, no log either: it may run beside the Snakemake that it follows.
rule watch:
    handover: True
    params:
        script="workflow/scripts/watch.py",
        folder=HOME,
    shell:
        "python -B {params.script} {params.folder:q}"


# A trial's own end: what each rule cost, for `plan` to extrapolate from.
rule extrapolate:
    input:
        ANSWERED,
        RESPONSES,
        rules.figures.input,
    output:
        costs_file=f"{ROOT}/costs.json",
    log:
        f"{ROOT}/logs/extrapolate.log",
    localrule: True
    conda:
        "../envs/main.yaml"
    params:
        **task("extrapolate", cfg=PLAN, root=ROOT),
    shell:
        "python {params.script} {params.job:q} 2>&1 | tee {log}"
