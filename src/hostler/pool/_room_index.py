"""Which runners have much memory, without a look at all of them. Pure."""

from __future__ import annotations

import random

STEPS = 2
"""Bits of a level beside the highest one: a level's runners differ by a quarter at most."""


class _Bag:
    """A set of which a random member is found at once."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self._places: dict[str, int] = {}

    def add(self, item: str) -> None:
        self._places[item] = len(self.items)
        self.items.append(item)

    def remove(self, item: str) -> None:
        place, last = self._places.pop(item), self.items.pop()
        if last != item:
            self.items[place] = last
            self._places[last] = place


class RoomIndex:
    """Addresses by bytes, in levels that get wider with the size."""

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}
        self._bags: dict[int, _Bag] = {}
        self._filled = 0
        """A bit for each level that has runners."""

    def __repr__(self) -> str:
        return f"<RoomIndex runners={len(self._levels)} levels={len(self._bags)}>"

    def put(self, address: str, memory: int) -> None:
        """That runner has so many bytes now."""
        level = _level(memory)
        old = self._levels.get(address)
        if old == level:
            return
        if old is not None:
            self._take_out(address, old)
        self._levels[address] = level
        bag = self._bags.get(level)
        if bag is None:
            bag = self._bags[level] = _Bag()
            self._filled |= 1 << level
        bag.add(address)

    def drop(self, address: str) -> None:
        """Nothing is known of that runner any more."""
        level = self._levels.pop(address, None)
        if level is not None:
            self._take_out(address, level)

    def may_have(self, memory: int) -> bool:
        """Whether one may have so many bytes; false is certain."""
        return bool(self._filled >> _level(memory))

    def some(self, memory: int, count: int, rng: random.Random) -> list[str]:
        """Up to ``count`` that may have so many bytes, those with the least first; which ones of
        those that have about the same is left to chance."""
        found: list[str] = []
        level = _level(memory)
        filled = self._filled >> level
        while filled and len(found) < count:
            skipped = (filled & -filled).bit_length()
            level += skipped
            filled >>= skipped
            items = self._bags[level - 1].items
            found += rng.sample(items, min(count - len(found), len(items)))
        return found

    def _take_out(self, address: str, level: int) -> None:
        bag = self._bags[level]
        bag.remove(address)
        if not bag.items:
            del self._bags[level]
            self._filled &= ~(1 << level)


def _level(memory: int) -> int:
    """Grows with ``memory``: its magnitude, and the `STEPS` bits after the first."""
    if memory <= 0:
        return 0
    bits = memory.bit_length()
    return (bits << STEPS) + ((memory << STEPS >> bits - 1) & (1 << STEPS) - 1)
