"""The Docker driver's metrics, under Fn's names, for Prometheus."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import attrs
from prometheus_client import REGISTRY, CollectorRegistry, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ...metrics import MILLISECONDS
from .image_cleaner import ImageStatistics
from .stats import Sample

_BLOCK = 131_072
IO_BYTES = (0, *(_BLOCK * factor for factor in (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024)))
MEMORY_BYTES = (0, *(2**power for power in range(27, 34)))
CPU_PERCENT = tuple(range(0, 101, 10))
"""Upper bounds of the buckets, those of Fn's stock server."""

_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


@attrs.frozen(kw_only=True)
class PreforkStatistics:
    """A moment of the pool: its planned ``size``, the name spaces that are ``free``, or ``used`` by
    functions, and how often there was none (``misses``, since the start)."""

    size: int = 0
    free: int = 0
    used: int = 0
    misses: int = 0


@attrs.frozen(kw_only=True)
class DockerStatistics:
    """A moment of a driver: containers that exist or may exist, containers watched for their
    end, threads that wait for the engine (one follows its events), containers by network, and
    the pool of network name spaces."""

    containers: int
    watched: int
    threads: int
    networks: Mapping[str, int]
    images: ImageStatistics | None = None
    """``None`` = the driver does not clean images."""
    prefork: PreforkStatistics = attrs.Factory(PreforkStatistics)


class DockerMetrics(Collector):
    """What a Docker driver counts; ``default_docker_metrics()`` unless it is given another one.

    Counters have Fn's names to the letter, so they are exposed as untyped (see
    `hostler.metrics`). Raises `ValueError` if ``registry`` has such metrics already.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._latency = Histogram(
            "fn_docker_api_latency",
            "Milliseconds of a call of the engine",
            ("api_name", "api_status"),
            buckets=MILLISECONDS,
            registry=registry,
        )
        self._samples = {
            name: Histogram(f"fn_docker_stats_{name}", text, buckets=buckets, registry=registry)
            for name, text, buckets in _SAMPLED
        }
        self._counts = {
            name: _LabelledCounter(f"fn_docker_{name}", text, labels)
            for name, text, labels in _COUNTED
        }
        self._instance: int | None = None
        self._sources: list[Callable[[], DockerStatistics]] = []
        registry.register(self)

    # --- what is told; all but `event` in the event loop's thread ---

    def call_ended(self, api_name: str, api_status: str, seconds: float) -> None:
        """A call of the engine is over: ``ok``, ``canceled``, ``timeout``, an HTTP status, or
        ``error``."""
        self._latency.labels(api_name, api_status).observe(seconds * 1000)

    def call_retried(self, api_name: str, reason: str) -> None:
        """A failed call ``api_name`` of the engine is tried again; ``reason`` is why it failed."""
        self._counts["api_retries"].inc(api_name, reason)

    def container_exited(self, exit_status: str) -> None:
        """``exit_<n>``, or ``ctx_canceled`` for one that was removed while it ran."""
        self._counts["exits"].inc("docker_wait_container", exit_status)

    def event(self, action: str, kind: str) -> None:
        """The engine told an event. May be called from one thread other than the loop's."""
        # The rest is a command line or a state of the user's, of which there is no end.
        self._counts["events"].inc(action.partition(":")[0], kind)

    def sampled(self, sample: Sample) -> None:
        """A container's use was measured: bytes, and percent of one CPU."""
        for name, value in sample.as_metrics().items():
            self._samples[name].observe(value)

    def prefork_missed(self) -> None:
        """A container was to have a network name space of the pool, and none was free."""
        self._counts["prefork_misses"].inc()

    @contextmanager
    def showing(
        self, instance_id: str, statistics: Callable[[], DockerStatistics]
    ) -> Iterator[None]:
        """Expose a driver's id and statistics in the block. Those of several drivers add up."""
        self._instance = fnv1_64(instance_id)
        self._sources.append(statistics)
        try:
            yield
        finally:
            self._sources.remove(statistics)

    # --- what is shown ---

    def collect(self) -> Iterator[Metric]:
        for counts in self._counts.values():
            yield counts.metric()
        yield _gauge(
            "docker_instance_id", "Hash (FNV-1, 64 bits) of the instance id", self._instance or 0
        )
        drivers = [source() for source in tuple(self._sources)]
        yield _gauge(
            "docker_prefork_size",
            "Configured network name spaces",
            sum(driver.prefork.size for driver in drivers),
        )
        yield _gauge(
            "docker_prefork_free",
            "Network name spaces that are ready and unused",
            sum(driver.prefork.free for driver in drivers),
        )
        images = [driver.images for driver in drivers if driver.images is not None]
        for name, field, text in _IMAGES:
            yield _gauge(f"image_cleaner_{name}", text, sum(getattr(i, field) for i in images))
        networks: Counter[str] = Counter()
        for driver in drivers:
            networks.update(driver.networks)
        metric = Metric("fn_docker_networks", "Containers by configured network", "gauge")
        for name, count in networks.items():
            metric.add_sample("fn_docker_networks", {"network": name}, count)
        yield metric


