from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler._call_document import MAX_MILLI_CPUS, format_cpus, parse_cpus
from hostler.errors import InvalidCPUs


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("", 0),
        ("1.00", 1000),
        ("1", 1000),
        (".2", 200),
        ("2.", 2000),
        ("0.2341", 234),
        ("1.001", 1001),
        ("0.0009", 0),
        ("1m", 1),
        ("500m", 500),
        (" 500m ", 500),
        ("00m", 0),
        ("-00000", 0),
        ("1e2", 100_000),
        ("1024", MAX_MILLI_CPUS),
        ("1024000m", MAX_MILLI_CPUS),
    ],
)
def test_quantities(text: str, milli: int) -> None:
    assert parse_cpus(text) == milli


@pytest.mark.parametrize(
    "text",
    [
        "-100",
        "-0.20",
        "-1m",
        "1024.001",
        "1024001m",
        "1e999",
        "1e9999999999",
        "9" * 100_000,
        "9" * 100_000 + "m",
        "m",
        "0.5m",
        "+1m",
        ".",
        "1 m",
        "nan",
        "inf",
        "0x1",
        "1_000",
        "٣",
        "cpu",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidCPUs, match=r"^Cpus is invalid"):
        parse_cpus(text)


@given(st.integers(0, MAX_MILLI_CPUS))
def test_round_trip(milli: int) -> None:
    assert parse_cpus(format_cpus(milli)) == milli
    assert parse_cpus(f"{milli // 1000}.{milli % 1000:03}") == milli
