PAPER = f"{ROOT}/paper"


# Whole figures and panels; one job, since a browser's start takes longer than a figure.
rule paper_figures:
    input:
        drawings=collect(f"{ROOT}/figures/{{name}}.json", name=ANALYSES),
    output:
        [shown(f"{PAPER}/{name}.svg", name, "On paper", "paper") for name in ANALYSES],
        collect(f"{PAPER}/{{name}}.{{format}}", name=ANALYSES, format=["pdf", "png"]),
        panels=directory(f"{PAPER}/panels"),
    log:
        f"{ROOT}/logs/paper/figures.log",
    localrule: True
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        **task("paper_figures"),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule paper_text:
    input:
        drawings=collect(f"{ROOT}/figures/{{name}}.json", name=ANALYSES),
        analyses=collect(f"{ROOT}/analyses/{{name}}.parquet", name=ANALYSES),
    output:
        captions_file=f"{PAPER}/captions.tex",
        summary=f"{PAPER}/summary.tex",
    log:
        f"{ROOT}/logs/paper/text.log",
    localrule: True
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        **task("paper_text"),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule paper:
    input:
        rules.paper_figures.output,
        rules.paper_text.output,
    localrule: True
