"""The value of ``grpc-timeout``: what we send, any gRPC server reads, and never as less time."""

from __future__ import annotations

import re

import pytest
from grpclib.metadata import decode_timeout
from hypothesis import given
from hypothesis import strategies as st

from hostler.wire.status import encode_timeout


@given(st.floats(min_value=0, max_value=9e7))
def test_what_is_read_is_no_less_and_hardly_more(seconds: float) -> None:
    text = encode_timeout(seconds)
    assert re.fullmatch(r"[0-9]{1,8}[HMSmun]", text)
    read = decode_timeout(text)
    step = 0.001 if seconds < 99_999 else 1
    assert seconds - 1e-9 * seconds <= read <= seconds + step * (1 + 1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3.0, "1m"),
        (0.0, "1m"),
        (0.0101, "11m"),
        (12.3456, "12346m"),
        (99_999.999, "99999999m"),
        (100_000.0, "100000S"),
        (1e12, "99999999S"),
    ],
)
def test_values(seconds: float, text: str) -> None:
    assert encode_timeout(seconds) == text
