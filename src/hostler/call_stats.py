"""What a container used during one call, bounded however long the call is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import attrs

from .dates import format_date
from .models import StatSample

MAX_SAMPLES = 240
"""Samples that are kept of a call (Fn's number)."""


@attrs.frozen
class TimedSample:
    """A sample at a Unix time in nanoseconds."""

    at_ns: int
    metrics: Mapping[str, int]


def thin(samples: Sequence[TimedSample], limit: int = MAX_SAMPLES) -> list[TimedSample]:
    """At most ``limit`` samples, in order of time: the means (whole numbers) over windows of equal
    length, of which those without a sample are left out.

    The samples must be in order of time. As in Fn, a sample at the border of two windows belongs
    to the earlier one, and the last of ``limit`` windows takes all the rest.
    """
    if len(samples) <= limit:
        return list(samples)
    start_ns = samples[0].at_ns
    window_ns = max(1, (samples[-1].at_ns - start_ns) // limit)
    groups: list[list[TimedSample]] = []
    latest = -1
    for sample in samples:
        index = max(0, sample.at_ns - start_ns - 1) // window_ns
        if not groups or (index != latest and len(groups) < limit):
            groups.append([])
        groups[-1].append(sample)
        latest = index
    return [_mean(group) for group in groups]


def _mean(group: Sequence[TimedSample]) -> TimedSample:
    names = {name for sample in group for name in sample.metrics}
    return TimedSample(
        sum(sample.at_ns for sample in group) // len(group),
        {
            name: sum(sample.metrics.get(name, 0) for sample in group) // len(group)
            for name in names
        },
    )


class CallStats:
    """Collects the samples of one call. They are thinned whenever there are many, so that a call of
    hours needs no more memory than one of minutes."""

    def __init__(self) -> None:
        self._samples: list[TimedSample] = []

    def add(self, at_ns: int, metrics: Mapping[str, int]) -> None:
        self._samples.append(TimedSample(at_ns, metrics))
        if len(self._samples) >= 4 * MAX_SAMPLES:
            self._samples = thin(self._samples)

    def result(self) -> list[StatSample]:
        """For the call's model."""
        return [
            StatSample(_text(sample.at_ns), dict(sample.metrics)) for sample in thin(self._samples)
        ]


def _text(at_ns: int) -> str:
    return format_date(dt.datetime.fromtimestamp(at_ns / 1e9, dt.UTC))
