rule analyses:
    input:
        collect(f"{ROOT}/analyses/{{name}}.parquet", name=ANALYSES),
    localrule: True


# Inputs are unnamed: they are too many for one command line, so scripts are told the folders that hold them.
rule accuracy:
    input:
        ANALYSED,
    output:
        table=f"{ROOT}/analyses/accuracy.parquet",
    log:
        f"{ROOT}/logs/accuracy.log",
    benchmark:
        f"{ROOT}/benchmarks/accuracy.tsv"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        **task("accuracy", cfg={"resamples": STUDY.resamples, "in_domain": IN_DOMAIN}, **FOLDERS),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


use rule accuracy as kl with:
    output:
        table=f"{ROOT}/analyses/kl.parquet",
    log:
        f"{ROOT}/logs/kl.log",
    benchmark:
        f"{ROOT}/benchmarks/kl.tsv"
    params:
        **task("kl", cfg={"resamples": STUDY.resamples}, **FOLDERS),
