"""Every token of a prompt has its segment, every picture token its cell, in every family."""

import numpy as np
import pytest

import tiny_models
from memedynamics import segments, vlm
from memedynamics.errors import InputError
from memedynamics.prompts import load_prompt, user_text
from memedynamics.segments import CAPTION, HEADER, IMAGE, NONE, QUESTION, SYSTEM, Part
from tiny_study import ROOT

PROMPT = load_prompt(ROOT / "config/prompts/think_answer_text.yaml")
PLAIN = load_prompt(ROOT / "config/prompts/think_answer.yaml")
CAPTIONS = ["a {text} <b>caption</b>", "short — ünï 😀!"]
SIZES = [(84, 56), (56, 84)]


def _placed(family: str, prompt=PROMPT) -> tuple:
    processor = vlm.load_processor(tiny_models.folder(family))
    parts = [segments.parts(prompt, "hateful", caption) for caption in CAPTIONS]
    pictures = [tiny_models.picture(i, *size) for i, size in enumerate(SIZES)]
    inputs = vlm.encode(processor, ["".join(part.text for part in meme) for meme in parts], pictures)
    return processor, inputs, segments.place(inputs, processor, parts)


def test_parts_join_to_the_message():
    for prompt in (PROMPT, PLAIN):
        for caption in CAPTIONS:
            joined = "".join(part.text for part in segments.parts(prompt, "hateful", caption))
            assert joined == user_text(prompt, "hateful", caption)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_every_token_has_the_segment_its_text_has(family):
    processor, inputs, place = _placed(family)
    model_token = vlm.load_model(tiny_models.folder(family)).config.image_token_id
    for row, caption in enumerate(CAPTIONS):
        ids, found = inputs["input_ids"][row].numpy(), place.segment[row]
        assert ((found == NONE) == (inputs["attention_mask"][row].numpy() == 0)).all()
        assert ((found == IMAGE) == (ids == model_token)).all()
        text = {n: processor.tokenizer.decode(ids[found == n]) for n in (SYSTEM, QUESTION, CAPTION, HEADER)}
        shown = user_text(PROMPT, "hateful", caption)
        before, after = shown.split(': "')[0], shown.rpartition('"')[2]
        # A token that spells the end of a caption and what follows goes to what it has more of.
        assert text[CAPTION].strip().rstrip("!") == caption.replace("<b", "< b").replace("</b", "< /b").rstrip("!")
        assert before in text[QUESTION] and text[QUESTION].endswith(after)
        assert "assistant" in text[HEADER].lower() or "model" in text[HEADER]
        assert not set(np.flatnonzero(found == SYSTEM)) & set(np.flatnonzero(ids == model_token))


def test_a_prompt_without_the_caption_has_no_caption_tokens():
    assert not (_placed("qwen2_5_vl", PLAIN)[2].segment == CAPTION).any()


def test_cells_of_merged_patches_follow_the_grid():
    """84 × 56 px in 14 px patches merged 2 × 2 is 2 rows of 3 tokens. Column centres 1/6, 3/6, 5/6 of the width lie in
    cells 0, 2, 3 of 4; row centres 1/4, 3/4 in cells 1 and 3: 4·1 + (0, 2, 3), 4·3 + (0, 2, 3).
    """
    _, _, place = _placed("qwen2_5_vl")
    assert place.cell[0][place.cell[0] != NONE].tolist() == [4, 6, 7, 12, 14, 15]
    assert place.cell[1][place.cell[1] != NONE].tolist() == [1, 3, 9, 11, 13, 15]


def test_cells_of_tiles_lie_where_the_tile_is():
    """Four tiles of 2 × 2 tokens cover the 4 × 4 cells one by one; the whole picture's 2 × 2 come last."""
    _, _, place = _placed("smolvlm")
    cells = place.cell[0][place.cell[0] != NONE].tolist()
    assert cells == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 5, 7, 13, 15]


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_picture_tokens_and_no_others_have_cells(family):
    _, _, place = _placed(family)
    assert ((place.cell != NONE) == (place.segment == IMAGE)).all() and place.cell.max() < 16


def test_a_mixed_token_goes_with_its_larger_part_and_a_space_with_its_word():
    characters = np.array([QUESTION, CAPTION, CAPTION, QUESTION])
    assert segments._segment(characters, 0, 2) == CAPTION
    assert segments._segment(characters, 2, 4) == QUESTION
    assert segments._segment(characters, 0, 3) == CAPTION
    assert segments._segment(characters, 3, 3) == QUESTION


def test_a_prompt_of_other_words_is_refused():
    processor, inputs, _ = _placed("qwen2_5_vl")
    ids = inputs["input_ids"][0][inputs["attention_mask"][0].bool()].numpy()
    with pytest.raises(InputError, match="behind the picture"):
        segments.segments(ids, processor, [Part(QUESTION, "something else")])


def test_tokens_that_are_no_grid_are_refused():
    processor, inputs, _ = _placed("llava")
    ids = np.delete(
        inputs["input_ids"][0].numpy(), np.flatnonzero(inputs["input_ids"][0] == processor.image_token_id)[0]
    )
    with pytest.raises(InputError, match="3 picture tokens"):
        segments.cells(ids, processor)
