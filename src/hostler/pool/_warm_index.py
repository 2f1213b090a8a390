"""Where idle hot containers are believed to be. Pure; times are seconds of one clock, given by
the caller."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import TypeVar

import attrs

from ..protocol import MAX_WARM_KEYS

K = TypeVar("K")
V = TypeVar("V")

MAX_NEEDS = 4096
"""Kinds of calls, and slot keys, that are remembered."""
CROSSING_SECONDS = 0.05
"""How much earlier than other news a runner's list of all containers may have been made."""
_NONE = 0, -math.inf


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


class WarmIndex:
    """Counts of idle containers, by need and by the runner's address."""

    def __init__(self) -> None:
        self._needs: OrderedDict[Hashable, dict[str, tuple[int, float]]] = OrderedDict()
        """How many, and until when; those heard of last come last. May be empty: most often the
        next call that ends has one again. Such a need comes first, to go before all others."""
        self._runners: dict[str, dict[Hashable, float]] = {}
        """When each need was heard of."""
        self._digests: OrderedDict[bytes, Need] = OrderedDict()

    def __len__(self) -> int:
        """Pairs of a need and an address that are remembered."""
        return sum(map(len, self._needs.values()))

    def count(self, address: str, need: Need, now: float) -> int:
        found = self._needs.get(need.key)
        count, until = (found and found.get(address)) or _NONE
        return count if now < until else 0

    def addresses(self, need: Need, now: float, limit: int) -> list[str]:
        """Where there is at least one: the first ``limit`` of those that were heard of last."""
        found = self._needs.get(need.key)
        if not found:
            return []
        latest = itertools.islice(reversed(found.items()), limit)
        return [name for name, (_, until) in latest if now < until]

    def latest(self, need: Need, now: float) -> str | None:
        """Where one was heard of last, if it is still there."""
        found = self._needs.get(need.key)
        if not found:
            return None
        address = next(reversed(found))
        return address if now < found[address][1] else None

    def set(self, address: str, need: Need, count: int, now: float) -> None:
        """There are ``count``, which have been heard of just now."""
        if count <= 0:
            self._forget(address, need.key)
            return
        key = need.key
        found = self._needs.get(key)
        if found is None:
            found = self._needs[key] = {}
            self._shrink()
        else:
            self._needs.move_to_end(key)
            found.pop(address, None)  # the one heard of last comes last
        found[address] = count, now + need.idle_seconds
        keys = self._runners.get(address)
        if keys is None:
            self._runners[address] = {key: now}
        else:
            keys[key] = now

    def take(self, address: str, need: Need, now: float) -> bool:
        """A call goes there; whether it is believed to find a hot container."""
        found = self._needs.get(need.key)
        entry = found and found.get(address)
        if not found or not entry:
            return False
        count, until = entry
        if count > 1 and now < until:
            found[address] = count - 1, until
        else:
            del found[address]
            self._runners[address].pop(need.key, None)
            if not found:
                self._needs.move_to_end(need.key, last=False)
        return now < until

    def learn(self, digest: bytes, need: Need) -> None:
        """Calls with ``need`` use the slot key of ``digest``."""
        known = self._digests.get(digest)
        self._digests[digest] = need
        if known is not None:
            self._digests.move_to_end(digest)
        else:
            drop_oldest(self._digests, MAX_NEEDS)

    def replace(self, address: str, counts: Mapping[bytes, int], now: float) -> None:
        """These, by digest, are all that are there, unless they are as many as can be told, and
        beside those that were heard of a moment ago: their calls have ended after this was said.
        Digests that nobody has learned are left out; the counts of one need are added up."""
        sums: dict[Hashable, int] = {}
        needs = [(self._digests.get(digest), count) for digest, count in counts.items()]
        for need, count in needs:
            if need is not None:
                sums[need.key] = sums.get(need.key, 0) + count
                self.set(address, need, sums[need.key], now)
        if len(counts) < MAX_WARM_KEYS:
            known = self._runners.get(address, {})
            for key in known.keys() - sums.keys():
                if known[key] <= now - CROSSING_SECONDS:
                    self._forget(address, key)

    def clear(self, address: str) -> None:
        """Nothing is known of that runner any more."""
        for key in self._runners.pop(address, ()):
            self._drop(address, key)

    def _forget(self, address: str, key: Hashable) -> None:
        keys = self._runners.get(address)
        if keys is not None:
            keys.pop(key, None)
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
