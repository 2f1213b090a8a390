"""Rendezvous hashing: in which order a function prefers the runners of a pool. Pure.

Each pair of a function and a runner has a score; a function goes to the runner with the highest,
then to the next (highest random weight: Thaler and Ravishankar, "Using Name-Based Mappings to
Increase Hit Rates", IEEE/ACM Transactions on Networking 6(1), 1998). So the order of the list and
the history of the pool don't matter: load balancers that know the same runners agree, and a runner
that comes or goes moves only the functions that it has, about one in n.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ..hashing import fn_hash

_MASK = 2**64 - 1


def mix64(value: int) -> int:
    """A bijection of 64-bit numbers in which each bit depends on all: the finalizer of splitmix64
    (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


_name_hash = lru_cache(maxsize=8192)(fn_hash)


def name_hashes(names: Iterable[str]) -> tuple[int, ...]:
    """What `favourites` takes instead of the names."""
    return tuple(map(_name_hash, names))


def favourites(key: str, hashes: Sequence[int], count: int) -> tuple[int, ...]:
    """The indices of the first ``count`` of `ranking`. Takes O(n) for n names and few of them."""
    own = fn_hash(key)
    scores = [mix64(own ^ name) for name in hashes]
    indices = range(len(scores))
    if count < len(scores):
        return tuple(heapq.nlargest(count, indices, key=scores.__getitem__))
    return tuple(sorted(indices, key=scores.__getitem__, reverse=True))


def ranking(key: str, names: Sequence[str]) -> tuple[int, ...]:
    """The indices of ``names``, the one that ``key`` prefers first. Equal names keep their order.

    Takes O(n log n) for n names.
    """
    return favourites(key, name_hashes(names), len(names))