class _LabelledCounter:
    """A counter with labels."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._values: Counter[tuple[str, ...]] = Counter() if labels else Counter({(): 0})

    def inc(self, *labels: str) -> None:
        self._values[labels] += 1

    def metric(self) -> Metric:
        metric = Metric(self._name, self._text, "unknown")
        for labels, value in self._values.copy().items():
            metric.add_sample(self._name, dict(zip(self._labels, labels, strict=True)), value)
        return metric


def _gauge(name: str, text: str, value: int) -> Metric:
    metric = Metric(f"fn_{name}", text, "gauge")
    metric.add_sample(f"fn_{name}", {}, value)
    return metric


def fnv1_64(text: str) -> int:
    """FNV-1 of the UTF-8 bytes (draft-eastlake-fnv, 64 bits)."""
    value = _FNV_OFFSET
    for byte in text.encode():
        value = (value * _FNV_PRIME) % 2**64 ^ byte
    return value


_SAMPLED: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("net_rx", "Bytes received by a container since its start", IO_BYTES),
    ("net_tx", "Bytes sent by a container since its start", IO_BYTES),
    ("disk_read", "Bytes read by a container since its start", IO_BYTES),
    ("disk_write", "Bytes written by a container since its start", IO_BYTES),
    ("mem_limit", "Bytes of memory that a container may use", MEMORY_BYTES),
    ("mem_usage", "Bytes of memory that a container uses", MEMORY_BYTES),
    ("cpu_user", "Percent of one CPU that a container used in user mode", CPU_PERCENT),
    ("cpu_kernel", "Percent of one CPU that a container used in kernel mode", CPU_PERCENT),
    ("cpu_total", "Percent of one CPU that a container used", CPU_PERCENT),
)
_IMAGES: tuple[tuple[str, str, str], ...] = (
    ("busy_img_count", "busy", "Images in use, as the image cleaner last saw them"),
    ("busy_img_size", "busy_size", "Bytes of the images in use"),
    ("idle_img_count", "idle", "Images not in use, as the image cleaner last saw them"),
    ("idle_img_size", "idle_size", "Bytes of the images not in use"),
    ("max_img_size", "limit", "Bytes of images from which on unused ones are removed"),
    ("disk_size", "disk_size", "Bytes of all these images, shared layers counted once"),
)
_COUNTED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("api_retries", "Calls of the engine that were tried again", ("api_name", "api_status")),
    ("exits", "Containers that ended", ("api_name", "exit_status")),
    ("events", "Events that the engine told", ("event_action", "event_type")),
    ("prefork_misses", "Containers for which no network name space was ready", ()),
)


@functools.cache
def default_docker_metrics() -> DockerMetrics:
    """The metrics of this process, in prometheus_client's own registry."""
    return DockerMetrics()
