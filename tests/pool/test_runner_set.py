from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.pool.runner_set import fn_hash, siphash24

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
