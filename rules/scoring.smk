rule score_base:
    input:
        pictures(*USED),
        model=rules.base_model.output.model,
        probes=rules.build_probes.output.probes,
        data=[f"{ROOT}/data/{dataset}/{split}.parquet" for dataset, split in PROBED],
    output:
        traces=f"{ROOT}/traces/base/seed0/{{scatteritem}}.parquet",
        responses=f"{ROOT}/responses/base/seed0/{{scatteritem}}.parquet",
    log:
        f"{ROOT}/logs/score/base/{{scatteritem}}.log",
    benchmark:
        f"{ROOT}/benchmarks/score/base/{{scatteritem}}.tsv"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(64000),
        runtime=grows(720),
    params:
        **task("score", cfg={**SCORE, "fractions": [0.0]}),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


use rule score_base as score with:
    input:
        pictures(*USED),
        model=rules.base_model.output.model,
        milestones=f"{ROOT}/runs/{{method}}/seed{{seed}}/milestones",
        run=f"{ROOT}/runs/{{method}}/seed{{seed}}/run.json",
        probes=rules.build_probes.output.probes,
        own=rules.gather_own_samples.output.samples,
        data=[f"{ROOT}/data/{dataset}/{split}.parquet" for dataset, split in SPLITS],
    output:
        traces=f"{ROOT}/traces/{{method}}/seed{{seed}}/{{scatteritem}}.parquet",
        responses=f"{ROOT}/responses/{{method}}/seed{{seed}}/{{scatteritem}}.parquet",
    log:
        f"{ROOT}/logs/score/{{method}}/seed{{seed}}/{{scatteritem}}.log",
    benchmark:
        f"{ROOT}/benchmarks/score/{{method}}/seed{{seed}}/{{scatteritem}}.tsv"
    wildcard_constraints:
        method=ANY_METHOD,
    params:
        **task("score", cfg=SCORE),


use rule score as score_to_parent with:
    input:
        pictures(*USED),
        model=rules.base_model.output.model,
        milestones=f"{ROOT}/runs/{{method}}/seed{{seed}}/milestones",
        run=f"{ROOT}/runs/{{method}}/seed{{seed}}/run.json",
        own=rules.gather_own_samples.output.samples,
        parent=own_samples_of_parent,
        data=[f"{ROOT}/data/{dataset}/{split}.parquet" for dataset, split in SPLITS],
    output:
        traces=f"{ROOT}/to_parent/traces/{{method}}/seed{{seed}}/{{scatteritem}}.parquet",
        responses=f"{ROOT}/to_parent/responses/{{method}}/seed{{seed}}/{{scatteritem}}.parquet",
    log:
        f"{ROOT}/logs/score_to_parent/{{method}}/seed{{seed}}/{{scatteritem}}.log",
    benchmark:
        f"{ROOT}/benchmarks/score_to_parent/{{method}}/seed{{seed}}/{{scatteritem}}.tsv"
    wildcard_constraints:
        method="|".join(PARENTS) or "(?!)",
    params:
        **task("score", cfg=SCORE, rule="score_to_parent"),
