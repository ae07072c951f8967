"""Batches cut at fixed ids, dealt to shards whole, and halved when they do not fit into memory."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from memedynamics.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


def cut(items: Sequence[Item], batch_size: int) -> list[Sequence[Item]]:
    """`items` in consecutive batches of `batch_size`, the last one shorter. The cuts do not depend on the shards."""
    return [items[start : start + batch_size] for start in range(0, len(items), batch_size)]


def shard(batches: Sequence[Item], name: str) -> list[Item]:
    """The batches of shard `name`, such as "2-of-4": consecutive ones, and as many as the others' to within one.

    The shards joined in order give the batches in order. Raises InputError when `name` is no such thing.
    """
    number, separator, total = name.partition("-of-")
    if not (separator and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise InputError(f"shard {name!r}: is not of the form 2-of-4; name one of the study's shards")
    first, last = ((int(number) - 1 + end) * len(batches) // int(total) for end in (0, 1))
    return list(batches[first:last])


def halving(work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
    """`work(items)`; where the device runs out of memory, the results of both halves, joined. One item alone raises."""
    try:
        return work(items)
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    # Outside the handler: there the traceback would keep the failed attempt's tensors alive.
    torch.cuda.empty_cache()
    half = (len(items) + 1) // 2
    log.warning("out of memory with %d in a batch; going on with %d", len(items), half)
    return halving(work, items[:half]) + halving(work, items[half:])
