"""Metrics of the front end. Names, tags and buckets are Fn's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from hostler.errors import Blame

LATENCY_BUCKETS_MS = (1, 10, 50, 100, 250, 500, 1000, 10_000, 60_000, 120_000)

_REQUEST_LABELS = ("path", "method")
_RESPONSE_LABELS = ("path", "method", "status", "blame", "fn_fdk_version")
_MAX_VERSIONS = 100
"""FDK versions come from functions, so their number needs a bound; later ones are ``other``."""


class FrontMetrics:
    """HTTP requests begun and answered. ``path`` is the route, not the request's own path."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._versions: set[str] = {""}
        self._requests = Counter(
            "fn_api_request_count", "HTTP requests begun", _REQUEST_LABELS, registry=registry
        )
        self._responses = Counter(
            "fn_api_response_count", "HTTP requests answered", _RESPONSE_LABELS, registry=registry
        )
        self._latency = Histogram(
            "fn_api_latency",
            "Time from a request to the end of its answer, in milliseconds",
            _RESPONSE_LABELS,
            buckets=LATENCY_BUCKETS_MS,
            registry=registry,
        )

    def begun(self, path: str, method: str) -> None:
        self._requests.labels(path, method).inc()

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
        labels = (path, method, str(status), blame, self._version(fdk_version))
        self._responses.labels(*labels).inc()
        self._latency.labels(*labels).observe(duration_ns / 1e6)

    def _version(self, version: str) -> str:
        if version not in self._versions:
            if len(self._versions) >= _MAX_VERSIONS:
                return "other"
            self._versions.add(version)
        return version
