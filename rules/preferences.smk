rule build_preferences:
    input:
        samples=f"{ROOT}/samples/base/{IN_DOMAIN}/train.parquet",
        data=f"{ROOT}/data/{IN_DOMAIN}/train.parquet",
    output:
        preferences=f"{ROOT}/preferences.parquet",
        outcomes=f"{ROOT}/preferences/outcomes.parquet",
        trl=f"{ROOT}/preferences/trl.jsonl",
        llamafactory=directory(f"{ROOT}/preferences/llamafactory"),
    log:
        f"{ROOT}/logs/build_preferences.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        **task("build_preferences", cfg=PREFERENCES),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule greedy_base:
    input:
        pictures(IN_DOMAIN),
        data=f"{ROOT}/data/{IN_DOMAIN}/val.parquet",
        model=rules.base_model.output.model,
    output:
        samples=f"{ROOT}/drawn/greedy.parquet",
    log:
        f"{ROOT}/logs/greedy_base.log",
    benchmark:
        f"{ROOT}/benchmarks/greedy_base.tsv"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(120),
    params:
        **task("greedy_base", cfg=GREEDY),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


rule build_probes:
    input:
        greedy=rules.greedy_base.output.samples,
        model=rules.base_model.output.model,
        samples=[f"{ROOT}/samples/base/{dataset}/{split}.parquet" for dataset, split in PROBED],
        data=[f"{ROOT}/data/{dataset}/{split}.parquet" for dataset, split in PROBED],
    output:
        probes=f"{ROOT}/probes.parquet",
    log:
        f"{ROOT}/logs/build_probes.log",
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        **task("build_probes", cfg=TEXTS),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


use rule base_model as judge_model with:
    input:
        model_files(JUDGE.model.source, JUDGE.model.revision) if JUDGE and JUDGE.model else [],
    output:
        model=directory(f"{ROOT}/judge/model"),
    log:
        f"{ROOT}/logs/judge_model.log",
    benchmark:
        f"{ROOT}/benchmarks/judge_model.tsv"
    params:
        **task("base_model", cfg={"source": JUDGING["base"]}, rule="judge_model"),


rule judge:
    input:
        pictures(IN_DOMAIN),
        model=rules.judge_model.output.model if JUDGE and JUDGE.model else rules.base_model.output.model,
        preferences=rules.build_preferences.output.preferences,
        samples=rules.build_preferences.input.samples,
        data=rules.build_preferences.input.data,
    output:
        judgements=f"{ROOT}/judge/judgements.parquet",
    log:
        f"{ROOT}/logs/judge.log",
    benchmark:
        f"{ROOT}/benchmarks/judge.tsv"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(240),
    params:
        **task("judge", cfg=JUDGING),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


use rule build_preferences as judged_preferences with:
    input:
        judgements=rules.judge.output.judgements,
        samples=rules.build_preferences.input.samples,
        data=rules.build_preferences.input.data,
    output:
        preferences=f"{ROOT}/preferences/judged.parquet",
    log:
        f"{ROOT}/logs/judged_preferences.log",
    params:
        **task("judged_preferences", cfg=TRAINED_ON),
