"""The metrics of a runner's agent, under Fn's names, for Prometheus.

`AgentMetrics` is an object that is handed to the agent and to the pure runner. Making one
registers it. Both use `default_agent_metrics` if they are given none, so that a stock node has
them. Fn calls the time that a container spends in a state ``container_<state>_duration_seconds``
and measures it in milliseconds: that stays as it is, for dashboards made for Fn, and the same
values have the name ``..._duration_milliseconds`` too.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import attrs
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ._histogram import Histogram, Series
from .metrics import MILLISECONDS, CallCounts, Count, default_call_counts

STATES = ("wait", "start", "idle", "paused", "busy")
"""Of a container, as parts of metric names."""
MAX_LABEL_SETS = 1000
"""Functions that get series of their own; the later ones share the labels ``other``. Prometheus
keeps a series for ever, so there has to be a bound."""
FAST_MILLISECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000)
"""Upper bounds of the buckets for what should take no time at all."""

ReadyOutcome = Literal["initialized", "canceled", "timedout"]
"""How waiting for a function's socket ended; the value of ``container_uds_state``."""


class ContainerLabels(NamedTuple):
    """Whose container it is. A tuple, for a quick hash."""

    app_id: str
    fn_id: str
    image: str

    def as_dict(self) -> dict[str, str]:
        return {"app_id": self.app_id, "fn_id": self.fn_id, "image_name": self.image}


_OTHER = ContainerLabels("other", "other", "other")
_LABEL_NAMES = tuple(_OTHER.as_dict())


@attrs.frozen(kw_only=True)
class Load:
    """What an agent has in use now: bytes, milli-CPUs, and launches."""

    mem_used: int
    mem_total: int
    cpu_used: int
    cpu_total: int
    launches_running: int
    launches_waiting: int


