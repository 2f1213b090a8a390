"""A histogram for one event loop: prometheus_client's own takes locks and several microseconds for
each observation, and a call on a hot container makes some of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.metrics_core import Metric


class Series:
    """The observations with one set of labels."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Not safe for threads; a scrape from another thread may miss the last observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Histogram:
    """Observations by labels. ``bounds`` are the upper bounds of the buckets, ascending and below a
    million: from there on Prometheus writes numbers in its own way."""

    def __init__(self, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._labels = tuple(labels)
        self._bounds = tuple(map(float, bounds))  # quicker to compare with than whole numbers
        self._names = [*map(repr, self._bounds), "+Inf"]
        self._series: dict[tuple[str, ...], Series] = {}

    def series(self, *values: str) -> Series:
        """Those with these values of the labels."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Series(self._bounds)
        return found

    def items(self) -> Sequence[tuple[tuple[str, ...], Series]]:
        """All of them, with their labels. A scrape may ask from a thread of its own."""
        return tuple(self._series.items())

    def metric(self, name: str, text: str) -> Metric:
        """As Prometheus takes it, under ``name``."""
        metric = Metric(name, text, "histogram")
        for values, series in self.items():
            labels = dict(zip(self._labels, values, strict=True))
            counts = list(accumulate(series.counts))
            for bound, count in zip(self._names, counts, strict=True):
                metric.add_sample(f"{name}_bucket", {**labels, "le": bound}, count)
            metric.add_sample(f"{name}_count", labels, counts[-1])
            metric.add_sample(f"{name}_sum", labels, series.total)
        return metric
