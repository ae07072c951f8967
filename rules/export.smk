rule export:
    input:
        pictures(*USED),
        model=rules.base_model.output.model,
        milestones=f"{ROOT}/runs/{{method}}/seed{{seed}}/milestones",
        run=f"{ROOT}/runs/{{method}}/seed{{seed}}/run.json",
        data=FOLDERS["data"],
        analyses=[rules.accuracy.output.table, rules.kl.output.table],
    output:
        folder=directory(f"{ROOT}/exports/{{method}}/seed{{seed}}"),
    log:
        f"{ROOT}/logs/export/{{method}}/seed{{seed}}.log",
    wildcard_constraints:
        method=ANY_METHOD,
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(64000),
        runtime=grows(120),
    params:
        **task("export", cfg=export_cfg),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule exports:
    input:
        [f"{ROOT}/exports/{name}" for name in RUN_NAMES],
    localrule: True
