"""Entropy minimisation on the policy's own responses: three objectives, and the trainer that descends them.

Responses are drawn from π itself (temperature 1, nothing truncated), fresh for every step. In nat:
1. decision: H(p) with logit p = log P(yes) − log P(no) where a sampled response answers; dH/d logit = −logit · p(1−p),
   so the answer that is already likelier grows. Responses without an answer block count for nothing.
2. token: the mean entropy of the next-token distributions over the tokens of the responses (One-shot EM, 2505.20282;
   RENT, 2505.22660). Prefixes are held fixed: how π gets to them is left out of the gradient.
3. sequence: H(π(·|x)) = −E log π(y), whose gradient is that of REINFORCE with reward log π(y):
   −∇H = E[(log π(y) − b) ∇log π(y)]. b is the mean log π of the prompt's other responses.
The labels' spellings of several tokens are left out of p: each would take a pass of its own.
With `label_gated` only responses count where the policy is right: its decision (1), or its sampled answer (2, 3: there
the entropy of π among its correct responses).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from trl import GRPOTrainer

from memedynamics import answers, rewards, vlm
from memedynamics.answers import Labels
from memedynamics.entropy_losses import binary_entropy, decision_logits, leave_one_out, mean, one_token, sequence_loss
from memedynamics.prompts import Prompt

# What TRL's batches say of the pictures, family by family.
PICTURES = (
    "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles",
    "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids",
)  # fmt: skip


class Reading(NamedTuple):
    """What one training pass over N responses of up to T tokens tells, with gradients."""

    logps: Tensor  # (N, T) log π of each token
    entropies: Tensor  # (N, T) entropy of the distribution that each token was drawn from, nat
    logits: Tensor  # (N,) log P(yes) − log P(no) where the response answers; anything where it does not
    answered: Tensor  # (N,) bool


def positions(tokens: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Tensor:
    """How many tokens of each response (N,) come before its answer; −1 where there is no answer block."""
    found = [answers.decision_position(row, tokenizer, prompt) for row in tokens]
    return torch.tensor([-1 if position is None else position for position in found])


class EntropyTrainer(GRPOTrainer):
    """TRL's GRPOTrainer with another loss: it draws, grades, logs and resumes as GRPO does.

    The study's rewards are computed and logged, so that accuracy is known all along; no gradient sees them. Besides
    TRL's metrics (its `entropy` is the token's) it logs `entropy_decision` and `entropy_sequence`.
    """

    def __init__(
        self,
        *given: object,
        objective: Literal["decision", "token", "sequence"],
        label_gated: bool,
        prompt: Prompt,
        **named: object,
    ) -> None:
        super().__init__(*given, **named)
        self.objective, self.label_gated, self.prompt = objective, label_gated, prompt
        self.tokenizer = self.processing_class.tokenizer
        self.spellings = one_token(Labels(self.tokenizer, prompt))
        # The passes over the responses that sampling and the loss do not account for.
        self.extra_forwards = int(objective == "sequence")

    def _generate_and_score_completions(self, inputs: list[dict[str, object]]) -> dict[str, object]:
        """TRL's batch with each response's label and whether it is correct; its advantages are those of log π.

        TRL shuffles and cuts the batch afterwards, so what a response needs of its group is found here.
        """
        batch = super()._generate_and_score_completions(inputs)
        labels = [int(row["label"]) for row in inputs]
        texts = [self.tokenizer.decode(row, skip_special_tokens=True) for row in self.responses(batch)]
        right = [rewards.grade(text, label, self.prompt).correct for text, label in zip(texts, labels, strict=True)]
        device = batch["completion_ids"].device
        batch["label"], batch["correct"] = (torch.tensor(values, device=device) for values in (labels, right))
        if self.objective == "sequence":
            batch["advantages"] = self._advantages(batch)
        return batch

    @torch.no_grad()
    def _advantages(self, batch: Mapping[str, object]) -> Tensor:
        logps, _ = self._per_token(self.model, batch, self.args.per_device_train_batch_size)
        total = self.accelerator.gather((logps * batch["completion_mask"]).sum(-1))
        kept = self.accelerator.gather(self._counted(batch))
        advantages = leave_one_out(total, kept, self.num_generations)
        return advantages.chunk(self.accelerator.num_processes)[self.accelerator.process_index]

    def _counted(self, batch: Mapping[str, object]) -> Tensor:
        """Which responses count (N,): none that TRL masks as truncated; but for the decision's own gate."""
        whole = batch["completion_mask"].bool().any(-1)
        return whole & batch["correct"] if self.label_gated else whole

    def responses(self, batch: Mapping[str, object]) -> list[list[int]]:
        """Token ids of the responses in a `batch` that TRL drew, without padding."""
        rows = zip(batch["completion_ids"], batch["completion_mask"], strict=True)
        return [tokens[mask.bool()].tolist() for tokens, mask in rows]

    def _per_token(
        self, model: nn.Module, batch: Mapping[str, object], size: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """log π and entropy of each response token (N, T), by TRL's own pass, `size` responses at a time."""
        ids, mask = (torch.cat([batch[f"prompt_{x}"], batch[f"completion_{x}"]], dim=1) for x in ("ids", "mask"))
        pictures = {name: batch[name] for name in PICTURES if name in batch}
        length = batch["completion_ids"].shape[1]
        given = {"batch_size": size, "compute_entropy": True, **pictures}
        return self._get_per_token_logps_and_entropies(model, ids, mask, length, **given)[:2]

    def read(self, model: nn.Module, batch: Mapping[str, object]) -> Reading:
        """One pass over the prompts and responses of `batch`, as TRL drew them."""
        states: list[Tensor] = []
        inner = vlm.bare(self.model)
        # The pass does not return its states, and those where responses answer are all the decision takes.
        hook = inner.model.register_forward_hook(lambda *call: states.append(call[-1].last_hidden_state))
        try:
            logps, entropies = self._per_token(model, batch)
        finally:
            hook.remove()
        at = positions(self.responses(batch), self.tokenizer, self.prompt).to(logps.device)
        row = torch.arange(len(at), device=at.device)
        hidden = states[0][row, batch["prompt_ids"].shape[1] - 1 + at.clamp(min=0)]
        return Reading(logps, entropies, decision_logits(hidden, inner.lm_head, self.spellings), at >= 0)

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, object], return_outputs: bool = False, num_items_in_batch=None
    ) -> Tensor:
        """The objective, in nat, of one batch of responses; all three entropies are logged."""
        found, mask = self.read(model, inputs), inputs["completion_mask"].bool()
        self._log_entropies(found, mask)
        return self.loss(found, mask, inputs) / self.current_gradient_accumulation_steps

    def loss(self, found: Reading, mask: Tensor, batch: Mapping[str, object]) -> Tensor:
        """The objective of what was `found`; `mask` (N, T) says which tokens are the responses'."""
        if self.objective == "decision":
            right = (found.logits > 0) == batch["label"].bool()
            kept = found.answered & right if self.label_gated else found.answered
            return mean(binary_entropy(found.logits), kept)
        kept = self._counted(batch)
        if self.objective == "token":
            return mean(found.entropies, mask & kept[:, None])
        return sequence_loss((found.logps * mask).sum(-1), batch["advantages"], kept)

    @torch.no_grad()
    def _log_entropies(self, found: Reading, mask: Tensor) -> None:
        total, every = (found.entropies * mask).sum(-1), torch.ones_like(found.answered)
        for name, values, where in (
            ("entropy", found.entropies, mask),
            ("entropy_sequence", total, every),
            ("entropy_decision", binary_entropy(found.logits), found.answered),
        ):
            sums = torch.stack([(values * where).sum().float(), where.sum().float()])
            value, count = self.accelerator.reduce(sums, reduction="sum").tolist()
            if count:
                self._metrics["train"][name].append(value / count)
