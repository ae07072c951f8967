rule prefetch:
    log:
        f"{ROOT}/logs/prefetch.log",
    localrule: True
    conda:
        "../envs/main.yaml"
    params:
        **task("prefetch", cfg=PREFETCH),
    shell:
        "HF_HUB_OFFLINE=0 python {params.script} {params.job:q} 2>&1 | tee {log}"


rule base_model:
    input:
        model_files(STUDY.base_model.source, STUDY.base_model.revision),
        pictures(IN_DOMAIN) if DEMO else [],
        **DEMO_DATA,
    output:
        model=directory(f"{ROOT}/model"),
    log:
        f"{ROOT}/logs/base_model.log",
    benchmark:
        f"{ROOT}/benchmarks/base_model.tsv"
    conda:
        "../envs/main.yaml"
    # The demo's model is trained here, before there is anything else to do.
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        **task("base_model", cfg=BASE_MODEL),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"
