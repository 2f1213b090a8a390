"""When a call waits for a busy container instead of having one launched: the rule alone."""

from __future__ import annotations

import pytest

from hostler.agent._pace import CONTENDED, FORGET, MAX_PATIENCE, WORTH, Pace


def pace(run: float = 0.1, start: float = 1.0) -> Pace:
    made = Pace()
    made.launched(start)
    made.ran(run, 0.0)
    return made


def test_of_what_is_not_known_nothing_is_expected() -> None:
    made = Pace()
    assert made.served_soon(10) == 0
    made.ran(0.001, 0.0)
    assert made.served_soon(10) == 0
    other = Pace()
    other.launched(1.0)
    assert other.served_soon(10) == 0


@pytest.mark.parametrize(
    ("run", "busy", "soon"), [(0.1, 1, 7), (0.1, 4, 30), (0.1, 0, 0), (10.0, 8, 0), (0.75, 1, 1)]
)
def test_calls_that_are_served_before_a_launch_would_be_over(
    run: float, busy: int, soon: int
) -> None:
    assert pace(run).served_soon(busy) == soon


def test_nobody_waits_for_longer_than_a_launch_takes_nor_for_very_long() -> None:
    assert pace(start=0.3).patience == 0.3
    slow = pace(start=60.0)
    assert slow.patience == MAX_PATIENCE
    assert slow.served_soon(1) == int(WORTH * MAX_PATIENCE / 0.1)


def test_where_all_have_waited_for_long_there_shall_be_half_as_many_again() -> None:
    made = pace()
    assert not made.too_few(8, 0.0)  # nobody waits
    made.line_begins(0.0)
    assert not made.too_few(8, 0.99)
    assert [made.too_few(8, 1.0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert not made.too_few(12, 1.99)
    assert made.too_few(1, 2.0)
    assert not made.too_few(1, 2.0)  # one at least


def test_a_line_that_ends_has_been_no_trouble() -> None:
    made = pace()
    made.line_begins(0.0)
    assert made.too_few(8, 1.0)
    made.line_ends()
    made.line_begins(1.0)
    assert not made.too_few(8, 1.9)


def test_more_containers_are_no_help_where_calls_are_slower_than_with_fewer() -> None:
    made = pace()
    made.line_begins(0.0)
    for _ in range(100):
        made.ran(0.1 * CONTENDED * 1.01, 0.0)
    assert not made.too_few(8, 1.0)
    for _ in range(100):
        made.ran(0.1, 1.0)
    assert made.too_few(8, 2.0)


def test_that_calls_were_quicker_once_is_forgotten() -> None:
    made = pace()
    made.line_begins(0.0)
    for second in range(round(FORGET * 1.2)):
        made.ran(0.1 * CONTENDED * 1.5, second)
    assert made.too_few(8, FORGET * 1.2)
