rule figures:
    input:
        collect(f"{ROOT}/figures/{{name}}.html", name=ANALYSES),
    localrule: True


rule figure_accuracy:
    input:
        table=rules.accuracy.output.table,
    output:
        **drawn("accuracy"),
    log:
        f"{ROOT}/logs/figures/accuracy.log",
    localrule: True
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        **task("figure_accuracy", cfg={"notes": UNMATCHED}),
    shell:
        "python {params.script} {params.job:q} > {log} 2>&1"


use rule figure_accuracy as figure_kl with:
    input:
        table=rules.kl.output.table,
    output:
        **drawn("kl"),
    log:
        f"{ROOT}/logs/figures/kl.log",
    localrule: True
    params:
        **task("figure_kl", cfg={"notes": UNMATCHED}),


use rule figure_accuracy as figure_likelihood with:
    input:
        table=rules.likelihood.output.table,
    output:
        **drawn("likelihood"),
    log:
        f"{ROOT}/logs/figures/likelihood.log",
    localrule: True
    params:
        **task("figure_likelihood", cfg={"notes": UNMATCHED}),


use rule figure_accuracy as figure_rewards with:
    input:
        table=rules.rewards.output.table,
    output:
        **drawn("rewards"),
    log:
        f"{ROOT}/logs/figures/rewards.log",
    localrule: True
    params:
        **task("figure_rewards", cfg={"notes": UNMATCHED}),


use rule figure_accuracy as figure_spectrum with:
    input:
        table=rules.spectrum.output.table,
    output:
        **drawn("spectrum"),
    log:
        f"{ROOT}/logs/figures/spectrum.log",
    localrule: True
    params:
        **task("figure_spectrum", cfg={"notes": UNMATCHED}),


use rule figure_accuracy as figure_sharpe with:
    input:
        table=rules.sharpe.output.table,
    output:
        **drawn("sharpe"),
    log:
        f"{ROOT}/logs/figures/sharpe.log",
    localrule: True
    params:
        **task("figure_sharpe", cfg={"notes": UNMATCHED}),


use rule figure_accuracy as figure_attention with:
    input:
        table=rules.attention.output.table,
    output:
        **drawn("attention"),
    log:
        f"{ROOT}/logs/figures/attention.log",
    localrule: True
    params:
        **task("figure_attention", cfg={"notes": UNMATCHED}),


use rule figure_accuracy as figure_entropy with:
    input:
        table=rules.entropy.output.table,
    output:
        **drawn("entropy"),
    log:
        f"{ROOT}/logs/figures/entropy.log",
    localrule: True
    params:
        **task("figure_entropy", cfg={"notes": UNMATCHED}),


use rule figure_accuracy as figure_gradients with:
    input:
        table=rules.gradients.output.table,
    output:
        **drawn("gradients"),
    log:
        f"{ROOT}/logs/figures/gradients.log",
    localrule: True
    params:
        **task("figure_gradients", cfg={"notes": UNMATCHED}),


use rule figure_accuracy as figure_summary with:
    input:
        table=rules.summary.output.table,
    output:
        **drawn("summary"),
    log:
        f"{ROOT}/logs/figures/summary.log",
    localrule: True
    params:
        **task("figure_summary", cfg={"notes": UNMATCHED}),


use rule figure_accuracy as figure_judgement with:
    input:
        table=rules.judgement.output.table,
    output:
        **drawn("judgement"),
    log:
        f"{ROOT}/logs/figures/judgement.log",
    localrule: True
    params:
        **task("figure_judgement", cfg={"notes": UNMATCHED}),


use rule figure_accuracy as figure_merge_path with:
    input:
        table=rules.merge_path.output.table,
    output:
        **drawn("merge_path"),
    log:
        f"{ROOT}/logs/figures/merge_path.log",
    localrule: True
    params:
        **task("figure_merge_path", cfg={"notes": UNMATCHED}),


use rule figure_accuracy as figure_parity with:
    input:
        table=rules.parity.output.table,
    output:
        **drawn("parity"),
    log:
        f"{ROOT}/logs/figures/parity.log",
    localrule: True
    params:
        **task("figure_parity", cfg={"notes": UNMATCHED}),
