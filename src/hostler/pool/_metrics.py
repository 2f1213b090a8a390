"""What pools count, for Prometheus. The names are ours, in the style of Fn's."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..metrics import Count
from ._health import Cause


class PoolMetrics(Collector):
    """Of all pools that share it. Making one registers it; raises `ValueError` if ``registry``
    has such metrics already."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._counts: list[Count] = []
        self.runners = self._add("runners", "Runners that pools offer, or would offer", "gauge")
        self.leaving = self._add("leaving", "Runners that left and have calls to finish", "gauge")
        self.ejected = self._add("ejected", "Runners that get no calls for a while", "gauge")
        self.joined = self._add("joined_count", "Runners that joined a pool")
        self.left = self._add("left_count", "Runners that left a pool")
        self.ejections: dict[Cause, Count] = {
            "unreachable": self._add("unreachable_count", "Ejections: could not be reached"),
            "faulty": self._add("faulty_count", "Ejections: failed calls for its own reasons"),
            "slow": self._add("slow_count", "Ejections: far slower than the others"),
        }
        self.refusals = self._add("refusal_count", "Runners that said that they take no calls")
        self.returns = self._add("return_count", "Runners that were back after that")
        self.lookups = self._add("lookup_count", "Names that were looked up in the DNS")
        self.lookup_failures = self._add("lookup_failure_count", "Look-ups that failed")
        registry.register(self)

    def _add(self, name: str, text: str, kind: str = "unknown") -> Count:
        count = Count(f"fn_lb_pool_{name}", text, kind)
        self._counts.append(count)
        return count

    def collect(self) -> Iterator[Metric]:
        return (count.metric() for count in self._counts)


@functools.cache
def default_pool_metrics() -> PoolMetrics:
    """Those of this process, in prometheus_client's own registry."""
    return PoolMetrics()
