"""What the gaps of the past foretell."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.contrib.predictive_keep_alive import BINS, EDGES, LONGEST, MOST, Gaps, gittins

counts = st.lists(st.floats(0, 100), min_size=BINS, max_size=BINS)


def noted(*gaps: float) -> Gaps:
    made = Gaps()
    for gap in gaps:
        made.note(gap)
    return made


def slow_gittins(values: list[float], endless: float) -> list[float]:
    """By the definition: the best of all times to give up, each by itself."""
    total = sum(values) + endless
    found = []
    for begin in range(BINS):
        best = 0.0
        alive = endless + sum(values[begin:])
        hits = seconds = 0.0
        for index in range(begin, BINS):
            width = EDGES[index + 1] - EDGES[index]
            seconds += width * (alive - values[index] / 2) / total
            hits += values[index] / total
            alive -= values[index]
            if seconds > 0:
                best = max(best, hits / seconds)
        found.append(best)
    return found


@given(counts, st.floats(0.01, 100))
def test_one_pass_finds_what_the_definition_says(values: list[float], endless: float) -> None:
    assert gittins(values, endless) == pytest.approx(slow_gittins(values, endless), rel=1e-3)


@given(counts, st.floats(0.01, 100), st.floats(1e-6, 10))
def test_who_keeps_on_is_worth_the_price_until_the_end(
    values: list[float], endless: float, price: float
) -> None:
    """Before its best time to give up the index never falls below what it was: so it is enough to
    stop where it is under the price for the first time."""
    worth = gittins(values, endless)
    alive = [endless + sum(values[begin:]) for begin in range(BINS + 1)]
    if worth[0] < price:
        return
    end = next((index for index in range(BINS) if worth[index] < price), BINS)
    hits = alive[0] - alive[end]
    seconds = sum(
        (EDGES[index + 1] - EDGES[index]) * (alive[index] + alive[index + 1]) / 2
        for index in range(end)
    )
    assert hits >= price * seconds * (1 - 1e-6)


@given(st.lists(st.floats(0, 3 * LONGEST), max_size=60), st.floats(0, LONGEST), st.floats(0, 10))
def test_what_is_not_worth_it_now_goes_now(gaps: list[float], age: float, price: float) -> None:
    made = noted(*gaps)
    end = made.keep_age(age, price)
    if end > age:
        assert end <= LONGEST
    else:
        assert made.worth(age) < price or age >= LONGEST
    again = made.return_age(age, price)
    assert again > age
    if again < math.inf:
        assert made.worth(again) >= price
    if end < LONGEST:
        assert 0 <= made.chance(age, max(age, end)) <= 1


def test_a_regular_function_is_let_go_and_comes_back() -> None:
    gaps = noted(*[100.0] * 10)
    price = 1 / 20
    assert gaps.keep_age(0.1, price) < 10
    back = gaps.return_age(10.0, price)
    assert 70 < back < 100
    assert 100 < gaps.keep_age(back, price) < 150
    assert gaps.chance(back, 130.0) > 0.9


def test_a_short_while_is_bridged() -> None:
    """To start again would cost more than to keep it."""
    gaps = noted(*[10.0] * 10)
    assert gaps.return_age(0.0, 1 / 8) > 0
    assert gaps.keep_age(0.0, 1 / 8) > 10


def test_the_worth_changes_with_the_age() -> None:
    gaps = noted(*[1.0] * 50, *[1000.0] * 2)
    values = [gaps.worth(age) for age in (2.0, 10.0, 100.0)]
    assert gaps.worth(0.5) > 100 * values[0]
    assert values[0] > values[2] < gaps.worth(900.0)
    assert gaps.worth(LONGEST) == gaps.worth(2 * LONGEST) == 0


def test_what_is_old_fades() -> None:
    gaps = noted(*[300.0] * (MOST - 1))
    slow = gaps.worth(0.0)
    for gap in itertools.repeat(1.0, 3 * MOST):
        gaps.note(gap)
    assert gaps.total < MOST
    assert gaps.worth(0.0) > 50 * slow
    assert gaps.chance(2.0, 400.0) > 0.5  # but it is not forgotten at once


def test_without_any_gap_little_is_foretold() -> None:
    gaps = Gaps()
    assert repr(gaps) == "<Gaps 0>"
    assert gaps.chance(0.0, 30.0) == pytest.approx(28 / 65, abs=0.03)
    assert all(gaps.worth(a) > gaps.worth(b) for a, b in itertools.pairwise((1.0, 10.0, 100.0)))
