# What a model or its weights must be loaded for, once a run for all milestones; analyses reduce it. π0's own part is
# made once a study. In the order of the analyses: attention, gradients, sharpe, spectrum.
rule extract_attention_base:
    input:
        pictures(*USED),
        model=rules.base_model.output.model,
        data=[f"{ROOT}/data/{dataset}/{split}.parquet" for dataset, split in SPLITS],
        base_samples=[f"{ROOT}/samples/base/{dataset}/{split}.parquet" for dataset, split in SPLITS],
    output:
        extract=f"{ROOT}/extracts/attention/base/seed0.parquet",
    log:
        f"{ROOT}/logs/extract_attention/base/seed0.log",
    benchmark:
        f"{ROOT}/benchmarks/extract_attention/base/seed0.tsv"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(64000),
        runtime=grows(240),
    params:
        **task("extract_attention", cfg={**ATTENTION, "fractions": [0.0]}),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


use rule extract_attention_base as extract_attention with:
    input:
        pictures(*USED),
        **rules.extract_attention_base.input,
        milestones=f"{ROOT}/runs/{{method}}/seed{{seed}}/milestones",
        run=f"{ROOT}/runs/{{method}}/seed{{seed}}/run.json",
    output:
        extract=f"{ROOT}/extracts/attention/{{method}}/seed{{seed}}.parquet",
    log:
        f"{ROOT}/logs/extract_attention/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{ROOT}/benchmarks/extract_attention/{{method}}/seed{{seed}}.tsv"
    wildcard_constraints:
        method=ANY_METHOD,
    params:
        **task("extract_attention", cfg={**ATTENTION, "fractions": FRACTIONS}),


use rule extract_attention_base as extract_gradients_base with:
    input:
        pictures(IN_DOMAIN),
        model=rules.base_model.output.model,
        data=[f"{ROOT}/data/{IN_DOMAIN}/val.parquet"],
        base_samples=[f"{ROOT}/samples/base/{IN_DOMAIN}/val.parquet"],
    output:
        extract=f"{ROOT}/extracts/gradients/base/seed0.parquet",
    log:
        f"{ROOT}/logs/extract_gradients/base/seed0.log",
    benchmark:
        f"{ROOT}/benchmarks/extract_gradients/base/seed0.tsv"
    params:
        **task("extract_gradients", cfg={**GRADIENTS, "fractions": [0.0]}),


use rule extract_gradients_base as extract_gradients with:
    input:
        pictures(IN_DOMAIN),
        **rules.extract_gradients_base.input,
        milestones=f"{ROOT}/runs/{{method}}/seed{{seed}}/milestones",
        run=f"{ROOT}/runs/{{method}}/seed{{seed}}/run.json",
        own=rules.gather_own_samples.output.samples,
    output:
        extract=f"{ROOT}/extracts/gradients/{{method}}/seed{{seed}}.parquet",
    log:
        f"{ROOT}/logs/extract_gradients/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{ROOT}/benchmarks/extract_gradients/{{method}}/seed{{seed}}.tsv"
    wildcard_constraints:
        method=ANY_METHOD,
    params:
        **task("extract_gradients", cfg={**GRADIENTS, "fractions": FRACTIONS}),


use rule extract_attention_base as extract_sharpe_base with:
    input:
        pictures(*USED),
        model=rules.base_model.output.model,
        probes=rules.build_probes.output.probes,
        data=[f"{ROOT}/data/{dataset}/{split}.parquet" for dataset, split in PROBED],
    output:
        extract=f"{ROOT}/extracts/sharpe/base/seed0.parquet",
        signal=f"{ROOT}/extracts/signal/base/seed0.parquet",
    log:
        f"{ROOT}/logs/extract_sharpe/base/seed0.log",
    benchmark:
        f"{ROOT}/benchmarks/extract_sharpe/base/seed0.tsv"
    params:
        **task("extract_sharpe", cfg={**SHARPE, "fractions": [0.0]}),


use rule extract_sharpe_base as extract_sharpe with:
    input:
        pictures(*USED),
        **rules.extract_sharpe_base.input,
        milestones=f"{ROOT}/runs/{{method}}/seed{{seed}}/milestones",
        run=f"{ROOT}/runs/{{method}}/seed{{seed}}/run.json",
    output:
        extract=f"{ROOT}/extracts/sharpe/{{method}}/seed{{seed}}.parquet",
        signal=f"{ROOT}/extracts/signal/{{method}}/seed{{seed}}.parquet",
    log:
        f"{ROOT}/logs/extract_sharpe/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{ROOT}/benchmarks/extract_sharpe/{{method}}/seed{{seed}}.tsv"
    wildcard_constraints:
        method=ANY_METHOD,
    params:
        **task("extract_sharpe", cfg={**SHARPE, "fractions": FRACTIONS}),


rule base_svd:
    input:
        model=rules.base_model.output.model,
    output:
        svd=directory(f"{ROOT}/svd"),
    log:
        f"{ROOT}/logs/base_svd.log",
    cache: True
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(240),
    params:
        **task("base_svd", cfg={"layers": ADAPTED}),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule extract_spectrum:
    input:
        model=rules.base_model.output.model,
        svd=rules.base_svd.output.svd,
        milestones=f"{ROOT}/runs/{{method}}/seed{{seed}}/milestones",
        run=f"{ROOT}/runs/{{method}}/seed{{seed}}/run.json",
    output:
        extract=f"{ROOT}/extracts/spectrum/{{method}}/seed{{seed}}.parquet",
        bases=f"{ROOT}/extracts/bases/{{method}}/seed{{seed}}.safetensors",
    log:
        f"{ROOT}/logs/extract_spectrum/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{ROOT}/benchmarks/extract_spectrum/{{method}}/seed{{seed}}.tsv"
    wildcard_constraints:
        method=ANY_METHOD,
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(240),
    params:
        **task("extract_spectrum", cfg={"fractions": FRACTIONS, "settings": plain(STUDY.spectrum)}),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule extract_merge_path:
    input:
        pictures(IN_DOMAIN),
        model=rules.base_model.output.model,
        first=end_of("one", "milestones"),
        first_run=end_of("one", "run.json"),
        second=end_of("other", "milestones"),
        second_run=end_of("other", "run.json"),
        probes=rules.build_probes.output.probes,
        data=[f"{ROOT}/data/{IN_DOMAIN}/val.parquet"],
    output:
        extract=f"{ROOT}/extracts/merge_path/{{one}}__{{other}}/seed{{seed}}.parquet",
    log:
        f"{ROOT}/logs/extract_merge_path/{{one}}__{{other}}/seed{{seed}}.log",
    benchmark:
        f"{ROOT}/benchmarks/extract_merge_path/{{one}}__{{other}}/seed{{seed}}.tsv"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(64000),
        runtime=grows(240),
    params:
        **task("extract_merge_path", cfg=MERGE_PATH),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"
