"""Delays between pulls."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.drivers.docker import FOREVER, Backoff
from hostler.errors import ConfigError

MOST = 1 - 2**-53
"""The largest number that a uniform random number in [0, 1) takes."""


def test_default_never_retries() -> None:
    assert list(Backoff().delays()) == []


def test_upper_ends_double() -> None:
    backoff = Backoff(max_retries=4, interval_msec=100, min_delay_msec=50)
    delays = list(backoff.delays(lambda: MOST))
    assert delays == pytest.approx([0.15, 0.35, 0.75, 1.55])
    assert list(backoff.delays(lambda: 0.0)) == [0.05] * 4


def test_forever_has_a_cap() -> None:
    backoff = Backoff(max_retries=FOREVER, interval_msec=1, max_delay_msec=2000)
    delays = list(islice(backoff.delays(lambda: MOST), 3000))
    assert delays[-1] == pytest.approx(2.0)


@settings(deadline=None)
@given(
    retries=st.integers(0, 200),
    interval=st.integers(1, 10_000),
    low=st.integers(0, 1000),
    extra=st.integers(0, 100_000),
)
def test_delays_stay_within_their_bounds(retries: int, interval: int, low: int, extra: int) -> None:
    backoff = Backoff(
        max_retries=retries,
        interval_msec=interval,
        min_delay_msec=low,
        max_delay_msec=low + extra,
    )
    delays = list(backoff.delays())
    assert len(delays) == retries
    top = (low + extra) / 1000 if low + extra else float("inf")
    assert all(low / 1000 <= delay <= top for delay in delays)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_retries": 1, "interval_msec": 0},
        {"max_delay_msec": 5, "min_delay_msec": 6},
        {"max_retries": -1},
        {"min_delay_msec": -1},
    ],
)
def test_impossible_settings(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Backoff(**fields)
