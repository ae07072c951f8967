"""What each analysis asks and how it answers, in words: for the report's pages and the paper's captions.

An analysis that is not among them, as one that a user added, is described by the docstring of its script.
"""

import ast
from pathlib import Path
from typing import NamedTuple

SCRIPTS = Path(__file__).parents[1] / "scripts"
BOOTSTRAP = "95 % cluster bootstrap over prompts, memes with equal captions in one cluster, paired between methods"


class Definition(NamedTuple):
    """An analysis in words, as plain text."""

    title: str
    question: str
    words: str  # what is measured
    estimator: str  # how, and what its interval is
    unit: str
    source: str  # the papers it comes from; empty where it is this project's own


KNOWN = {
    "accuracy": Definition(
        "Accuracy",
        "Does the policy answer better after training, out of domain too, and what did it overfit?",
        "Accuracy is the share of a prompt’s sampled responses whose parsed answer equals the label; an invalid answer "
        "is wrong. F1, AUROC of P(Yes) and the share of well-formed responses stand beside it.",
        "Mean over a prompt’s K responses, then over prompts; " + BOOTSTRAP + ". Majority votes are compared by "
        "McNemar’s exact test with Holm’s correction.",
        "share of responses, of prompts or of decisions",
        "",
    ),
    "kl": Definition(
        "KL divergence",
        "How far has the policy moved from the base model?",
        "KL(π0‖π), forward, on fixed responses of the base model π0, and KL(π‖π0), reverse, on the policy’s own: the "
        "sum over a response’s tokens of the divergence between the two next-token distributions.",
        "Exact sum over the vocabulary at every token (Rao-Blackwellised), mean over prompts; " + BOOTSTRAP + ". "
        "Noise floors: the base model against itself through another code path, and two seeds against each other.",
        "nat a response, a token or a decision",
        "Amini et al. 2504.10637; Schulman 2020 for the Monte Carlo check",
    ),
    "likelihood": Definition(
        "Likelihood of fixed responses",
        "What became of the chosen and the rejected response, and where did the rest of the probability go?",
        "The change log π(y) − log π0(y) of the chosen and the rejected response of each pair. Displacement: the "
        "chosen response becomes less likely although its margin over the rejected one grows.",
        "Sum over a response’s tokens, mean over prompts; " + BOOTSTRAP + ".",
        "nat; share of pairs",
        "Razin et al. 2410.08847; Ren & Sutherland 2407.10490; Rafailov et al. 2305.18290",
    ),
    "rewards": Definition(
        "Rewards",
        "What became of the reward and its parts, and which groups of completions taught nothing?",
        "The study’s rewards on each policy’s own answers and along training, and the share of groups whose "
        "completions all got the same reward and so no advantage.",
        "Mean over a prompt’s responses, then over prompts; " + BOOTSTRAP + ". The forecast of groups without "
        "advantage comes from the base model’s samples.",
        "reward; share of responses or of groups",
        "",
    ),
    "spectrum": Definition(
        "Spectra of the updates",
        "In how many directions did training change the weights?",
        "The singular values of each linear layer’s update ΔW: its size relative to the weights, its effective rank "
        "exp(H(σ/Σσ)), and leading directions of W0 + ΔW that resemble none of W0’s (intruders).",
        "Mean over linear layers, 95 % bootstrap over decoder layers. Methods are compared where their updates have "
        "equal norm, and with random updates of that norm.",
        "directions (effective rank); ‖ΔW‖/‖W0‖; intruders a layer",
        "Shuttleworth et al. 2410.21228 for intruders",
    ),
    "sharpe": Definition(
        "Sharpe ratios of features",
        "Which features speak for the right answer more reliably on train than on val?",
        "Sharpe ratio of a feature: mean over standard deviation, over memes, of what it adds to the log-odds of the "
        "label. Overfit index: that ratio on train minus that on val; what training added is the policy’s less the "
        "base’s.",
        "By occlusion, the tokens replaced by the mean embedding; 95 % cluster bootstrap over memes. Signal to noise "
        "of gradients: Σḡ²/Σs² − 1/n of the label’s negative log-likelihood.",
        "Sharpe ratio; signal-to-noise ratio",
        "Sharpe 1966; Lo 2002; Liu et al., ICLR 2020 (gradients)",
    ),
    "attention": Definition(
        "Attention and noise",
        "Which method looks at the picture, and whose answers survive noise on it?",
        "The share of the last prompt token’s attention that falls on the picture, and what noise on the picture, or "
        "its absence, does to the policy’s own answers.",
        "Mean over heads and layers, then over prompts; " + BOOTSTRAP + ". Control: a random update of the same norm.",
        "share of attention; share of decisions",
        "",
    ),
    "entropy": Definition(
        "Entropy and calibration",
        "Are more accurate policies surer, and rightly so?",
        "Entropy of the answer, H of the mean over a prompt’s K own rationales of P(Yes | Yes or No); how well it "
        "marks wrong decisions (AUROC), and how far confidence is from accuracy (calibration error).",
        "Jackknifed over the K samples, mean over prompts; " + BOOTSTRAP + ".",
        "nat; AUROC; calibration error",
        "",
    ),
    "gradients": Definition(
        "Gradients of the objectives",
        "Which objectives pull the same way, and where does entropy minimisation turn against the reward?",
        "Cosine of the batch’s summed gradients of two objectives on the same policy and memes, by p, a prompt’s share "
        "of correct samples. Where p is below one half theory expects the gradients of entropy minimisation and of the "
        "reward of the decision to oppose each other, above it to agree.",
        "Over the whole adapter; 95 % delete-one-cluster jackknife over memes. An objective whose gradients on two "
        "halves of the memes disagree has no direction beyond the batch.",
        "cosine",
        "Agarwal et al. 2505.15134 and Gao et al. 2505.20282 for entropy minimisation",
    ),
    "judgement": Definition(
        "The judge",
        "Does the judge see what the labels see, or only which response comes first?",
        "How often the judge prefers the response that the labels prefer, how much it prefers whatever stands first, "
        "and how often both orders name the same winner.",
        "Mean over pairs of P(1) / (P(1) + P(2)) in both orders; "
        "95 % cluster bootstrap over prompts, memes with equal captions in one cluster.",
        "share of pairs; probability",
        "Zheng et al. 2306.05685; Wang et al. 2305.17926",
    ),
    "merge_path": Definition(
        "Between two runs",
        "Is there a barrier between two runs, or do models between them answer as well?",
        "Accuracy of the decision and KL(π0‖π) of models whose weights lie between two runs, along the straight line "
        "and along the arc; off the line: less the straight line between the values of the two ends.",
        "On the base model’s responses to in-domain val memes; "
        "95 % cluster bootstrap over prompts, paired between points of the path.",
        "share of decisions; nat a response",
        "Frankle et al. 1912.05671",
    ),
    "parity": Definition(
        "Two backends",
        "Do two backends train the same model from the same settings?",
        "Difference of what TRL and LLaMA-Factory logged at the same step of the same method.",
        "One logged number a step and seed, without interval.",
        "the metric’s own",
        "",
    ),
    "summary": Definition(
        "Summary",
        "What did each method do, side by side, and what does that answer?",
        "Numbers of the other analyses at the end of training, what the runs cost, and the study’s questions as claims "
        "about pairs of methods.",
        "A claim needs the interval of every seed’s paired difference, the agreement of all seeds, two seeds and ten "
        "clusters or more, and Holm’s correction over all claims; else it is not decided, which is not the same as "
        "equal.",
        "that of each number",
        "Holm 1979; Berger 1982",
    ),
}  # fmt: skip


def definition(name: str) -> Definition:
    """The analysis `name` in words; for one that this project does not know, what its script's docstring says."""
    return KNOWN.get(name) or _of_script(name)


def _of_script(name: str) -> Definition:
    file = SCRIPTS / f"{name}.py"
    text = ast.get_docstring(ast.parse(file.read_text())) if file.is_file() else None
    first = (text or "").split("\n\n")[0].replace("\n", " ").strip()
    title = name.replace("_", " ")
    words = first or f"The analysis {title} of this study; its script has no docstring."
    return Definition(title[:1].upper() + title[1:], "", words, "", "the unit that stands beside each value", "")
