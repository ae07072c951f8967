"""Entropy minimisation on the policy's own responses: three objectives, and the trainer that descends them.

Responses are drawn from π itself (temperature 1, nothing truncated), fresh for every step. In nat:
1. decision: H(p) with logit p = log P(yes) − log P(no) where a sampled response answers; dH/d logit = −logit · p(1−p),
   so the answer that is already likelier grows. Responses without an answer block count for nothing.
2. token: the mean entropy of the next-token distributions over the tokens of the responses (One-shot EM, 2505.20282;
   RENT, 2505.22660). Prefixes are held fixed: how π gets to them is left out of the gradient.
3. sequence: H(π(·|x)) = −E log π(y), whose gradient is that of REINFORCE with reward log π(y):
   −∇H = E[(log π(y) − b) ∇log π(y)]. b is the mean log π of the prompt's other responses.
The labels' spellings of several tokens are left out of p: each would take a pass of its own.
With `label_gated` only responses count where the policy that drew them is right: its decision (1), or its sampled
answer (2, 3: there the entropy of π among its correct responses).
Each is a mean over what counts (decisions, tokens, responses) in the whole batch of an optimiser step, however that is
cut into accumulated micro-batches and processes.
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
        self.extra_forwards = int(objective == "sequence" or (objective == "decision" and label_gated))

    def _generate_and_score_completions(self, inputs: list[dict[str, object]]) -> dict[str, object]:
        """TRL's batch, marked. TRL shuffles and cuts it afterwards, so what takes the whole of it is found here."""
        batch = super()._generate_and_score_completions(inputs)
        return self.mark(batch, [int(row["label"]) for row in inputs])

    @torch.no_grad()
    def mark(self, batch: dict[str, object], labels: list[int]) -> dict[str, object]:
        """`batch` of N responses with what each is worth: all but the last are (N,).

        position (of the decision, −1 without), label, correct (the sampled answer), kept (whether it counts),
        advantages (objective sequence: those of log π), and num_items_in_batch: how many of all processes count.
        """
        drawn = self.responses(batch)
        texts = [self.tokenizer.decode(row, skip_special_tokens=True) for row in drawn]
        right = [rewards.grade(text, label, self.prompt).correct for text, label in zip(texts, labels, strict=True)]
        device = batch["completion_ids"].device
        batch["position"] = positions(drawn, self.tokenizer, self.prompt).to(device)
        batch["label"], batch["correct"] = (torch.tensor(values, device=device) for values in (labels, right))
        found = self.read(self.model, batch, self.args.per_device_train_batch_size) if self.extra_forwards else None
        batch["kept"] = self.kept(batch, found)
        if self.objective == "sequence":
            batch["advantages"] = self._advantages(batch, found.logps)
        batch["num_items_in_batch"] = self.accelerator.gather(self._items(batch)).sum()
        return batch

    def kept(self, batch: Mapping[str, object], found: Reading | None) -> Tensor:
        """Which responses count (N,); none that TRL masks as truncated. Only the decision's gate needs `found`."""
        if self.objective != "decision":
            whole = batch["completion_mask"].bool().any(-1)
            return whole & batch["correct"] if self.label_gated else whole
        answered = batch["position"] >= 0
        return answered & ((found.logits > 0) == batch["label"].bool()) if self.label_gated else answered

    def _advantages(self, batch: Mapping[str, object], logps: Tensor) -> Tensor:
        total = self.accelerator.gather((logps * batch["completion_mask"]).sum(-1))
        advantages = leave_one_out(total, self.accelerator.gather(batch["kept"]), self.num_generations)
        return advantages.chunk(self.accelerator.num_processes)[self.accelerator.process_index]

    def _items(self, batch: Mapping[str, object]) -> Tensor:
        """How many tokens (objective token), else responses, of `batch` count."""
        return batch["completion_mask"][batch["kept"]].sum() if self.objective == "token" else batch["kept"].sum()

    def share(self, batch: Mapping[str, object]) -> Tensor:
        """What the mean over `batch` weighs in the step's; times the processes, whose gradients are averaged."""
        return self.accelerator.num_processes * self._items(batch) / batch["num_items_in_batch"].clamp(min=1)

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

    def read(self, model: nn.Module, batch: Mapping[str, object], size: int | None = None) -> Reading:
        """One pass over the prompts and responses of a marked `batch`, `size` of them at a time (None: all)."""
        inner, position = vlm.bare(self.model), batch["position"]
        at = batch["prompt_ids"].shape[1] - 1 + position.clamp(min=0)
        wanted, states = iter(at.split(size or len(at))), []

        def keep(*call: object) -> None:
            # The pass does not return its states, and those where responses answer are all the decision takes.
            hidden, columns = call[-1].last_hidden_state, next(wanted)
            states.append(hidden[torch.arange(len(columns), device=columns.device), columns])

        hook = inner.model.register_forward_hook(keep)
        try:
            logps, entropies = self._per_token(model, batch, size)
        finally:
            hook.remove()
        logits = decision_logits(torch.cat(states), inner.lm_head, self.spellings)
        return Reading(logps, entropies, logits, position >= 0)

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, object], return_outputs: bool = False, num_items_in_batch=None
    ) -> Tensor:
        """What one batch of responses adds to the step's objective, in nat; all three entropies are logged."""
        found, mask = self.read(model, inputs), inputs["completion_mask"].bool()
        self._log_entropies(found, mask)
        return self.loss(found, mask, inputs) * self.share(inputs)

    def loss(self, found: Reading, mask: Tensor, batch: Mapping[str, object]) -> Tensor:
        """The objective of what was `found` in `batch` alone; `mask` (N, T) says which tokens are the responses'."""
        if self.objective == "decision":
            return mean(binary_entropy(found.logits), batch["kept"])
        if self.objective == "token":
            return mean(found.entropies, mask & batch["kept"][:, None])
        return sequence_loss((found.logps * mask).sum(-1), batch["advantages"], batch["kept"])

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
