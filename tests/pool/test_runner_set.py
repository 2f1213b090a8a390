from __future__ import annotations

import secrets
from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.pool.runner_set import fn_hash, jump_hash, siphash24

_PAPER_KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908)

keys = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, 0x726FDB47DD0E0E31),
        (1, 0x74F839C593DC67FD),
        (7, 0xAB0200F58B01D137),
        (8, 0x93F5F5799A932462),
        (15, 0xA129CA6149BE45E5),  # the worked example in the appendix of the paper
    ],
)
def test_siphash_vectors_of_its_authors(length: int, expected: int) -> None:
    assert siphash24(bytes(range(length)), *_PAPER_KEY) == expected


@pytest.mark.parametrize(
    ("fn_id", "expected"),
    [
        ("", 0x4DCCF8F6E62EA9AD),
        ("fn1", 0xD0C0253BFD66CCEA),
        ("01BX5ZZKBKACTAV9WEVGEMMVRZ", 0x77C7585F6E02B6EC),
    ],
)
def test_fn_hash_is_that_of_fn(fn_id: str, expected: int) -> None:
    assert fn_hash(fn_id) == expected


@given(data=st.binary(max_size=300), key=st.tuples(keys, keys))
def test_siphash_is_64_bits_and_depends_on_its_key(data: bytes, key: tuple[int, int]) -> None:
    value = siphash24(data, *key)
    assert 0 <= value < 2**64
    assert value != siphash24(data, key[0] ^ 1, key[1])


def _key(index: int) -> int:
    return int.from_bytes(sha256(str(index).encode()).digest()[:8], "big")


@pytest.mark.parametrize("buckets", [2, 3, 4, 10])
def test_jump_hash_spreads_evenly(buckets: int) -> None:
    total = 20_000
    shares = Counter(jump_hash(_key(index), buckets) for index in range(total))
    assert set(shares) == set(range(buckets))
    expected = total / buckets
    # 5 standard deviations of a binomial count: fixed keys, so this never flickers
    tolerance = 5 * (expected * (1 - 1 / buckets)) ** 0.5
    assert all(abs(count - expected) < tolerance for count in shares.values())


@given(key=keys, buckets=st.integers(1, 200))
def test_one_more_bucket_moves_keys_only_into_it(key: int, buckets: int) -> None:
    before, after = jump_hash(key, buckets), jump_hash(key, buckets + 1)
    assert 0 <= before < buckets
    assert after in (before, buckets)


def test_one_more_bucket_moves_its_share() -> None:
    total = 20_000
    moved = sum(jump_hash(_key(i), 9) != jump_hash(_key(i), 10) for i in range(total))
    assert 0.09 < moved / total < 0.11


@pytest.mark.parametrize("key", [0, 2**33 - 1, 2**64 - 1])
def test_keys_with_extreme_bits_work(key: int) -> None:
    assert jump_hash(key, 1) == 0
    assert 0 <= jump_hash(key, 1000) < 1000


def test_keys_over_64_bits_are_cut() -> None:
    key = secrets.randbits(64)
    assert jump_hash(key | 1 << 64, 50) == jump_hash(key, 50)


@pytest.mark.parametrize("buckets", [0, -1])
def test_no_buckets_are_refused(buckets: int) -> None:
    with pytest.raises(ValueError, match=f"at least one bucket, not {buckets}"):
        jump_hash(1, buckets)
