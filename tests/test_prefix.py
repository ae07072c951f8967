"""A prefix continued must give what whole sequences give, in every model family."""

import pytest
import torch

import tiny_models
from memedynamics import vlm
from memedynamics.prefix import extend, grow, predicting, prefill

FAMILIES = [*tiny_models.FAMILIES, "idefics3"]
CONTENTS = ["Is it hateful? Think first.", "Is it?"]
PICTURES = [(1, 56, 56), (2, 84, 56)]


def sharpened(family):
    """A tiny model whose attention matters: at its initial scale all tokens look alike."""
    model = vlm.load_model(tiny_models.folder(family))
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.mul_(4)
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    model, processor = sharpened(request.param), vlm.load_processor(tiny_models.folder(request.param))
    prompts = [vlm.encode(processor, [c], [tiny_models.picture(*p)]) for c, p in zip(CONTENTS, PICTURES, strict=True)]
    both = vlm.encode(processor, CONTENTS, [tiny_models.picture(*picture) for picture in PICTURES])
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(50, model.get_output_embeddings().weight.shape[0], (6, 20), generator=random)
    mask = torch.arange(20) < torch.tensor([20, 4, 1, 20, 13, 20])[:, None]
    return model, prompts, both, tokens, mask.long()


def whole(model, prompt, response):
    """Logits (R + 1, V) that predict the tokens of `response` and the one after, from the whole sequence."""
    inputs, shape = {}, prompt["input_ids"].shape
    for name, value in prompt.items():
        new = {"input_ids": response, "attention_mask": torch.ones_like(response)}.get(name, 0 * response)
        inputs[name] = torch.cat([value, new[None].to(value.dtype)], 1) if value.shape == shape else value
    return model(**inputs).logits[0, shape[1] - 1 :]


def test_extended_prefix_equals_whole_sequences(case):
    model, prompts, both, tokens, mask = case
    prefix = prefill(model, both).repeat(3)
    logits = vlm.project(model, predicting(prefix, extend(model, prefix, tokens, mask)))
    for row, length in enumerate(mask.sum(1).tolist()):
        expected = whole(model, prompts[row // 3], tokens[row, :length])[:-1]
        assert expected.std() > 0.3  # the comparison means something
        torch.testing.assert_close(logits[row, :length], expected, atol=2e-5, rtol=1e-5)


def test_prefix_survives_being_continued(case):
    model, _, both, tokens, mask = case
    prefix = prefill(model, both).repeat(3)
    first = extend(model, prefix, tokens, mask)
    grow(model, prefix, tokens, mask)
    assert torch.equal(first, extend(model, prefix, tokens, mask))


def test_selected_rows_answer_their_own_prompt(case):
    model, _, both, tokens, mask = case
    prefix = prefill(model, both)
    repeated = extend(model, prefix.repeat(3), tokens, mask)
    order = torch.tensor([4, 0, 0])
    selected = extend(model, prefix.select(order // 3), tokens[order], mask[order])
    for row, source in enumerate(order):
        length = mask[source].sum()
        torch.testing.assert_close(selected[row, :length], repeated[source, :length], atol=1e-5, rtol=1e-5)


def test_grown_prefix_equals_whole_sequences(case):
    """Responses of different lengths become part of the prefix; for Gemma 3 both exceed its sliding window of 16."""
    model, prompts, both, tokens, mask = case
    grown = grow(model, prefill(model, both).repeat(3), tokens, mask)
    then = torch.tensor([[60, 61, 62]])
    twice = grown.repeat(2)
    hidden = extend(model, twice, then.expand(12, -1), torch.ones(12, 3))
    logits = vlm.project(model, torch.cat([twice.last_hidden[:, None], hidden], 1))
    for row, length in enumerate(mask.sum(1).tolist()):
        expected = whole(model, prompts[row // 3], torch.cat([tokens[row, :length], then[0]]))[length:]
        for copy in (2 * row, 2 * row + 1):
            torch.testing.assert_close(logits[copy], expected, atol=2e-5, rtol=1e-5)
