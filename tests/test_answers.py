"""Spans, decision position, forced headers and the probability of the answer."""

import itertools
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny_models
from memedynamics import answers, vlm
from memedynamics.prefix import prefill
from memedynamics.prompts import load_prompt

PROMPT = load_prompt(Path(__file__).parents[1] / "config/prompts/think_answer.yaml")


def words(*vocabulary):
    """A tokenizer that splits into the longest of the given pieces, else into characters."""
    letters = [chr(code) for code in range(32, 127)] + ["\n"]
    pieces = sorted(dict.fromkeys([*vocabulary, *letters, "[END]"]))
    pattern = "|".join(sorted(map(escape, pieces), key=len, reverse=True))
    core = Tokenizer(models.WordLevel({piece: n for n, piece in enumerate(pieces)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="[END]")


def escape(piece):
    return "".join(f"\\x{{{ord(letter):x}}}" for letter in piece)


TOKENIZER = words("<think>", "</think>", "<answer>", "</answer>", "cat", " Yes", " No", ">\n", ">Y")
END = TOKENIZER.eos_token_id


def encode(text):
    return TOKENIZER(text, add_special_tokens=False).input_ids


def spelt(*pieces):
    return TOKENIZER.convert_tokens_to_ids(list(pieces))


def test_spans():
    tokens = [*encode("<think>a cat</think><answer> Yes</answer>!"), END]
    expected = ["format", *["rationale"] * 3, "format", "format", "answer", "format", "rationale", "end"]
    assert answers.spans(tokens, TOKENIZER, PROMPT, {END}) == expected


def test_spans_of_a_tag_in_pieces_and_of_unknown_tags():
    tokens = spelt("<", "t", "h", "i", "n", "k", ">", "<", "b", ">", "<answer>", "N")
    expected = ["format"] * 7 + ["rationale"] * 3 + ["format", "answer"]
    assert answers.spans(tokens, TOKENIZER, PROMPT, {END}) == expected


def test_spans_of_nothing():
    assert answers.spans([], TOKENIZER, PROMPT, {END}) == []


@pytest.mark.parametrize(
    ("pieces", "position"),
    [
        (["<think>", "cat", "</think>", "<answer>", " Yes"], 4),
        (["<answer>"], 1),  # cut right after the tag: the next token is the answer
        (["cat"], None),
        (["<", "a", "n", "s", "w", "e", "r", ">", "Y"], 8),
        (["<", "a", "n", "s", "w", "e", "r", ">\n", "Y"], 8),  # whitespace that came with the tag is not the answer
        (["<", "a", "n", "s", "w", "e", "r", ">Y", "e", "s"], None),  # no position between tag and answer
        (["<answer>", "N", "o", "<answer>", "Y"], 1),  # the first of two
        ([], None),
    ],
)
def test_decision_position(pieces, position):
    assert answers.decision_position(spelt(*pieces), TOKENIZER, PROMPT) == position


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("", "<answer>"),
        ("<think>a cat", "</think><answer>"),
        ("<think>a cat</think>", "<answer>"),
        ("<think>a cat</thi", "nk><answer>"),
        ("<think>a cat</think><ans", "wer>"),
        ("a cat", "<answer>"),
        ("<think>a</think><think>b", "</think><answer>"),
    ],
)
def test_forced_header(text, header):
    assert answers.forced_header(text, PROMPT) == header


def test_context_of_an_answer_and_of_none():
    own = answers.context([*encode("<think>cat</think><answer> Yes</answer>"), END], TOKENIZER, PROMPT, {END})
    assert own == (encode("<think>cat</think><answer>"), False)
    forced = answers.context([*encode("<think>cat"), END], TOKENIZER, PROMPT, {END})
    assert forced == (encode("<think>cat</think><answer>"), True)


def test_labels_vary_in_case_and_leading_space():
    labels = answers.Labels(TOKENIZER, PROMPT)
    yes = {TOKENIZER.decode(s) for s, is_yes in zip(labels.spellings, labels.is_yes, strict=True) if is_yes}
    assert yes == {"Yes", "yes", "YES", " Yes", " yes", " YES"}
    assert (TOKENIZER.convert_tokens_to_ids(" Yes"),) in labels.spellings
    assert not any(a != b and a == b[: len(a)] for a, b in itertools.permutations(labels.tails, 2))


