"""Keeps what the trusted side would compute again for every submission."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

MAX_BYTES = 64 * 2**20
# what a result takes besides its numbers, as the memory of a worker over a class shows
OVERHEAD = 8_000


class ResultCache:
    """Results by key; the one used longest ago goes first when all take more than `max_bytes`."""

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
        size = OVERHEAD + len(key[1]) + size_of(result)
        self.results[key] = result, size
        self.bytes += size - replaced
        while self.bytes > self.max_bytes:
            _, (_, freed) = self.results.popitem(last=False)
            self.bytes -= freed


def size_of(value: Any) -> int:
    """Return the bytes of all tensors in a value, an object's attributes included."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, list | tuple):
        return sum(size_of(item) for item in value)
    return sum(size_of(item) for item in vars(value).values()) if hasattr(value, "__dict__") else 0
