"""Who grades a method's own responses: the study's rewards, or the reward model trained on the preferences (RLHF)."""

from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import reward_grader
from memedynamics.methods import SOFT, Matched, TrainedMethod
from memedynamics.rewards import Reward, reward_functions
from memedynamics.vlm import load_model


def weights(method: TrainedMethod, rewards: dict[str, float]) -> dict[str, float]:
    """Weights by reward, in the order in which they grade: where the reward model does, the study's `rewards` weigh 0.

    They are recorded all the same: the gap between the two is reward hacking.
    """
    if method.reward == "rules":
        return rewards
    return {reward_grader.NAME: 1.0, **dict.fromkeys(rewards, 0.0)}


def functions(
    method: TrainedMethod,
    rewards: dict[str, float],
    matched: Matched,
    policy: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    base: Path,
    reward_model: Path | None,
) -> list[Reward]:
    """The rewards that `weights` names; `policy` is what trains, on the model in `base`.

    Its base serves the reward model too, unless all its weights train, virtual tokens stand in its way, or it is held
    in four bits, in which the reward model was not trained.
    """
    rules = reward_functions(rewards, matched.prompt)
    if method.reward == "rules":
        return rules
    if (method.adapter or matched.adapter).kind in ("full", "qlora", *SOFT):
        policy = load_model(base, matched.base.dtype, matched.base.attn_implementation)
    return [reward_grader.grader(reward_model, policy, processor, base), *rules]
