"""Consistent hashing: which runner of a list a function belongs to.

`siphash24` is SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012),
`jump_hash` is the jump consistent hash (Lamping and Veach, "A Fast, Minimal Memory, Consistent
Hash Algorithm", 2014, https://arxiv.org/abs/1406.2294). Fn's placer uses both with the same key,
but its step formula is wrong, so that it never chooses the second runner; this one is the paper's.
Our placers start from the same hash and order by rendezvous (`hostler.pool`), for which runners may
come and go anywhere in the list. Placement is private to each LB: no peer depends on it.
"""

from __future__ import annotations

from functools import lru_cache

FN_HASH_KEY = (0, 0x4C617279426F6174)
"""Fn's SipHash key (k0, k1)."""

_MASK = 2**64 - 1
_LCG = 2862933555777941757
"""Multiplier of the paper's linear congruential generator."""


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
        v0 = v0 + v1 & _MASK
        v1 = (v1 << 13 | v1 >> 51) & _MASK ^ v0
        v0 = (v0 << 32 | v0 >> 32) & _MASK
        v2 = v2 + v3 & _MASK
        v3 = (v3 << 16 | v3 >> 48) & _MASK ^ v2
        v0 = v0 + v3 & _MASK
        v3 = (v3 << 21 | v3 >> 43) & _MASK ^ v0
        v2 = v2 + v1 & _MASK
        v1 = (v1 << 17 | v1 >> 47) & _MASK ^ v2
        v2 = (v2 << 32 | v2 >> 32) & _MASK
    return v0, v1, v2, v3


@lru_cache(maxsize=8192)
def fn_hash(fn_id: str) -> int:
    """The 64-bit hash of a function id that consistent-hash placers start from. Cached."""
    return siphash24(fn_id.encode(), *FN_HASH_KEY)


def jump_hash(key: int, buckets: int) -> int:
    """The bucket, from 0 to ``buckets`` - 1, of a 64-bit ``key``.

    Going from n to n + 1 buckets moves 1 / (n + 1) of the keys, all to the new bucket. Takes
    O(log ``buckets``) steps. Raises `ValueError` if ``buckets`` is under 1.

    No placer of ours uses it: it is for placers of your own over lists that change at the end only.
    """
    if buckets < 1:
        raise ValueError(f"needs at least one bucket, not {buckets}")
    key &= _MASK
    bucket, following = -1, 0
    while following < buckets:
        bucket = following
        key = key * _LCG + 1 & _MASK
        following = int((bucket + 1) * (2**31 / ((key >> 33) + 1)))
    return bucket
