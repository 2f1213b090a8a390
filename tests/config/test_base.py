from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.config import base
from hostler.config.addresses import is_host_port


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_true(text: str) -> None:
    assert base.parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_false(text: str) -> None:
    assert base.parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "yes", "tRUE", "on", "2", " true"])
def test_no_bool(text: str) -> None:
    with pytest.raises(ValueError):
        base.parse_bool(text)


@given(st.integers(0, 2**64 - 1))
def test_unsigned(number: int) -> None:
    assert base.parse_unsigned(str(number)) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.0", "1_0", "0x1", "٣", "1 ", str(2**64), "9" * 10_000]
)
def test_no_unsigned(text: str) -> None:
    with pytest.raises(ValueError):
        base.parse_unsigned(text)


@pytest.mark.parametrize(
    ("text", "msecs"),
    [
        ("50", 50.0),
        ("+50", 50.0),
        ("0", 0.0),
        ("-1", math.inf),
        (str(-(2**63)), math.inf),
        ("9223372036854", 9223372036854.0),
        ("9223372036855", math.inf),
        (str(2**63 - 1), math.inf),
    ],
)
def test_milliseconds(text: str, msecs: float) -> None:
    assert base.parse_milliseconds(text) == msecs


@pytest.mark.parametrize("text", ["", "1.5", "1s", "--1", str(2**63), "9" * 10_000])
def test_no_milliseconds(text: str) -> None:
    with pytest.raises(ValueError):
        base.parse_milliseconds(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("15", 15.0),
        ("0s", 0.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("300ms", 0.3),
        ("1m30s", 90.0),
        ("1h1m1s", 3661.0),
        ("2us", 2e-6),
        ("2µs", 2e-6),
        ("2\u03bcs", 2e-6),
        ("5ns", 5e-9),
    ],
)
def test_seconds(text: str, seconds: float) -> None:
    assert base.parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "s", ".s", "1.5", "-1s", "1 s", "1s ", "1d", "1S", "s1", "1m30", "1s,", "٣s", "3000000h"],
)
def test_no_seconds(text: str) -> None:
    with pytest.raises(ValueError):
        base.parse_seconds(text)


@pytest.mark.parametrize(
    "text",
    [
        *("a:1", "runner-1.example.com:9190", "10.0.0.1:65535", "[::1]:9190", "[fe80::1%eth0]:1"),
        *("a_b:1", "a.b.:1", "bücher.test:1", "a" * 63 + ":1"),
    ],
)
def test_addresses(text: str) -> None:
    assert is_host_port(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "a:", ":1", "a:0", "a:65536", "a:1x", "a b:1", "::1:9190", "[::1]", "[]:1"),
        *("http://a:1", "a:1/x", "u@a:1", "a:1:2", "a:٣", "a:123456"),
        *("a..b:1", ".a:1", "a" * 64 + ":1", "ü" * 64 + ":1"),
    ],
)
def test_no_addresses(text: str) -> None:
    assert not is_host_port(text)
