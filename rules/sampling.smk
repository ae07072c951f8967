# What is drawn is kept: new rewards or weights grade it anew.
rule sample_base:
    input:
        own_pictures,
        data=f"{ROOT}/data/{{dataset}}/{{split}}.parquet",
        model=rules.base_model.output.model,
    output:
        samples=f"{ROOT}/drawn/base/{{dataset}}/{{split}}.{{scatteritem}}.parquet",
    log:
        f"{ROOT}/logs/sample_base/{{dataset}}/{{split}}.{{scatteritem}}.log",
    benchmark:
        f"{ROOT}/benchmarks/sample_base/{{dataset}}/{{split}}.{{scatteritem}}.tsv"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(240),
    params:
        **task("sample_base", cfg=sample_base_cfg, aside=SERVER),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule gather_samples:
    input:
        shards=gather.sample(f"{ROOT}/drawn/base/{{{{dataset}}}}/{{{{split}}}}.{{scatteritem}}.parquet"),
        data=[f"{ROOT}/data/{{dataset}}/{{split}}.parquet"],
    output:
        samples=f"{ROOT}/samples/base/{{dataset}}/{{split}}.parquet",
    log:
        f"{ROOT}/logs/gather_samples/{{dataset}}/{{split}}.log",
    localrule: True
    conda:
        "../envs/main.yaml"
    params:
        **task("gather_samples", cfg=GRADING),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule sample_policy:
    input:
        pictures(*USED),
        data=collect(f"{ROOT}/data/{{d[0]}}/{{d[1]}}.parquet", d=SPLITS[1:]),
        model=rules.base_model.output.model,
        milestones=f"{ROOT}/runs/{{method}}/seed{{seed}}/milestones",
        run=f"{ROOT}/runs/{{method}}/seed{{seed}}/run.json",
    output:
        samples=f"{ROOT}/drawn/{{method}}/seed{{seed}}.{{scatteritem}}.parquet",
    log:
        f"{ROOT}/logs/sample_policy/{{method}}/seed{{seed}}.{{scatteritem}}.log",
    benchmark:
        f"{ROOT}/benchmarks/sample_policy/{{method}}/seed{{seed}}.{{scatteritem}}.tsv"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(480),
    params:
        **task("sample_policy", cfg={**DRAWING_OWN, **OWN}),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


use rule gather_samples as gather_own_samples with:
    input:
        shards=gather.sample(f"{ROOT}/drawn/{{{{method}}}}/seed{{{{seed}}}}.{{scatteritem}}.parquet"),
        data=rules.sample_policy.input.data,
    output:
        samples=f"{ROOT}/samples/{{method}}/seed{{seed}}.parquet",
    log:
        f"{ROOT}/logs/gather_samples/{{method}}/seed{{seed}}.log",
    localrule: True


rule samples:
    input:
        [f"{ROOT}/samples/base/{dataset}/{split}.parquet" for dataset, split in SPLITS],
        FOLDERS["samples"],
    localrule: True
