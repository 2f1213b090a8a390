"""The table of metrics, of what the collectors of a node say."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from tables import table

from hostler.bodies import BodyMetrics
from hostler.drivers.docker import DockerMetrics
from hostler.front import FrontMetrics
from hostler.metrics import AgentMetrics, CallCounts, LBMetrics, LogMetrics
from hostler.pool import PoolMetrics
from hostler.wire import TLSMetrics

_HEAD = """\
# Metrics

Each node serves its metrics for Prometheus at `/metrics`. A metric that Fn also has keeps Fn's
name. Fn's counters do not end in `_total`, so they have the type `unknown`. A histogram has
`_bucket`, `_sum` and `_count`.
"""


def metrics_page() -> str:
    rows = [(f"`{metric.name}`", metric.type, metric.documentation) for metric in _metrics()]
    return "\n".join([_HEAD, table(("name", "type", "meaning"), rows)])


def _metrics() -> Iterator[Metric]:
    """All of a node that has all parts, in the order of their names."""
    registry = CollectorRegistry()
    calls = CallCounts(registry)
    LBMetrics(registry, calls=calls)
    AgentMetrics(registry, calls=calls)
    for collector in (
        BodyMetrics,
        DockerMetrics,
        FrontMetrics,
        LogMetrics,
        PoolMetrics,
        TLSMetrics,
    ):
        collector(registry)
    return iter(sorted(registry.collect(), key=lambda metric: metric.name))
