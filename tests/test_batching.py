import logging

import pytest
import torch

from memedynamics.batching import cut, halving, shard
from memedynamics.errors import InputError


def test_cut_is_consecutive():
    assert cut(list("abcdefg"), 3) == [list("abc"), list("def"), list("g")]
    assert cut([], 3) == []


@pytest.mark.parametrize("count", [0, 1, 2, 7, 20])
@pytest.mark.parametrize("total", [1, 3, 5])
def test_shards_joined_are_the_batches(count, total):
    shards = [shard(range(count), f"{n}-of-{total}") for n in range(1, total + 1)]
    assert sum(shards, []) == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("name", ["0-of-4", "5-of-4", "2", "2-of-", "a-of-b", "-1-of-4"])
def test_shard_that_does_not_exist(name):
    with pytest.raises(InputError, match=name):
        shard([1, 2], name)


def fits(at_most, seen):
    def work(items):
        seen.append(len(items))
        if len(items) > at_most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [item * 10 for item in items]

    return work


def test_out_of_memory_halves_the_batch_and_says_so(caplog):
    """Of 5 items 2 fit: 5 → 3 + 2, 3 → 2 + 1."""
    seen = []
    with caplog.at_level(logging.WARNING):
        assert halving(fits(2, seen), [1, 2, 3, 4, 5]) == [10, 20, 30, 40, 50]
    assert seen == [5, 3, 2, 1, 2]
    assert "out of memory with 5 in a batch; going on with 3" in caplog.text


def test_out_of_memory_with_one_item_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        halving(fits(0, []), [1, 2])
