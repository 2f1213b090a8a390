"""What is remembered of the past: bounded dictionaries."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRUDict(OrderedDict[K, V]):
    """At most ``limit`` items, the least recently used one first; it is dropped for a new one.

    Setting an item uses it. Reading it does not: who reads calls `move_to_end`, too, if that is a
    use.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        if key in self:
            self.move_to_end(key)
        super().__setitem__(key, value)
        if len(self) > self._limit:
            self.popitem(last=False)
