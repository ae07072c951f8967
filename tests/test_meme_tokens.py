"""Responses cut into tokens: whole characters, JavaScript's lengths, and nothing lost."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from memedynamics import meme_tokens
from memedynamics.errors import InputError

END = "<|im_end|>"


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes alone, and an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    found = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    found.pre_tokenizer, found.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    found.add_special_tokens([END])
    return found


def cut(tokenizer, text):
    return meme_tokens.cut(tokenizer.encode(text).ids, tokenizer)


def test_a_character_of_several_tokens_is_whole(tokenizer):
    """é takes two bytes, 日 three, and the cat four bytes and two UTF-16 units."""
    assert cut(tokenizer, "aé日🐈") == ("aé日🐈", [1, 0, 1, 0, 0, 1, 0, 0, 0, 2])


def test_special_tokens_and_lines_are_shown(tokenizer):
    assert cut(tokenizer, f"a\n{END}") == (f"a\n{END}", [1, 1, len(END)])


@pytest.mark.parametrize(
    ("kept", "text"),
    [(slice(0, 3), "a\ufffd"), (slice(2, None), "\ufffdb"), (slice(1, 2), "\ufffd"), (slice(0, 0), "")],
)
def test_bytes_that_are_no_text_show_once_and_count_all_tokens(tokenizer, kept, text):
    ids = tokenizer.encode("a日b").ids[kept]
    found = meme_tokens.cut(ids, tokenizer)
    assert len(found.lengths) == len(ids) and sum(found.lengths) == len(found.text)
    assert found.text.replace("\ufffd\ufffd", "\ufffd") == text


def test_pieces_with_a_word_mark_keep_their_spaces():
    vocabulary = {"▁a": 0, "▁cat": 1, "s": 2, "<unk>": 3, "<0xE6>": 4, "<0x97>": 5, "<0xA5>": 6}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    assert meme_tokens.cut([0, 1, 2, 4, 5, 6, 1], tokenizer) == ("a cats日 cat", [1, 4, 1, 0, 0, 1, 4])


def test_a_model_without_tokenizer_is_named(tmp_path):
    with pytest.raises(InputError, match="tokenizer.json: no tokenizer can be read"):
        meme_tokens.load(tmp_path)
    tmp_path.joinpath("tokenizer.json").write_text(json.dumps({"model": 1}))
    with pytest.raises(InputError, match="tokenizer.json"):
        meme_tokens.load(tmp_path)
