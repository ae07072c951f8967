"""Every rollout of GRPO, RLOO and EM on record: reward functions that also write what they were asked to grade."""

import functools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerState
from trl import GRPOConfig, RLOOConfig

from memedynamics import checksums, tables
from memedynamics.rewards import Reward

EPSILON = 1e-4  # TRL's guard against a group without variance


def recorded(functions: list[Reward], config: GRPOConfig | RLOOConfig, folder: Path) -> list[Reward]:
    """The same rewards for TRL; after the last of them, the generation's rollouts lie in `folder` as one part.

    Parts are named by step, so a step that is drawn again after a resume replaces what it wrote before.
    """
    given: dict[str, list[float]] = {}
    drawn: list[int] = []

    def wrap(function: Reward) -> Reward:
        @functools.wraps(function)
        def call(completions: list, id: list[str], trainer_state: TrainerState, **columns: object) -> list[float]:
            given[function.__name__] = function(completions, id=id, trainer_state=trainer_state, **columns)
            if function is functions[-1]:
                step = trainer_state.global_step + 1
                texts = [completion[0]["content"] for completion in completions]
                drawn.append(step)
                path = folder / f"{step:08d}-{drawn.count(step):04d}.parquet"
                _write(path, step, gather_object(id), gather_object(texts), _gathered(given), config)
            return given[function.__name__]

        return call

    return [wrap(function) for function in functions]


def _gathered(given: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: gather_object(list(values)) for name, values in given.items()}


def _write(
    path: Path,
    step: int,
    ids: list[str],
    texts: list[str],
    rewards: dict[str, list[float]],
    config: GRPOConfig | RLOOConfig,
) -> None:
    if not PartialState().is_main_process:
        return
    values = torch.tensor(list(rewards.values()), dtype=torch.float32).T
    weighted = (values * torch.tensor(config.reward_weights)).sum(1)
    advantages = _advantages(values, weighted, config)
    by_name = [list(zip(rewards, row, strict=True)) for row in zip(*rewards.values(), strict=True)]
    columns = {
        "step": [step] * len(ids),
        "id": ids,
        "sample": [i % config.num_generations for i in range(len(ids))],
        "text": texts,
        "rewards": pa.array(by_name, pa.map_(pa.string(), pa.float64())),
        "reward": weighted.tolist(),
        "advantage": advantages.tolist(),
    }
    tables.write(pa.table(columns), path, "rollouts")


def _advantages(rewards: torch.Tensor, weighted: torch.Tensor, config: GRPOConfig | RLOOConfig) -> torch.Tensor:
    if isinstance(config, RLOOConfig):
        clipped = weighted.clamp(*config.reward_clip_range) if config.reward_clip_range else weighted
        return left_out(clipped, config.num_generations, config.normalize_advantages)
    return group_advantages(
        rewards, config.reward_weights, config.num_generations, config.scale_rewards, config.multi_objective_aggregation
    )


def left_out(rewards: torch.Tensor, group: int, normalized: bool = False) -> torch.Tensor:
    """RLOO's advantages (N,) of rewards (N,): each less the mean of the others of its group (2402.14740, eq. 4).

    TRL takes the KL penalty β log π/π0 off each reward beforehand, which no reward function sees: at β = 0, and where
    the policy is still the reference, these are what it trains on.
    """
    grouped = rewards.view(-1, group)
    others = (grouped.sum(1, keepdim=True) - grouped) / (group - 1)
    found = (grouped - others).flatten()
    return (found - found.mean()) / (found.std() + EPSILON) if normalized else found


def group_advantages(
    rewards: torch.Tensor,
    weights: list[float],
    group: int,
    scale: str = "group",
    aggregation: str = "sum_then_normalize",
) -> torch.Tensor:
    """Advantages (N,) of N completions, in groups of `group` to one prompt, from rewards (N, F) as TRL forms them.

    `scale` group: (r − mean) / (std + 1e-4) within the group (DeepSeekMath, 2402.03300, §4.1.2); batch: the std of
    all N (2508.08221); none: no division (Dr. GRPO, 2503.20783). `aggregation` normalize_then_sum normalises each
    reward within the group, sums, and normalises over all N (GDPO, 2601.05242).
    """
    if aggregation == "normalize_then_sum":
        grouped = rewards.view(-1, group, rewards.shape[1])
        scaled = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + EPSILON)
        total = (scaled.view_as(rewards) * torch.tensor(weights)).sum(1)
        return (total - total.mean()) / (total.std() + EPSILON)
    grouped = (rewards * torch.tensor(weights)).sum(1).view(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    if scale == "none":
        return centred.flatten()
    spread = grouped.std() if scale == "batch" else grouped.std(1, keepdim=True)
    return (centred / (spread + EPSILON)).flatten()


def merge(folder: Path, output: Path) -> None:
    """All parts in `folder`, in the order they were drawn, as one table: an empty one where there is none."""
    with tables.Writer(output, "rollouts") as out:
        for part in sorted(folder.glob("*.parquet")):
            checksums.check(part)
            out.write(pq.read_table(part))
