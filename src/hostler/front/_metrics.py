"""Metrics of the front end. Names, tags and buckets are Fn's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hostler._histogram import Histogram, Series
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
        self._known: dict[tuple[str, str, int, Blame, str], Series] = {}
        """As they were asked for; of those that have a bound."""
        self._latency = Histogram(_RESPONSE_LABELS, MILLISECONDS)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield _metric("request_count", "HTTP requests begun", _REQUEST_LABELS, self._requests)
        answered = {labels: sum(series.counts) for labels, series in self._latency.items()}
        yield _metric("response_count", "HTTP requests answered", _RESPONSE_LABELS, answered)
        yield self._latency.metric(
            "fn_api_latency", "Milliseconds from a request to the end of its answer"
        )

    def begun(self, path: str, method: str) -> None:
        self._requests[path, _method(method)] += 1

    def answered(
        self,
        path: str,
        method: str,
        status: int,
        blame: Blame,
        fdk_version: str,
        duration_ns: int,
    ) -> None:
        asked = (path, method, status, blame, fdk_version)
        series = self._known.get(asked) or self._series(asked)
        series.observe(duration_ns / 1e6)

    def _series(self, asked: tuple[str, str, int, Blame, str]) -> Series:
        path, method, status, blame, fdk_version = asked
        version = self._version(fdk_version)
        series = self._latency.series(path, _method(method), str(status), blame, version)
        if method in _METHODS and version == fdk_version:
            self._known[asked] = series
        return series

    def _version(self, version: str) -> str:
        if version not in self._versions:
            if len(self._versions) >= _MAX_VERSIONS:
                return "other"
            self._versions.add(version)
        return version


def _method(name: str) -> str:
    return name if name in _METHODS else "other"


def _metric(
    name: str, text: str, labels: tuple[str, ...], counts: Mapping[tuple[str, ...], int]
) -> Metric:
    metric = Metric(f"fn_api_{name}", text, "untyped")
    for values, count in tuple(counts.items()):  # a scrape has a thread of its own
        metric.add_sample(metric.name, dict(zip(labels, values, strict=True)), count)
    return metric
