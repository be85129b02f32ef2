"""Keeps what the trusted side would compute again for every submission."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np
import torch

MAX_BYTES = 64 * 2**20
# what a result takes besides its numbers, as the memory of a worker over a class shows
OVERHEAD = 8_000
# what an array takes besides its numbers
ARRAY_OVERHEAD = 800
OBJECT_SIZE = 100
# a single result does not drive out the others
LARGEST_SHARE = 4


class ResultCache:
    """Results by key; the one used longest ago goes first when all take more than `max_bytes`.

    One that takes a large share of that is not kept.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.results: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: tuple[Hashable, bytes], compute: Callable[[], Any]) -> Any:
        """Return the result for `key`, computed if it is not there."""
        if key in self.results:
            return self.find(key)
        result = compute()
        self.keep(key, result)
        return result

    def find(self, key: tuple[Hashable, bytes]) -> Any:
        """Return the result for `key`, or None."""
        if key not in self.results:
            return None
        self.results.move_to_end(key)
        return self.results[key][0]

    def keep(self, key: tuple[Hashable, bytes], result: Any) -> None:
        """Keep a result in place of the one that is there."""
        _, replaced = self.results.pop(key, (None, 0))
        self.bytes -= replaced
        size = OVERHEAD + len(key[1]) + size_of(result)
        if size > self.max_bytes // LARGEST_SHARE:
            return
        self.results[key] = result, size
        self.bytes += size
        while self.bytes > self.max_bytes:
            _, (_, freed) = self.results.popitem(last=False)
            self.bytes -= freed


def size_of(value: Any) -> int:
    """Return about how many bytes a value takes, with what is in it."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return ARRAY_OVERHEAD + value.nbytes
    parts: Iterable[Any] = ()
    if isinstance(value, list | tuple):
        parts = value
    elif isinstance(value, dict):
        parts = (*value.keys(), *value.values())
    elif hasattr(value, "__dict__"):
        parts = vars(value).values()
    return sys.getsizeof(value, OBJECT_SIZE) + sum(map(size_of, parts))
