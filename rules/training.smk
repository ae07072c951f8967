rule preflight:
    input:
        model=rules.base_model.output.model,
        preferences=rules.build_preferences.output.preferences,
        data=f"{ROOT}/data/{IN_DOMAIN}/train.parquet",
        samples=f"{ROOT}/samples/base/{IN_DOMAIN}/train.parquet",
    output:
        report=f"{ROOT}/preflight/{{method}}.json",
    log:
        f"{ROOT}/logs/preflight/{{method}}.log",
    benchmark:
        f"{ROOT}/benchmarks/preflight/{{method}}.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(30),
    params:
        **task("preflight", cfg=preflight_cfg),
    shell:
        "python workflow/scripts/preflight.py {params.job:q} > {log} 2>&1"


rule train_sft:
    wildcard_constraints:
        method=one_of("sft"),
    input:
        model=rules.base_model.output.model,
        preferences=rules.build_preferences.output.preferences,
        data=f"{ROOT}/data/{IN_DOMAIN}/train.parquet",
        report=rules.preflight.output.report,
    output:
        milestones=directory(f"{ROOT}/runs/{{method}}/seed{{seed}}/milestones"),
        history=f"{ROOT}/runs/{{method}}/seed{{seed}}/history.parquet",
        rollouts=f"{ROOT}/runs/{{method}}/seed{{seed}}/rollouts.parquet",
        run=f"{ROOT}/runs/{{method}}/seed{{seed}}/run.json",
    log:
        f"{ROOT}/logs/train/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{ROOT}/benchmarks/train/{{method}}/seed{{seed}}.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(64000),
        runtime=grows(1440),
    params:
        **task("train_sft", cfg=train_cfg),
    shell:
        f"{LAUNCH} workflow/scripts/train_sft.py {{params.job:q}} > {{log}} 2>&1"


use rule train_sft as train_dpo with:
    wildcard_constraints:
        method=one_of("dpo"),
    params:
        **task("train_dpo", cfg=train_cfg),
    shell:
        f"{LAUNCH} workflow/scripts/train_dpo.py {{params.job:q}} > {{log}} 2>&1"


use rule train_sft as train_grpo with:
    wildcard_constraints:
        method=one_of("grpo"),
    params:
        **task("train_grpo", cfg=train_cfg),
    shell:
        f"{LAUNCH} workflow/scripts/train_grpo.py {{params.job:q}} > {{log}} 2>&1"


rule import_external:
    wildcard_constraints:
        method=one_of("external"),
    input:
        model=rules.base_model.output.model,
    output:
        **rules.train_sft.output,
    log:
        f"{ROOT}/logs/import_external/{{method}}/seed{{seed}}.log",
    threads: 1
    resources:
        mem_mb=grows(16000),
        runtime=grows(60),
    params:
        **task("import_external", cfg=method_cfg),
    shell:
        "python workflow/scripts/import_external.py {params.job:q} > {log} 2>&1"


rule training:
    localrule: True
    input:
        collect(rules.train_sft.output.run, zip, **BY_RUN),
