rule preflight:
    input:
        pictures(IN_DOMAIN),
        unpack(made_of),
        model=rules.base_model.output.model,
        data=f"{ROOT}/data/{IN_DOMAIN}/train.parquet",
        samples=f"{ROOT}/samples/base/{IN_DOMAIN}/train.parquet",
    output:
        report=f"{ROOT}/preflight/{{method}}.json",
    log:
        f"{ROOT}/logs/preflight/{{method}}.log",
    benchmark:
        f"{ROOT}/benchmarks/preflight/{{method}}.tsv"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(30),
    params:
        **task("preflight", cfg=preflight_cfg),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule train_sft:
    input:
        pictures(IN_DOMAIN),
        unpack(made_of),
        model=rules.base_model.output.model,
        data=f"{ROOT}/data/{IN_DOMAIN}/train.parquet",
        report=rules.preflight.output.report,
    output:
        **RUN,
    log:
        f"{ROOT}/logs/train/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{ROOT}/benchmarks/train/{{method}}/seed{{seed}}.tsv"
    wildcard_constraints:
        method=made_by("train_sft"),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        **TRAINING,
    params:
        **task("train_sft", cfg=train_cfg),
    shell:
        f"{LAUNCH} {{params.script}} {{params.job:q}} > {{log}} 2>&1"


use rule train_sft as train_dpo with:
    wildcard_constraints:
        method=made_by("train_dpo"),
    params:
        **task("train_dpo", cfg=train_cfg),


use rule train_sft as train_grpo with:
    wildcard_constraints:
        method=made_by("train_grpo"),
    params:
        **task("train_grpo", cfg=train_cfg),


use rule train_sft as train_em with:
    wildcard_constraints:
        method=made_by("train_em"),
    params:
        **task("train_em", cfg=train_cfg),


use rule train_sft as train_rft with:
    input:
        pictures(IN_DOMAIN),
        unpack(made_of),
        model=rules.base_model.output.model,
        data=f"{ROOT}/data/{IN_DOMAIN}/train.parquet",
        report=rules.preflight.output.report,
        samples=f"{ROOT}/samples/base/{IN_DOMAIN}/train.parquet",
    wildcard_constraints:
        method=made_by("train_rft"),
    params:
        **task("train_rft", cfg=train_cfg),


rule llamafactory_env:
    input:
        pins="envs/llamafactory.txt",
    output:
        environment=LLAMAFACTORY,
    log:
        f"{ROOT}/logs/llamafactory_env.log",
    localrule: True
    conda:
        "../envs/llamafactory.yaml"
    shell:
        "python workflow/scripts/llamafactory_env.py {input.pins:q} {output.environment:q} {log:q} > {log:q} 2>&1"


rule train_llamafactory:
    input:
        pictures(IN_DOMAIN),
        unpack(made_of),
        model=rules.base_model.output.model,
        data=f"{ROOT}/data/{IN_DOMAIN}/train.parquet",
        environment=ancient(rules.llamafactory_env.output.environment),
    output:
        **RUN,
    log:
        f"{ROOT}/logs/train/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{ROOT}/benchmarks/train/{{method}}/seed{{seed}}.tsv"
    wildcard_constraints:
        method=made_by("train_llamafactory"),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(64000),
        runtime=grows(1440),
    params:
        **task("train_llamafactory", cfg=train_cfg),
    shell:
        f"{LAUNCH} {{params.script}} {{params.job:q}} > {{log}} 2>&1"


rule train_reward_model:
    input:
        pictures(IN_DOMAIN),
        model=rules.base_model.output.model,
        preferences=rules.build_preferences.output.preferences,
        data=f"{ROOT}/data/{IN_DOMAIN}/train.parquet",
    output:
        trained=directory(f"{ROOT}/reward_model/model"),
        history=f"{ROOT}/reward_model/history.parquet",
        report=f"{ROOT}/reward_model/report.json",
    log:
        f"{ROOT}/logs/train_reward_model.log",
    benchmark:
        f"{ROOT}/benchmarks/train_reward_model.tsv"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(64000),
        runtime=grows(720),
    params:
        **task("train_reward_model", cfg={"reward_model": REWARD_MODEL, "matched": MATCHED}),
    shell:
        f"{LAUNCH} {{params.script}} {{params.job:q}} > {{log}} 2>&1"


rule merge:
    input:
        model=rules.base_model.output.model,
        parents=parents_of("milestones"),
        runs=parents_of("run.json"),
    output:
        **RUN,
    log:
        f"{ROOT}/logs/merge/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{ROOT}/benchmarks/merge/{{method}}/seed{{seed}}.tsv"
    wildcard_constraints:
        method=made_by("merge"),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(64000),
        runtime=grows(240),
    params:
        **task("merge", cfg=merge_cfg),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule import_external:
    input:
        external_files,
        model=rules.base_model.output.model,
    output:
        **RUN,
    log:
        f"{ROOT}/logs/import_external/{{method}}/seed{{seed}}.log",
    wildcard_constraints:
        method=made_by("import_external"),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=grows(16000),
        runtime=grows(60),
    params:
        **task("import_external", cfg=external_cfg),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule training:
    input:
        FOLDERS["runs"],
    localrule: True
