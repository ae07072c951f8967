rule analyses:
    input:
        collect(f"{ROOT}/analyses/{{name}}.parquet", name=ANALYSES),
    localrule: True


# Inputs are unnamed: they are too many for one command line, so scripts are told the folders that hold them.
rule accuracy:
    input:
        ANSWERED,
        RESPONSES,
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
        **task("accuracy", cfg=BOOTSTRAP, **FOLDERS),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


use rule accuracy as kl with:
    input:
        FOLDERS["runs"],
        FOLDERS["data"],
        TRACES,
        RESPONSES,
        SCORED_TO_PARENT,
    output:
        table=f"{ROOT}/analyses/kl.parquet",
    log:
        f"{ROOT}/logs/kl.log",
    benchmark:
        f"{ROOT}/benchmarks/kl.tsv"
    params:
        **task("kl", cfg={"resamples": STUDY.resamples, "parents": PARENTS}, **FOLDERS, **TO_PARENT),


use rule accuracy as likelihood with:
    input:
        FOLDERS["runs"],
        FOLDERS["data"],
        RESPONSES,
        probes=rules.build_probes.output.probes,
    output:
        table=f"{ROOT}/analyses/likelihood.parquet",
    log:
        f"{ROOT}/logs/likelihood.log",
    benchmark:
        f"{ROOT}/benchmarks/likelihood.tsv"
    params:
        **task("likelihood", cfg=LIKELIHOOD, **FOLDERS),


use rule accuracy as rewards with:
    input:
        ANSWERED,
        FOLDERS["histories"],
        FOLDERS["rollouts"],
        **GRADED_BY,
        preferences=rules.build_preferences.output.preferences,
    output:
        table=f"{ROOT}/analyses/rewards.parquet",
    log:
        f"{ROOT}/logs/rewards.log",
    benchmark:
        f"{ROOT}/benchmarks/rewards.tsv"
    params:
        **task("rewards", cfg=REWARDS, **FOLDERS),


use rule accuracy as spectrum with:
    input:
        extracts=[f"{ROOT}/extracts/spectrum/{name}.parquet" for name in RUN_NAMES],
        bases=[f"{ROOT}/extracts/bases/{name}.safetensors" for name in RUN_NAMES],
        runs=FOLDERS["runs"],
    output:
        table=f"{ROOT}/analyses/spectrum.parquet",
    log:
        f"{ROOT}/logs/spectrum.log",
    benchmark:
        f"{ROOT}/benchmarks/spectrum.tsv"
    params:
        **task("spectrum", cfg={"resamples": STUDY.resamples, "compared": COMPARED}),


use rule accuracy as sharpe with:
    input:
        extracts=[f"{ROOT}/extracts/sharpe/{name}.parquet" for name in SCORED],
        signals=[f"{ROOT}/extracts/signal/{name}.parquet" for name in SCORED],
        runs=FOLDERS["runs"],
        data=FOLDERS["data"],
    output:
        table=f"{ROOT}/analyses/sharpe.parquet",
    log:
        f"{ROOT}/logs/sharpe.log",
    benchmark:
        f"{ROOT}/benchmarks/sharpe.tsv"
    params:
        **task("sharpe", cfg=BOOTSTRAP),


use rule accuracy as attention with:
    input:
        extracts=[f"{ROOT}/extracts/attention/{name}.parquet" for name in SCORED],
        runs=FOLDERS["runs"],
        data=FOLDERS["data"],
    output:
        table=f"{ROOT}/analyses/attention.parquet",
    log:
        f"{ROOT}/logs/attention.log",
    benchmark:
        f"{ROOT}/benchmarks/attention.tsv"
    params:
        **task("attention", cfg={"resamples": STUDY.resamples}),


use rule accuracy as gradients with:
    input:
        extracts=[f"{ROOT}/extracts/gradients/{name}.parquet" for name in SCORED],
        runs=FOLDERS["runs"],
        data=FOLDERS["data"],
    output:
        table=f"{ROOT}/analyses/gradients.parquet",
    log:
        f"{ROOT}/logs/gradients.log",
    benchmark:
        f"{ROOT}/benchmarks/gradients.tsv"
    params:
        **task("gradients", cfg={"resamples": STUDY.resamples}),


use rule accuracy as entropy with:
    input:
        ANSWERED,
        TRACES,
    output:
        table=f"{ROOT}/analyses/entropy.parquet",
    log:
        f"{ROOT}/logs/entropy.log",
    benchmark:
        f"{ROOT}/benchmarks/entropy.tsv"
    params:
        **task("entropy", cfg={"resamples": STUDY.resamples}, **FOLDERS),


use rule accuracy as summary with:
    input:
        ANSWERED,
        RESPONSES,
        accuracy=rules.accuracy.output.table,
        kl=rules.kl.output.table,
        likelihood=rules.likelihood.output.table,
        spectrum=rules.spectrum.output.table,
        sharpe=rules.sharpe.output.table,
        attention=rules.attention.output.table,
        entropy=rules.entropy.output.table,
    output:
        table=shown(f"{ROOT}/analyses/summary.parquet", "summary", "Tables", "summary"),
    log:
        f"{ROOT}/logs/summary.log",
    benchmark:
        f"{ROOT}/benchmarks/summary.tsv"
    params:
        **task("summary", cfg={**BOOTSTRAP, "kinds": KINDS}, **FOLDERS),


use rule accuracy as judgement with:
    input:
        judgements=rules.judge.output.judgements,
        samples=rules.judge.input.samples,
        data=[rules.judge.input.data],
    output:
        table=f"{ROOT}/analyses/judgement.parquet",
    log:
        f"{ROOT}/logs/judgement.log",
    benchmark:
        f"{ROOT}/benchmarks/judgement.tsv"
    params:
        **task("judgement", cfg={"resamples": STUDY.resamples}),


use rule accuracy as merge_path with:
    input:
        extracts=[
            f"{ROOT}/extracts/merge_path/{first}__{second}/seed{seed}.parquet" for first, second, seed in MERGE_PATHS
        ],
        runs=FOLDERS["runs"],
        data=[f"{ROOT}/data/{IN_DOMAIN}/val.parquet"],
    output:
        table=f"{ROOT}/analyses/merge_path.parquet",
    log:
        f"{ROOT}/logs/merge_path.log",
    benchmark:
        f"{ROOT}/benchmarks/merge_path.tsv"
    params:
        **task("merge_path", cfg={"pairs": STUDY.merge_path.pairs, "resamples": STUDY.resamples}),


use rule accuracy as parity with:
    input:
        runs=FOLDERS["runs"],
        histories=FOLDERS["histories"],
    output:
        table=f"{ROOT}/analyses/parity.parquet",
    log:
        f"{ROOT}/logs/parity.log",
    benchmark:
        f"{ROOT}/benchmarks/parity.tsv"
    params:
        **task("parity", cfg={"twins": TWINS, "in_domain": IN_DOMAIN}),
