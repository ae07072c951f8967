rule figures:
    input:
        collect(f"{ROOT}/figures/{{name}}.html", name=ANALYSES),
    localrule: True


rule figure_accuracy:
    input:
        table=rules.accuracy.output.table,
    output:
        figure=f"{ROOT}/figures/accuracy.html",
    log:
        f"{ROOT}/logs/figures/accuracy.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        **task("figure_accuracy", cfg={"notes": UNMATCHED}),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


use rule figure_accuracy as figure_kl with:
    input:
        table=rules.kl.output.table,
    output:
        figure=f"{ROOT}/figures/kl.html",
    log:
        f"{ROOT}/logs/figures/kl.log",
    params:
        **task("figure_kl", cfg={"notes": UNMATCHED}),