class AgentMetrics(Collector):
    """What an agent counts. Durations are taken in nanoseconds and exposed in milliseconds.

    ``calls`` are made for ``registry`` by default. Raises `ValueError` if ``registry`` has such
    metrics already.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, *, calls: CallCounts | None = None
    ) -> None:
        counts = CallCounts(registry) if calls is None else calls
        self.calls, self.ended = counts.calls, counts.ended
        self.queued, self.running = counts.queued, counts.running
        self.launches = _counter("container_launches", "Containers launched")
        self.launch_failures = _counter(
            "container_launch_failures", "Containers that did not become ready"
        )
        self.cold_starts = _counter(
            "container_cold_starts", "Calls that found no container and had one launched"
        )
        self.starts_ahead = _counter(
            "container_starts_ahead", "Containers launched ahead of a call that is foretold"
        )
        self.starts_ahead_used = _counter(
            "container_starts_ahead_used", "Of those: containers that a call found ready"
        )
        self.freezes = _counter("container_freezes", "Idle containers paused")
        self.thaws = _counter("container_thaws", "Paused containers resumed for a call")
        self.log_lines = _counter("log_lines", "Lines of functions taken for log streams")
        self.log_lines_dropped = _counter(
            "log_lines_dropped", "Lines dropped because no log stream took them in time"
        )
        self.reservations = _counter(
            "reservation_count", "Slots that were held for a load balancer's call"
        )
        self.reservations_committed = _counter(
            "reservation_committed_count", "Held slots whose call was run"
        )
        self.reservations_abandoned = _counter(
            "reservation_abandoned_count", "Held slots that were given back unused"
        )
        self._counts = [self.launches, self.launch_failures, self.freezes, self.thaws]
        self._counts += [self.cold_starts, self.starts_ahead, self.starts_ahead_used]
        self._counts += [self.reservations, self.reservations_committed]
        self._counts += [self.reservations_abandoned]
        self._counts += [self.log_lines, self.log_lines_dropped]
        self._states = {state: _StateMetrics(state) for state in STATES}
        self._evictions: Counter[tuple[ContainerLabels, str]] = Counter()
        self._status_calls: Counter[tuple[str, str, str]] = Counter()
        self._ready = Histogram((*_LABEL_NAMES, "container_uds_state"), MILLISECONDS)
        self._wakeups = Histogram((), FAST_MILLISECONDS)
        self._wakeup = self._wakeups.series()
        self._known: set[ContainerLabels] = set()
        self._loads: list[Callable[[], Load]] = []
        registry.register(self)

    # --- what is told ---

    def labels(self, app_id: str, fn_id: str, image: str) -> ContainerLabels:
        """The labels for a container, of which there are at most ``MAX_LABEL_SETS``."""
        labels = ContainerLabels(app_id, fn_id, image)
        if labels not in self._known:
            if len(self._known) >= MAX_LABEL_SETS:
                return _OTHER
            self._known.add(labels)
        return labels

    def stays(self, labels: ContainerLabels) -> Mapping[str, Stays]:
        """Where a container's stays in each of `STATES` are counted."""
        return {state: metrics.of(labels) for state, metrics in self._states.items()}

    def evicted(self, state: str, labels: ContainerLabels) -> None:
        """A container has to make room; ``state`` is the one it is in."""
        self._evictions[labels, state] += 1

    def observe_ready(
        self, outcome: ReadyOutcome, labels: ContainerLabels, duration_ns: int
    ) -> None:
        """A started container's socket is ready, or is not waited for any more."""
        series = self._ready.series(*labels, outcome)
        series.observe(duration_ns / 1e6)

    def observe_wakeup(self, duration_ns: int) -> None:
        """A call that waited for a container went on so long after it was given one."""
        self._wakeup.observe(duration_ns / 1e6)

    def count_status(self, *, cached: str, success: str, network: str) -> None:
        """A status request was answered: each is ``true``, ``false`` or ``error``."""
        self._status_calls[cached, success, network] += 1

    @contextmanager
    def showing(self, read: Callable[[], Load]) -> Iterator[None]:
        """Have ``read`` asked at each scrape while the block runs. Several agents add up."""
        self._loads.append(read)
        try:
            yield
        finally:
            self._loads.remove(read)

    # --- what is shown ---

    def describe(self) -> Iterator[Metric]:
        """The names, by which a registry finds duplicates."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        for count in self._counts:
            yield count.metric()
        for state in self._states.values():
            yield from state.collect()
        yield from self._labelled()
        yield self._ready.metric(
            "fn_container_uds_init_latency",
            "Milliseconds from the start of a container until its socket was ready",
        )
        yield self._wakeups.metric(
            "fn_slot_wakeup_latency_milliseconds",
            "Milliseconds from the gift of a container to a waiting call until it went on",
        )
        yield from self._load()

    def _labelled(self) -> Iterator[Metric]:
        evictions = Metric("fn_container_evictions", "Containers that made room", "unknown")
        for (labels, state), count in tuple(self._evictions.items()):
            tags = {**labels.as_dict(), "container_state": state}
            evictions.add_sample(evictions.name, tags, count)
        yield evictions
        status = Metric("fn_status_call", "Status requests answered", "unknown")
        for (cached, success, network), count in tuple(self._status_calls.items()):
            tags = {"cached": cached, "success": success, "network": network}
            status.add_sample(status.name, tags, count)
        yield status

    def _load(self) -> Iterator[Metric]:
        loads = [read() for read in tuple(self._loads)]
        for name, text, values in (
            ("util_cpu_used", "Milli-CPUs of all containers", [x.cpu_used for x in loads]),
            ("util_cpu_avail", "Milli-CPUs left", [x.cpu_total - x.cpu_used for x in loads]),
            ("util_mem_used", "Bytes of all containers", [x.mem_used for x in loads]),
            ("util_mem_avail", "Bytes left", [x.mem_total - x.mem_used for x in loads]),
            (
                "container_launches_running",
                "Containers being created and started",
                [x.launches_running for x in loads],
            ),
            (
                "container_launches_waiting",
                "Containers waiting for their turn to be created",
                [x.launches_waiting for x in loads],
            ),
        ):
            metric = Metric(f"fn_{name}", text, "gauge")
            metric.add_sample(metric.name, {}, sum(values))
            yield metric


class Stays:
    """Of containers with the same labels in one state."""

    def __init__(self, durations: Callable[[], Series]) -> None:
        self.inside = 0
        """How many are in it."""
        self._make = durations
        self._durations: Series | None = None
        """Shown from the first one on."""

    def end(self, seconds: float) -> None:
        """One is not in it any more, after so long."""
        self.inside -= 1
        durations = self._durations
        if durations is None:
            durations = self._durations = self._make()
        durations.observe(seconds * 1e3)


class _StateMetrics:
    """How many containers are in one state, and how long they were."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._stays: dict[ContainerLabels, Stays] = {}
        self._durations = Histogram(_LABEL_NAMES, MILLISECONDS)

    def of(self, labels: ContainerLabels) -> Stays:
        found = self._stays.get(labels)
        if found is None:
            found = self._stays[labels] = Stays(partial(self._durations.series, *labels))
        return found

    def collect(self) -> Iterator[Metric]:
        inside = Metric(
            f"fn_container_{self._state}_total", f"Containers in the state {self._state}", "gauge"
        )
        for labels, stays in tuple(self._stays.items()):
            if stays.inside:
                inside.add_sample(inside.name, labels.as_dict(), stays.inside)
        yield inside
        yield self._durations.metric(
            f"fn_container_{self._state}_duration_seconds",
            f"Milliseconds (in spite of the name) that a container was in the state {self._state}",
        )
        yield self._durations.metric(
            f"fn_container_{self._state}_duration_milliseconds",
            f"Milliseconds that a container was in the state {self._state}",
        )


def _counter(name: str, text: str) -> Count:
    return Count(f"fn_{name}", text, "unknown")


@functools.cache
def default_agent_metrics() -> AgentMetrics:
    """The metrics of this process, in prometheus_client's own registry."""
    return AgentMetrics(calls=default_call_counts())
