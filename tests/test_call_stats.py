"""Samples of a call are thinned (reference 07 §8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.models import MAX_SAMPLES, CallStats, TimedSample, downsample

SECOND = 10**9


def every_second(count: int, *, gap_at: int = -1, gap: int = 0) -> list[TimedSample]:
    return [
        TimedSample((n + (gap if 0 <= gap_at <= n else 0)) * SECOND, {"x": n}) for n in range(count)
    ]


@pytest.mark.parametrize("count", [480, 700, 300])
def test_many_samples_become_240(count: int) -> None:
    assert len(downsample(every_second(count))) == MAX_SAMPLES


def test_a_gap_of_twenty_minutes() -> None:
    assert len(downsample(every_second(300, gap_at=150, gap=1200))) == 49


def test_few_samples_stay_as_they_are() -> None:
    samples = every_second(240)
    assert downsample(samples) == samples


def test_means_are_whole_numbers() -> None:
    samples = [TimedSample(n, {"x": n, "y": 10} if n else {"y": 10}) for n in range(4)]
    assert downsample(samples, 1) == [TimedSample(1, {"x": 1, "y": 10})]


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=400).map(sorted), st.integers(1, 50))
def test_thinning_keeps_order_and_bounds(times: list[int], limit: int) -> None:
    samples = [TimedSample(at_ns, {"x": at_ns}) for at_ns in times]
    kept = downsample(samples, limit)
    assert 1 <= len(kept) <= max(limit, 1)
    assert [sample.at_ns for sample in kept] == sorted(sample.at_ns for sample in kept)
    assert times[0] <= kept[0].at_ns
    assert kept[-1].at_ns <= times[-1]


def test_a_call_of_any_length_is_bounded() -> None:
    stats = CallStats()
    for sample in every_second(10_000):
        stats.add(sample.at_ns, sample.metrics)
    assert len(stats._samples) < 4 * MAX_SAMPLES
    result = stats.result()
    assert MAX_SAMPLES / 2 < len(result) <= MAX_SAMPLES
    assert result[0].timestamp.startswith("1970-01-01T00:")
    assert result[0].timestamp < result[-1].timestamp
