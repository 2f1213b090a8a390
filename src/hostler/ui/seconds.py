"""Calls and their latencies in each of the last seconds. Pure: the clock is the caller's."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable

import msgspec

KEPT_SECONDS = 300
"""Five minutes: what fits a plot on a phone."""

STEPS_PER_DOUBLING = 8
"""Latencies are counted in steps of a factor 2 ** (1/8), so they are off by less than 5 %."""
_STEPS = tuple(
    round(10_000 * 2 ** (step / STEPS_PER_DOUBLING)) for step in range(26 * STEPS_PER_DOUBLING)
)
"""Upper bounds in nanoseconds, from 10 µs to 11 minutes; the last one takes all above."""


class Second(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One second. In JSON it is a list, in this order. Latencies in ms, 0 without calls."""

    at: int
    """Seconds since 1970."""
    calls: int
    failed: int
    p50: float
    p99: float

    @classmethod
    def of(cls, counted: Iterable[CountedSecond]) -> Second:
        """Join the same second of one or more processes."""
        at = calls = failed = 0
        steps = Counter[int]()
        for each in counted:
            at, calls, failed = each.at, calls + each.calls, failed + each.failed
            pairs = array(_PAIRS, each.latencies)
            for step, count in zip(pairs[::2], pairs[1::2], strict=True):
                steps[step] += count
        return cls(at, calls, failed, _quantile(steps, calls, 0.5), _quantile(steps, calls, 0.99))


class CountedSecond(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A second that can be added to the same second of other processes."""

    at: int
    calls: int
    failed: int
    latencies: bytes
    """Pairs of an index into `_STEPS` and a number of calls, as unsigned integers."""


_PAIRS = "I"


class SecondBuckets:
    """The last `KEPT_SECONDS` seconds, and the present one, which is still open.

    Memory is bounded by that, and a call costs a search among ~200 numbers.
    """

    def __init__(self) -> None:
        self._closed: deque[CountedSecond] = deque(maxlen=KEPT_SECONDS)
        self._at = 0
        self._calls = 0
        self._failed = 0
        self._counts = [0] * (len(_STEPS) + 1)

    def add(self, at: int, duration_ns: int, *, failed: bool) -> None:
        """A call has ended in second ``at``. Seconds that go backwards count as the present."""
        if at > self._at:
            self._close(at)
        self._calls += 1
        self._failed += failed
        self._counts[bisect_left(_STEPS, duration_ns)] += 1

    def since(self, after: int, now: int) -> list[CountedSecond]:
        """The closed seconds with ``after < at < now`` that had calls, the oldest first."""
        if now > self._at:
            self._close(now)
        oldest = max(after, now - KEPT_SECONDS - 1)
        return [second for second in self._closed if oldest < second.at < now]

    def _close(self, new: int) -> None:
        if self._calls:
            pairs = array(_PAIRS)
            for step, count in enumerate(self._counts):
                if count:
                    pairs.extend((step, count))
            closed = CountedSecond(self._at, self._calls, self._failed, pairs.tobytes())
            self._closed.append(closed)
            self._counts = [0] * len(self._counts)
            self._calls = self._failed = 0
        self._at = new


def _quantile(steps: Counter[int], calls: int, share: float) -> float:
    """Milliseconds. The middle, by factor, of the step in which it lies."""
    rank, seen = share * calls, 0
    for step, count in sorted(steps.items()):
        seen += count
        if seen >= rank:
            bound: int = _STEPS[min(step, len(_STEPS) - 1)]
            return round(bound * 2 ** (-0.5 / STEPS_PER_DOUBLING) / 1e6, 3)
    raise AssertionError("more calls than counts")
