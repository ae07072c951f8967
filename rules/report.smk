# What all of the report's pages share; each page's own files lie in a folder of assets/ of its own.
rule report_shell:
    output:
        assets=[f"{ROOT}/report/assets/{name}" for name in SHELL],
    log:
        f"{ROOT}/logs/report/shell.log",
    localrule: True
    conda:
        "../envs/main.yaml"
    threads: 1
    params:
        **task("report_shell"),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule report_index:
    input:
        FOLDERS["runs"],
        drawn=collect(f"{ROOT}/figures/{{name}}.json", name=ANALYSES),
        analyses=collect(f"{ROOT}/analyses/{{name}}.parquet", name=ANALYSES),
        quality=[f"{ROOT}/data/{name}/quality.parquet" for name in USED],
        rejected=[f"{ROOT}/data/{name}/rejected.parquet" for name in USED],
    output:
        page=f"{ROOT}/report/index.html",
        assets=directory(f"{ROOT}/report/assets/index"),
        downloads=directory(f"{ROOT}/report/tables"),
    log:
        f"{ROOT}/logs/report/index.log",
    localrule: True
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        **task("report_index", cfg=REPORT, aside={"root": ROOT}, runs=FOLDERS["runs"]),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


# Made once: they depend on the data alone.
rule thumbnails:
    input:
        own_pictures,
        data=f"{ROOT}/data/{{dataset}}/{{split}}.parquet",
    output:
        pictures=directory(f"{ROOT}/report/pictures/{{dataset}}/{{split}}"),
    log:
        f"{ROOT}/logs/report/thumbnails/{{dataset}}/{{split}}.log",
    conda:
        "../envs/main.yaml"
    threads: 2
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        **task("thumbnails", cfg={"images": STUDY.report.images}),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule report_memes:
    input:
        BROWSED,
        TRACES,
        RESPONSES,
        model=rules.base_model.output.model,
    output:
        page=f"{ROOT}/report/memes.html",
        pieces=directory(f"{ROOT}/report/assets/memes"),
    log:
        f"{ROOT}/logs/report/memes.log",
    benchmark:
        f"{ROOT}/benchmarks/report_memes.tsv"
    conda:
        "../envs/main.yaml"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        **task("report_memes", cfg={"study": STUDY.study, "pages": PAGES, **plain(STUDY.report)}, **HELD_OUT),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule report:
    input:
        rules.report_shell.output,
        rules.report_index.output,
        rules.report_memes.output,
    localrule: True