def test_decision_of_one_token_labels_by_hand():
    """P(Yes) = .4 + .1, P(No) = .2: p_hateful .5 / .7, label_mass .7."""
    tokenizer = words("Yes", " Yes", "No", "yes", "YES", " yes", " YES", " No", "no", "NO", " no", " NO")
    labels = answers.Labels(tokenizer, PROMPT)
    assert labels.tails == []
    p = torch.zeros(1, len(tokenizer))
    p[0, tokenizer.convert_tokens_to_ids(["Yes", " yes", "No", "x"])] = torch.tensor([0.4, 0.1, 0.2, 0.3])
    found = answers.decision(p.log(), labels)
    assert found.p_hateful.item() == pytest.approx(0.5 / 0.7)
    assert found.label_mass.item() == pytest.approx(0.7)


def test_labels_of_several_tokens_need_their_later_tokens():
    with pytest.raises(ValueError, match="later tokens"):
        answers.decision(torch.zeros(1, len(TOKENIZER)), answers.Labels(TOKENIZER, PROMPT))


def test_decide_equals_whole_sequences_spelt_out():
    """Full-string probability against scoring prompt + context + spelling as one sequence, spelling by spelling."""
    folder = tiny_models.folder("qwen2_5_vl")
    model, processor = vlm.load_model(folder), vlm.load_processor(folder)
    for weight in model.parameters():
        weight.mul_(4 if weight.ndim > 1 else 1)
    tokenizer = words()  # letters only: Yes is three tokens, " No" three
    labels = answers.Labels(tokenizer, PROMPT)
    assert len(labels.spellings) == 12 and min(map(len, labels.spellings)) == 2
    contexts = [[50, 51, 52], [], [60], [61, 62, 63, 64, 65]]
    prompts = [
        vlm.encode(processor, [text], [tiny_models.picture(n)]) for n, text in enumerate(["Is it?", "Is it so?"])
    ]
    both = vlm.encode(processor, ["Is it?", "Is it so?"], [tiny_models.picture(0), tiny_models.picture(1)])
    found = answers.decide(model, prefill(model, both).repeat(2), contexts, labels)
    for row, context in enumerate(contexts):
        p = [spelling_probability(model, prompts[row // 2], context, spelling) for spelling in labels.spellings]
        yes, no = (sum(p[n] for n in range(12) if labels.is_yes[n] == wanted) for wanted in (True, False))
        assert found.p_hateful[row].item() == pytest.approx(yes / (yes + no), rel=1e-4)
        assert found.label_mass[row].item() == pytest.approx(yes + no, rel=1e-4)


def spelling_probability(model, prompt, context, spelling):
    response = torch.tensor([[*context, *spelling]])
    inputs = dict(prompt)
    inputs["input_ids"] = torch.cat([prompt["input_ids"], response], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = torch.nn.functional.pad(prompt["mm_token_type_ids"], (0, response.shape[1]))
    logp = model(**inputs).logits[0].double().log_softmax(-1)
    start = inputs["input_ids"].shape[1] - len(spelling) - 1
    return sum(logp[start + n, token] for n, token in enumerate(spelling)).exp().item()


@pytest.mark.parametrize("family", [*tiny_models.FAMILIES, "idefics3"])
def test_real_tokenizers_spell_labels_and_tags(family):
    """What a response decodes to around its answer is what Labels and decision_position speak about."""
    tokenizer = vlm.load_processor(tiny_models.folder(family)).tokenizer
    labels = answers.Labels(tokenizer, PROMPT)
    assert {tokenizer.decode(s).strip().lower() for s in labels.spellings} == {"yes", "no"}
    tokens = tokenizer("<think> é 🐱 </think><answer> Yes </answer>", add_special_tokens=False).input_ids
    position = answers.decision_position(tokens, tokenizer, PROMPT)
    assert tokenizer.decode(tokens[:position]).endswith("<answer>")
    assert any(tuple(tokens[position : position + len(s)]) == s for s in labels.spellings)
    spans = answers.spans(tokens, tokenizer, PROMPT, set())
    answer = tokenizer.decode([t for t, span in zip(tokens, spans, strict=True) if span == "answer"])
    assert answer.strip() == "Yes" and spans[position] == "answer"
