"""The last prompt token's attention equals eager attention's, and the forward stays what it was."""

import pytest
import torch

import tiny_models
from memedynamics import row_measures, vlm
from memedynamics.attention_rows import last_row, last_rows


def _inputs(family: str) -> dict:
    processor = vlm.load_processor(tiny_models.folder(family))
    pictures = [tiny_models.picture(1, 84, 56), tiny_models.picture(2, 56, 84)]
    return vlm.encode(processor, ["hi", "a much longer one of these, left-padded beside it"], pictures)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_rows_equal_eager_attention_and_logits_stay_bit_identical(family):
    """Left padding, grouped key heads (4 over 2), and Gemma's window of 16 shorter than the prompt are among these."""
    inputs, folder = _inputs(family), tiny_models.folder(family)
    model, eager = vlm.load_model(folder), vlm.load_model(folder, attn_implementation="eager")
    with torch.inference_mode():
        plain = model(**inputs).logits
        with last_rows(model) as rows:
            recorded = model(**inputs).logits
        again = model(**inputs).logits
        expected = eager(**inputs, output_attentions=True).attentions
    assert torch.equal(plain, recorded) and torch.equal(plain, again)
    assert len(rows) == len(expected) == 2
    padding = inputs["attention_mask"][:, None] == 0
    assert padding.any()
    for row, full in zip(rows, expected, strict=True):
        assert row.dtype == torch.float32 and (row - full[:, :, -1]).abs().max() < 1e-6
        assert (row.sum(-1) - 1).abs().max() < 1e-6
        assert (row * padding).max() == 0


def test_a_model_loaded_with_eager_attention_gives_the_same_rows():
    inputs, folder = _inputs("qwen2_5_vl"), tiny_models.folder("qwen2_5_vl")
    found = []
    for implementation in ("sdpa", "eager"):
        model = vlm.load_model(folder, attn_implementation=implementation)
        with torch.inference_mode(), last_rows(model) as rows:
            model(**inputs)
        assert model.get_decoder().config._attn_implementation == implementation
        found.append(torch.stack(rows))
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)


def test_a_failure_inside_leaves_the_model_as_it_was():
    model = vlm.load_model(tiny_models.folder("llava"))
    with pytest.raises(RuntimeError), last_rows(model):
        raise RuntimeError
    assert model.get_decoder().config._attn_implementation == "sdpa"


def test_bfloat16_scores_are_float32():
    """Against float64 from the same bfloat16 numbers; a bfloat16 softmax would be off by up to 4e-3."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 3, 8).bfloat16(), torch.randn(2, 2, 5, 8).bfloat16()
    repeated = key.double().repeat_interleave(2, dim=1)
    expected = (query[:, :, -1:].double() @ repeated.transpose(-1, -2) * 8**-0.5).softmax(-1)[:, :, 0]
    assert (last_row(query, key, None) - expected).abs().max() < 1e-6


def test_last_row_by_hand():
    """One head, q = 1, keys 0, ln 2, ln 5, scaling 1: e^0 : e^ln 2 : e^ln 5 = 1 : 2 : 5; without the last, 1 : 2."""
    query, key = torch.ones(1, 1, 1, 1), torch.tensor([1.0, 2.0, 5.0]).log().view(1, 1, 3, 1)
    torch.testing.assert_close(last_row(query, key, None, 1.0)[0, 0], torch.tensor([1, 2, 5]) / 8)
    mask = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    torch.testing.assert_close(last_row(query, key, mask, 1.0)[0, 0], torch.tensor([1, 2, 0]) / 3)
    added = torch.zeros(1, 1, 1, 3).masked_fill(~mask, torch.finfo(torch.float32).min)
    torch.testing.assert_close(last_row(query, key, added, 1.0)[0, 0], torch.tensor([1, 2, 0]) / 3)


def test_total_variation_and_jensen_shannon_by_hand():
    """p = (1, 0), q = (½, ½): TV = ½(½ + ½) = ½; m = (¾, ¼),
    JS = ½ ln 4/3 + ½(½ ln 2/3 + ½ ln 2) = ½·0.28768 + ½(−0.20273 + 0.34657) = 0.21576.
    Disjoint p and q: TV 1, JS ln 2.
    """
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    assert row_measures.total_variation(p, q).item() == pytest.approx(0.5)
    assert row_measures.jensen_shannon(p, q).item() == pytest.approx(0.21576, abs=1e-5)
    apart = torch.eye(2)
    assert row_measures.total_variation(*apart).item() == 1
    assert row_measures.jensen_shannon(*apart).item() == pytest.approx(0.6931472)
    assert row_measures.total_variation(p, p) == row_measures.jensen_shannon(p, p) == 0


def test_shares_and_sinks_by_hand():
    """One layer, meme and head, T = 4, the first token padding; groups (1, 0, 0). Row (0, .6, .1, .3): shares
    (.1 + .3, .6); .6 and .3 pass .2 and are sinks; what is left, .1, is all in group 0.
    """
    rows = torch.tensor([0, 0.6, 0.1, 0.3]).view(1, 1, 1, 4)
    member = row_measures.membership(torch.tensor([[-1, 1, 0, 0]]), 2)
    torch.testing.assert_close(row_measures.shares(rows, member).flatten(), torch.tensor([0.4, 0.6]))
    sink = row_measures.sinks(rows)
    assert sink.flatten().tolist() == [False, True, False, True]
    torch.testing.assert_close(row_measures.sinkless(rows, member, sink).flatten(), torch.tensor([1.0, 0.0]))
