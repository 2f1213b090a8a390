"""Metrics of the front end. Names, tags and buckets are Fn's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hostler._histogram import Histogram
from hostler.errors import Blame
from hostler.metrics import MILLISECONDS

_REQUEST_LABELS = ("path", "method")
_RESPONSE_LABELS = ("path", "method", "status", "blame", "fn_fdk_version")
_METHODS = frozenset(
    {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE"}
)
"""Clients may invent others for a trigger; those are ``other``."""
_MAX_VERSIONS = 100
"""FDK versions come from functions, so their number needs a bound; later ones are ``other``."""


class FrontMetrics(Collector):
    """HTTP requests begun and answered. ``path`` is the route, not the request's own path.

    Counters have Fn's names to the letter, without the ``_total`` of prometheus_client. Raises
    `ValueError` if ``registry`` has such metrics already.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._versions: set[str] = {""}
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._responses: Counter[tuple[str, ...]] = Counter()
        self._latency = Histogram(_RESPONSE_LABELS, MILLISECONDS)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield _metric("request_count", "HTTP requests begun", _REQUEST_LABELS, self._requests)
        yield _metric("response_count", "HTTP requests answered", _RESPONSE_LABELS, self._responses)
        yield self._latency.metric(
            "fn_api_latency", "Milliseconds from a request to the end of its answer"
        )

    def begun(self, path: str, method: str) -> None:
        self._requests[path, _method(method)] += 1

    def answered(
        self,
        path: str,
        method: str,
        *,
        status: int,
        blame: Blame,
        fdk_version: str,
        duration_ns: int,
    ) -> None:
        labels = (path, _method(method), str(status), blame, self._version(fdk_version))
        self._responses[labels] += 1
        self._latency.series(*labels).observe(duration_ns / 1e6)

    def _version(self, version: str) -> str:
        if version not in self._versions:
            if len(self._versions) >= _MAX_VERSIONS:
                return "other"
            self._versions.add(version)
        return version


def _method(name: str) -> str:
    return name if name in _METHODS else "other"


def _metric(
    name: str, text: str, labels: tuple[str, ...], counts: Counter[tuple[str, ...]]
) -> Metric:
    metric = Metric(f"fn_api_{name}", text, "untyped")
    for values, count in tuple(counts.items()):  # a scrape has a thread of its own
        metric.add_sample(metric.name, dict(zip(labels, values, strict=True)), count)
    return metric
