"""GRPO and what later papers made of it, by the papers' names: the arguments of TRL's GRPOConfig that make each.

All draw a group of completions to a prompt and weigh them by advantages within the group; docs/methods.md has the
formulas. What a user gives under `args` overrides what stands here. Pitfalls:
1. On completions that are used once, by the policy that drew them, every ratio π/π_old is 1. Then methods that differ
   only in how they clip or smooth ratios (gspo, sapo) take grpo's step without its KL term. They differ from it with
   steps_per_generation above gradient_accumulation_steps, or num_iterations above 1.
2. TRL's default for the KL term corrects it by the ratio (DeepSeek-V3.2, 2512.02556); the papers here do not.
3. beta is the papers': only DeepSeekMath's GRPO keeps a reference. With beta 0 no `kl` is logged.
"""

from memedynamics.methods import GRPO

VARIANTS: dict[str, dict[str, object]] = {
    # DeepSeekMath (2402.03300): tokens averaged within a response, rewards scaled by the group's std, KL in the loss.
    "grpo": {"loss_type": "grpo", "beta": 0.04},
    # Dr. GRPO (2503.20783): divided by a constant length, not by a response's own; no division by the std; no KL.
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.0},
    # TRL's "bnpo": tokens averaged over the local batch. BNPO's own Beta normalisation of rewards (2506.02864) is in no
    # release of TRL; in groups it reduces to grpo's division by the std for the Beta parameters (3/2, 3/2).
    "bnpo": {"loss_type": "bnpo", "beta": 0.0},
    # DAPO (2503.14476): tokens averaged over the whole batch, the upper clip raised, truncated responses left out, no
    # KL. Its dynamic sampling is not in TRL; its soft length penalty would be a reward of the study's own.
    "dapo": {
        "loss_type": "dapo", "epsilon": 0.2, "epsilon_high": 0.28, "mask_truncated_completions": True, "beta": 0.0,
    },
    # MiniMax-M1 (2506.13585): the ratio is capped and weighs log π, so that no token loses its gradient. The cap, which
    # the paper does not print, is ScaleRL's (2510.13786).
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0, "beta": 0.0},
    # GSPO (2507.18071): one ratio a response, the geometric mean of its tokens' ratios; its clips are as much narrower.
    "gspo": {
        "loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4,
        "beta": 0.0,
    },
    # SAPO (2511.20347): a sigmoid of the ratio instead of a clip, steeper for negative advantages.
    "sapo": {"loss_type": "sapo", "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05, "beta": 0.0},
    # LUSPO (2602.05261): GSPO's ratio, with each response's loss multiplied by its length.
    "luspo": {
        "loss_type": "luspo", "importance_sampling_level": "sequence", "epsilon": 2e-3, "epsilon_high": 2.5e-3,
        "beta": 0.0,
    },
    # VESPO (2602.10693): a Gamma-shaped weight of the whole response's ratio instead of a clip.
    "vespo": {
        "loss_type": "vespo", "vespo_k_pos": 2.0, "vespo_lambda_pos": 3.0, "vespo_k_neg": 3.0, "vespo_lambda_neg": 2.0,
        "beta": 0.0,
    },
}  # fmt: skip
assert tuple(VARIANTS) == GRPO


def arguments(kind: str) -> dict[str, object]:
    """What makes GRPO the method `kind` of methods.GRPO, as arguments of GRPOConfig."""
    return {"use_bias_correction_kl": False, **VARIANTS[kind]}
