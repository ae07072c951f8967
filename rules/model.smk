rule prefetch:
    localrule: True
    params:
        **task("prefetch", cfg=PREFETCH),
    shell:
        "python workflow/scripts/prefetch.py {params.job:q}"


rule base_model:
    input:
        **DEMO_DATA,
    output:
        model=directory(f"{ROOT}/model"),
    log:
        f"{ROOT}/logs/base_model.log",
    benchmark:
        f"{ROOT}/benchmarks/base_model.tsv"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        **task("base_model", cfg={"source": BASE, "prompt": plain(PROMPT), "question": QUESTIONS[IN_DOMAIN]}),
    shell:
        "python workflow/scripts/base_model.py {params.job:q} > {log} 2>&1"
