"""The price of memory: as much is used as allowed."""

from __future__ import annotations

import math

import pytest

from hostler.contrib.predictive_keep_alive import PERIOD, RANGE, MemoryPrice

MB = 10**6


def run(price: MemoryPrice, *, used: int, allowed: int, seconds: int, begin: int = 0) -> None:
    for now in range(begin, begin + seconds):
        price.hold(used, now)
        price.allow(allowed, 1)
        price.hold(-used, now + 0.999999)


def test_it_rises_while_too_much_is_used_and_falls_again() -> None:
    price = MemoryPrice()
    price.begin(1.0)
    price.begin(7.0)
    assert price.value == 1
    run(price, used=2 * MB, allowed=MB, seconds=300)
    high = price.value
    assert high == pytest.approx(math.exp(5), rel=0.2)
    run(price, used=0, allowed=MB, seconds=1200, begin=300)
    assert price.value < 1


def test_it_rests_where_both_are_the_same() -> None:
    price = MemoryPrice(0.5)
    price.begin(1.0)
    run(price, used=MB, allowed=2 * MB, seconds=600)
    assert price.value == pytest.approx(1, rel=0.01)


def test_it_has_bounds_so_that_it_soon_comes_back() -> None:
    price = MemoryPrice()
    price.begin(2.0)
    run(price, used=0, allowed=MB, seconds=2000)
    assert price.value == 2 / RANGE
    run(price, used=3 * MB, allowed=MB, seconds=3000, begin=2000)
    assert price.value == 2 * RANGE


def test_nothing_is_known_of_the_time_before() -> None:
    price = MemoryPrice()
    price.hold(MB, 1e9)
    price.hold(-MB, 1e9 + PERIOD)
    assert price.value == 0
    assert repr(price) == "<MemoryPrice 0 idle=0>"
