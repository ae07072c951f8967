"""Whether responses drawn elsewhere are draws from the policy at hand: what proves that a server serves this model.

A name proves nothing, and every fine-tuned sibling encodes a prompt alike. Where the server gives log-probabilities,
they are compared: another model's differ. How it draws shows in the tokens alone: if y is drawn from p, then with
x = −log p(y) the product over tokens of exp(λx) / E exp(λx) has mean 1 for any λ, and exceeds e^L at any time with a
probability below e^−L, however long the texts (Ville's inequality for a martingale). With λ > 0 it grows where texts
are too unlikely (another model, a higher temperature), with λ < 0 where they are too likely (top-p, top-k, greedy).
"""

import torch

from memedynamics.errors import InputError
from memedynamics.forced_logps import TOLERANCE

SLOPES = (1 / 8, -1 / 8, 1 / 32, -1 / 32)  # λ: the gentler, the finer, and the more tokens it takes
LIMIT = 30.0  # L: a false alarm has a probability of 4e-13
# Nat a token of log p that the engines' different rounding explains, and texts whose own tokens are not known.
ROUNDING = {"float32": 1e-3, "float16": 0.005, "bfloat16": 0.01}
# Texts drawn in other pieces than they are cut into: one in a hundred by the demo's model; and how many are none yet.
RECUT, FEW = 0.1, 20


class Draws:
    """The evidence of a job so far."""

    def __init__(self, dtype: str, temperature: float, never: int, source: str) -> None:
        """Draws at `temperature`, never the token `never`; `source` says what drew."""
        self.dtype, self.temperature, self.never, self.source = dtype, temperature, never, source
        self.heard = torch.zeros(2 + len(SLOPES), dtype=torch.float64)
        self.texts, self.recut = 0, 0

    def measure(self, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Of `tokens` (P,) drawn where the study's model has `logits` (P, V): what `add` takes, to be summed.

        Their number, Σ x − E x (nat), and for each λ the logarithm of the product.
        """
        possible = logits.index_fill(-1, torch.tensor([self.never], device=logits.device), -torch.inf)
        logp = (possible / self.temperature).log_softmax(-1)
        surprise = -logp.gather(1, tokens[:, None])[:, 0].double()
        excess = surprise - torch.special.entr(logp.exp()).sum(-1)
        evidence = [slope * surprise - ((1 - slope) * logp).logsumexp(-1) for slope in SLOPES]
        return torch.stack([torch.ones_like(excess), excess, *evidence]).sum(-1).cpu()

    def add(self, measured: torch.Tensor) -> None:
        """Count what was `measured`. Raises InputError where the tokens so far are no draws."""
        self.heard += measured
        tokens, excess, *evidence = self.heard.tolist()
        rounding = ROUNDING[self.dtype] * tokens
        if all(found - abs(slope) * rounding < LIMIT for slope, found in zip(SLOPES, evidence, strict=True)):
            return
        likely = "less likely" if excess > 0 else "more likely"
        raise InputError(
            f"{self.source}: its responses are not draws from the study's base model: its tokens are "
            f"{abs(excess) / tokens:.2g} nat each {likely} than draws are; serve the study's own model folder, "
            "unquantised, without a truncation of its own"
        )

    def read(self, texts: int, recut: int) -> None:
        """Count `texts` that came without their tokens. Raises InputError where too many were drawn in other pieces."""
        self.texts, self.recut = self.texts + texts, self.recut + recut
        if self.recut > max(RECUT * self.texts, FEW):
            raise InputError(
                f"{self.source}: {self.recut} of {self.texts} texts are not as many tokens here as were drawn: special "
                "tokens or spaces are taken out of them, or it is another model; use a server that gives its tokens"
            )

    def compare(self, own: torch.Tensor, theirs: torch.Tensor) -> None:
        """Raise InputError where log-probabilities of the same tokens, both (P,), are not of one model."""
        gap = (own - theirs).abs().mean().item() if len(own) else 0.0
        if gap > TOLERANCE[self.dtype]:
            raise InputError(
                f"{self.source}: its log-probabilities are {gap:.2g} nat a token from those of the study's base model, "
                f"and {self.dtype} explains no more than {TOLERANCE[self.dtype]:g}; serve the study's own model folder "
                f"in {self.dtype}, unquantised"
            )
