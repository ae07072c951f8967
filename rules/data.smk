rule prepare_dataset:
    input:
        source_files,
    output:
        train=f"{ROOT}/data/{{dataset}}/train.parquet",
        val=f"{ROOT}/data/{{dataset}}/val.parquet",
        test=f"{ROOT}/data/{{dataset}}/test.parquet",
        rejected=f"{ROOT}/data/{{dataset}}/rejected.parquet",
        quality=f"{ROOT}/data/{{dataset}}/quality.parquet",
        pictures=directory(f"{ROOT}/data/{{dataset}}/pictures"),
    log:
        f"{ROOT}/logs/prepare_dataset/{{dataset}}.log",
    benchmark:
        f"{ROOT}/benchmarks/prepare_dataset/{{dataset}}.tsv"
    conda:
        "../envs/main.yaml"
    threads: 2
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        **task("prepare_dataset", cfg=dataset_cfg),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule data:
    input:
        quality=[f"{ROOT}/data/{name}/quality.parquet" for name in FOUND],
        rejected=[f"{ROOT}/data/{name}/rejected.parquet" for name in FOUND],
    log:
        f"{ROOT}/logs/data.log",
    localrule: True
    conda:
        "../envs/main.yaml"
    params:
        **task("print_data", cfg={"missing": MISSING}),
    shell:
        "python {params.script} {params.job:q} 2>&1 | tee {log}"
