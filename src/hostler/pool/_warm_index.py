"""Where idle hot containers are believed to be. Pure; times are seconds of one clock, given by
the caller."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import TypeVar

import attrs

K = TypeVar("K")
V = TypeVar("V")

MAX_NEEDS = 4096
"""Kinds of calls, and slot keys, that are remembered."""


@attrs.frozen
class Need:
    """What a call asks of a runner. Calls with equal keys may use the same container, as far as
    a load balancer can tell."""

    key: Hashable
    memory: int
    """Bytes."""
    idle_seconds: float
    """How long a container of it stays hot."""
    cpus: int = 0
    """Milli-CPUs."""


@attrs.define(eq=False)
class _Warm:
    count: int
    until: float


class WarmIndex:
    """Counts of idle containers, by need and by the runner's address."""

    def __init__(self) -> None:
        self._needs: OrderedDict[Hashable, dict[str, _Warm]] = OrderedDict()
        self._runners: dict[str, set[Hashable]] = {}
        self._digests: OrderedDict[bytes, Need] = OrderedDict()

    def __len__(self) -> int:
        """Pairs of a need and an address that are remembered."""
        return sum(map(len, self._needs.values()))

    def count(self, address: str, need: Need, now: float) -> int:
        entry = self._needs.get(need.key, {}).get(address)
        return entry.count if entry is not None and now < entry.until else 0

    def addresses(self, need: Need, now: float, limit: int) -> list[str]:
        """Where there is at least one: the first ``limit`` of those that were heard of last."""
        found = self._needs.get(need.key)
        if not found:
            return []
        latest = itertools.islice(reversed(found.items()), limit)
        return [name for name, entry in latest if now < entry.until]

    def latest(self, need: Need, now: float) -> str | None:
        """Where one was heard of last, if it is still there."""
        found = self._needs.get(need.key)
        if not found:
            return None
        address = next(reversed(found))
        return address if now < found[address].until else None

    def set(self, address: str, need: Need, count: int, now: float) -> None:
        """There are ``count``, which have been heard of just now."""
        if count <= 0:
            self._forget(address, need.key)
            return
        found = self._needs.get(need.key)
        if found is None:
            found = self._needs[need.key] = {}
            self._shrink()
        else:
            self._needs.move_to_end(need.key)
            found.pop(address, None)  # the one heard of last comes last
        found[address] = _Warm(count, now + need.idle_seconds)
        self._runners.setdefault(address, set()).add(need.key)

    def take(self, address: str, need: Need, now: float) -> bool:
        """A call goes there; whether it is believed to find a hot container."""
        entry = self._needs.get(need.key, {}).get(address)
        if entry is None:
            return False
        hot = now < entry.until
        entry.count -= 1
        if not hot or not entry.count:
            self._forget(address, need.key)
        return hot

    def learn(self, digest: bytes, need: Need) -> None:
        """Calls with ``need`` use the slot key of ``digest``."""
        self._digests[digest] = need
        self._digests.move_to_end(digest)
        if len(self._digests) > MAX_NEEDS:
            self._digests.popitem(last=False)

    def replace(self, address: str, counts: Mapping[bytes, int], now: float) -> None:
        """These, by digest, are all that are there. Digests that nobody has learned are left
        out; the counts of one need are added up."""
        self.clear(address)
        for digest, count in counts.items():
            need = self._digests.get(digest)
            if need is not None:
                self.set(address, need, self.count(address, need, now) + count, now)

    def clear(self, address: str) -> None:
        """Nothing is known of that runner any more."""
        for key in self._runners.pop(address, ()):
            self._drop(address, key)

    def _forget(self, address: str, key: Hashable) -> None:
        keys = self._runners.get(address)
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self._runners[address]
        self._drop(address, key)

    def _drop(self, address: str, key: Hashable) -> None:
        found = self._needs.get(key)
        if found is not None:
            found.pop(address, None)
            if not found:
                del self._needs[key]

    def _shrink(self) -> None:
        while len(self._needs) > MAX_NEEDS:
            key = next(iter(self._needs))
            for address in tuple(self._needs[key]):
                self._forget(address, key)
            self._needs.pop(key, None)


def drop_oldest(items: OrderedDict[K, V], limit: int) -> None:
    """Keep the youngest ``limit`` items."""
    while len(items) > limit:
        items.popitem(last=False)
