"""What bodies take, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ._budget import BodyBudget


class BodyMetrics(Collector):
    """Exposes what a `BodyBudget` counts. Fn has no such metrics.

    Raises `ValueError` if ``registry`` has such metrics already.
    """

    def __init__(self, registry: CollectorRegistry, budget: BodyBudget | None = None) -> None:
        self._budget = budget or BodyBudget()
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        budget = self._budget
        yield _gauge("memory", "Bytes of request bodies that are kept in memory", budget.memory)
        yield _gauge("disk", "Bytes of request bodies that are kept in files", budget.disk)
        not_kept = Metric(
            "fn_body_not_kept_count",
            "Bodies of which no more could be kept, so that their calls could not go elsewhere, "
            "or were refused",
            "unknown",
        )
        for reason, count in budget.not_kept.items():
            not_kept.add_sample(not_kept.name, {"reason": reason}, count)
        yield not_kept


def _gauge(name: str, text: str, value: int) -> Metric:
    metric = Metric(f"fn_body_{name}_bytes", text, "gauge")
    metric.add_sample(metric.name, {}, value)
    return metric
