"""Runner sets: lists of runners, and each function's preference (rendezvous hashing).

A pool returns the same list until it changes, so what is computed for a list is kept. Otherwise the
cost of a call would grow with the number of runners.

Each pair of a function and a runner has a score. A function prefers the runner with the highest
score, then the next (highest random weight: Thaler and Ravishankar, "Using Name-Based Mappings to
Increase Hit Rates", IEEE/ACM Transactions on Networking 6(1), 1998). So the order of the list and
the history of the pool don't matter: load balancers that know the same runners agree, and a runner
that comes or goes moves only its own functions, about one in n.

The hash of a function is `siphash24`, SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast
short-input PRF", 2012), with Fn's key. Fn's placer continues with a jump hash whose step formula is
wrong, so that it never chooses the second runner. No peer depends on the choice: placement is
private to each load balancer.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from .._stats import LRUDict
from ..abc import Runner

NEAR = 16
"""Preferred runners of a function that are remembered, for `MAX_NEAR` functions."""

MAX_NEAR = 8192

MAX_WHOLE = 256
"""Functions for which the order of all runners is remembered."""

MAX_SETS = 8
"""Lists that are remembered. One pool may return several in turn, while some runners get fewer
calls."""


class RunnerSet:
    """One list of runners. It never changes."""

    def __init__(self, runners: tuple[Runner, ...]) -> None:
        self.runners = runners
        self._by_address = {runner.address: runner for runner in reversed(runners)}
        self.addresses = frozenset(self._by_address)
        self._hashes = name_hashes(runner.address for runner in runners)
        self.all_report_since: int | None = None
        """The `LoadTracker.reporting_version` at which all of these runners report their load by
        themselves."""
        self._near = LRUDict[str, tuple[Runner, ...]](MAX_NEAR)
        self._whole = LRUDict[str, tuple[Runner, ...]](MAX_WHOLE)

    def __repr__(self) -> str:
        return f"<RunnerSet runners={len(self.runners)} functions={len(self._near)}>"

    def __len__(self) -> int:
        return len(self.runners)

    def find(self, address: str) -> Runner | None:
        return self._by_address.get(address)

    def near(self, key: str) -> tuple[Runner, ...]:
        """The first runners of `preferred`."""
        return self._recall(self._near, key, NEAR)

    def preferred(self, key: str) -> Iterator[Runner]:
        """All runners in the order in which ``key`` prefers them, by rendezvous hashing over their
        addresses."""
        near = self.near(key)
        yield from near
        if len(near) < len(self.runners):
            yield from self._recall(self._whole, key, len(self))[len(near) :]

    def _recall(
        self, known: LRUDict[str, tuple[Runner, ...]], key: str, count: int
    ) -> tuple[Runner, ...]:
        found = known.get(key)
        if found is not None:
            known.move_to_end(key)
            return found
        indices = favourites(key, self._hashes, count)
        known[key] = found = tuple(self.runners[index] for index in indices)
        return found


class RunnerSets:
    """The lists that were seen last."""

    def __init__(self) -> None:
        self._sets = LRUDict[tuple[Runner, ...], RunnerSet](MAX_SETS)
        self._latest = RunnerSet(())

    def __repr__(self) -> str:
        return f"<RunnerSets latest={self._latest!r} lists={len(self._sets)}>"

    def of(self, runners: Sequence[Runner]) -> RunnerSet:
        """The runner set of ``runners``. Costs nothing if it is the same tuple as the last time."""
        if runners is self._latest.runners:
            return self._latest
        held = tuple(runners)
        runner_set = self._sets.get(held)
        if runner_set is None:
            runner_set = self._sets[held] = RunnerSet(held)
        else:
            self._sets.move_to_end(held)
        self._latest = runner_set
        return runner_set


FN_HASH_KEY = (0, 0x4C617279426F6174)
"""Fn's SipHash key (k0, k1)."""

_MASK64 = 2**64 - 1


def siphash24(data: bytes, k0: int, k1: int) -> int:
    """The 64-bit SipHash-2-4 of ``data`` under the 128-bit key (``k0``, ``k1``)."""
    state = (
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    )
    whole = len(data) & ~7
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, whole, 8)]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    for word in words:
        v0, v1, v2, v3 = state
        v0, v1, v2, v3 = _rounds(v0, v1, v2, v3 ^ word, 2)
        state = v0 ^ word, v1, v2, v3
    v0, v1, v2, v3 = state
    v0, v1, v2, v3 = _rounds(v0, v1, v2 ^ 0xFF, v3, 4)
    return v0 ^ v1 ^ v2 ^ v3


def _rounds(v0: int, v1: int, v2: int, v3: int, count: int) -> tuple[int, int, int, int]:
    for _ in range(count):
        v0 = v0 + v1 & _MASK64
        v1 = (v1 << 13 | v1 >> 51) & _MASK64 ^ v0
        v0 = (v0 << 32 | v0 >> 32) & _MASK64
        v2 = v2 + v3 & _MASK64
        v3 = (v3 << 16 | v3 >> 48) & _MASK64 ^ v2
        v0 = v0 + v3 & _MASK64
        v3 = (v3 << 21 | v3 >> 43) & _MASK64 ^ v0
        v2 = v2 + v1 & _MASK64
        v1 = (v1 << 17 | v1 >> 47) & _MASK64 ^ v2
        v2 = (v2 << 32 | v2 >> 32) & _MASK64
    return v0, v1, v2, v3


@lru_cache(maxsize=8192)
def fn_hash(fn_id: str) -> int:
    """The 64-bit hash of a function id that placers with consistent hashing start from. Cached."""
    return siphash24(fn_id.encode(), *FN_HASH_KEY)


def mix64(value: int) -> int:
    """A bijection of 64-bit numbers in which each bit depends on all: the finalizer of splitmix64
    (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK64
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK64
    return value ^ value >> 31


_name_hash = lru_cache(maxsize=8192)(fn_hash)


def name_hashes(names: Iterable[str]) -> tuple[int, ...]:
    """The hashes of ``names``, which `favourites` takes."""
    return tuple(map(_name_hash, names))


def favourites(key: str, hashes: Sequence[int], count: int) -> tuple[int, ...]:
    """The indices of the ``count`` runners that ``key`` prefers, the most preferred first.
    ``hashes`` are the `name_hashes` of the runners' addresses. Takes O(n) for n runners and a small
    count."""
    own = fn_hash(key)
    scores = [mix64(own ^ name) for name in hashes]
    indices = range(len(scores))
    if count < len(scores):
        return tuple(heapq.nlargest(count, indices, key=scores.__getitem__))
    return tuple(sorted(indices, key=scores.__getitem__, reverse=True))
