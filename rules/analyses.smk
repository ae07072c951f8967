rule accuracy:
    input:
        **ANALYSED,
        base=[f"{ROOT}/samples/base/{dataset}/{split}.parquet" for dataset, split in SPLITS],
    output:
        table=f"{ROOT}/analyses/accuracy.parquet",
    log:
        f"{ROOT}/logs/accuracy.log",
    benchmark:
        f"{ROOT}/benchmarks/accuracy.tsv"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        **task("accuracy", cfg=ANALYSIS, folder=ROOT),
    shell:
        "python workflow/scripts/accuracy.py {params.job:q} > {log} 2>&1"


use rule accuracy as kl with:
    output:
        table=f"{ROOT}/analyses/kl.parquet",
    log:
        f"{ROOT}/logs/kl.log",
    benchmark:
        f"{ROOT}/benchmarks/kl.tsv"
    params:
        **task("kl", cfg=ANALYSIS, folder=ROOT),
    shell:
        "python workflow/scripts/kl.py {params.job:q} > {log} 2>&1"


rule analyses:
    localrule: True
    input:
        rules.accuracy.output.table,
        rules.kl.output.table,
