"""Prometheus metrics of nodes: counters and histograms without locks, under Fn's names.

`LBMetrics` is handed to the placer and to the LB agent, `AgentMetrics` to the agent and to the pure
runner. Making one registers it. Parts that are given none share those of the process
(`default_metrics`, `default_agent_metrics`), so that a stock node has them.

Counters carry Fn's names to the letter (``fn_calls``), without the ``_total`` that
prometheus_client adds to counters of its own: dashboards made for Fn keep working. They are
exposed as untyped for that reason. Fn calls the time that a container spends in a state
``container_<state>_duration_seconds`` and measures it in milliseconds; the same values have the
name ``..._duration_milliseconds`` too.

All changes happen in the event loop's thread; a scrape from another thread reads whole integers.
prometheus_client's own histogram takes locks and several microseconds for each observation, and a
call on a hot container makes some of them.
"""

from __future__ import annotations

import copy
import functools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Literal, NamedTuple

import attrs
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .errors import Blame

__all__ = [
    "ATTEMPTS",
    "FAST_MILLISECONDS",
    "MAX_LABEL_SETS",
    "MILLISECONDS",
    "STATES",
    "AgentMetrics",
    "AnswerLabels",
    "CallCounter",
    "CallCounts",
    "CallStatus",
    "ContainerLabels",
    "FrontMetrics",
    "Histogram",
    "LBMetrics",
    "LoadGauges",
    "LogMetrics",
    "ReadyOutcome",
    "Series",
    "Stays",
    "default_agent_metrics",
    "default_call_counts",
    "default_metrics",
]

CallStatus = Literal["completed", "timeouts", "server_busy", "canceled", "errors"]
"""How a call ended, as counters and the latency's label name it."""

MILLISECONDS = (1, 10, 50, 100, 250, 500, 1_000, 10_000, 60_000, 120_000)
"""Upper bounds of the latency buckets, those of Fn's default server."""

ATTEMPTS = (0, 2, 3, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the buckets for attempts."""


class CallCounter:
    """A number that is exposed: a counter that only grows, or a gauge."""

    def __init__(self, name: str, text: str, kind: str) -> None:
        self.value = 0
        self._name = name
        self._text = text
        self._kind = kind

    def inc(self) -> None:
        """Add 1. Synchronous; not safe for threads."""
        self.value += 1

    def dec(self) -> None:
        """Take 1 away, which only a gauge may. Synchronous; not safe for threads."""
        self.value -= 1

    def metric(self) -> Metric:
        """What a scrape gets: one sample without labels."""
        metric = Metric(self._name, self._text, self._kind)
        metric.add_sample(self._name, {}, self.value)
        return metric


def _counter(name: str, text: str) -> CallCounter:
    return CallCounter(f"fn_{name}", text, "unknown")


def _gauge(name: str, text: str) -> CallCounter:
    return CallCounter(f"fn_{name}", text, "gauge")


class _Counts(Collector):
    """Exposes the counters that its class declares. Each object has its own."""

    def __init__(self) -> None:
        self._counts: list[CallCounter] = []
        for kind in reversed(type(self).__mro__):
            for name, declared in vars(kind).items():
                if isinstance(declared, CallCounter):
                    setattr(self, name, self._add(copy.copy(declared)))

    def _add(self, count: CallCounter) -> CallCounter:
        self._counts.append(count)
        return count

    def describe(self) -> Iterator[Metric]:
        """The names, by which a registry finds duplicates."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        for count in self._counts:
            yield count.metric()


class LogMetrics(Collector):
    """Exposes the log lines that were dropped; ``dropped`` tells how many.

    Raises `ValueError` if ``registry`` has such a metric already.
    """

    def __init__(self, registry: CollectorRegistry, dropped: Callable[[], int] = int) -> None:
        self._dropped = dropped
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        text = "Log lines dropped because their destination was stuck, too slow or gone"
        metric = Metric("fn_log_dropped_count", text, "unknown")
        metric.add_sample(metric.name, {}, self._dropped())
        yield metric


_ENDINGS: Mapping[CallStatus, str] = {
    "completed": "Calls that succeeded",
    "timeouts": "Calls whose time was over",
    "server_busy": "Calls refused for lack of capacity",
    "canceled": "Calls whose client went away",
    "errors": "Calls that failed in any other way",
}


class CallCounts(_Counts):
    """What both kinds of agent count of their calls, under the same names. Those of one process
    share one such object, as in Fn, so an LB and an agent that are embedded together add up.

    Raises `ValueError` if ``registry`` has such metrics already.
    """

    calls = _counter("calls", "Calls submitted")
    queued = _gauge(
        "queued", "Calls that wait for a container, or on an LB that are read and validated"
    )
    running = _gauge("running", "Calls being run, or on an LB placed or run")

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        super().__init__()
        self.ended = {
            status: self._add(_counter(status, text)) for status, text in _ENDINGS.items()
        }
        registry.register(self)


class LBMetrics(_Counts):
    """What an LB counts. ``placer_*`` and ``runner_*`` stand for Fn's ``lb_placer_*`` and
    ``lb_runner_*``; latencies take nanoseconds and are exposed in milliseconds.

    ``calls`` are made for ``registry`` by default. Raises `ValueError` if ``registry`` has such
    metrics already.
    """

    placer_pool_error = _counter(
        "lb_placer_rp_error_count", "Placements that ended with a runner pool error"
    )
    placer_pool_empty = _counter("lb_placer_rp_empty_count", "Sweeps over an empty list of runners")
    placer_client_cancelled = _counter(
        "lb_placer_client_cancelled_count", "Placements that ended with the client gone"
    )
    placer_client_timeout = _counter(
        "lb_placer_client_timeout_count", "Placements whose request deadline passed"
    )
    placer_timeout = _counter(
        "lb_placer_timeout_count", "Placements given up after the placer's time"
    )
    placer_turned_away = _counter(
        "lb_placer_turned_away_count", "Calls refused at once instead of waiting too long"
    )
    placer_placed_error = _counter("lb_placer_placed_error_count", "Placed calls that failed")
    placer_placed_abort = _counter(
        "lb_placer_placed_abort_count", "Placed calls whose client left or whose time was over"
    )
    placer_placed_ok = _counter("lb_placer_placed_ok_count", "Placed calls that succeeded")
    placer_retry_busy = _counter(
        "lb_placer_retry_busy_count", "Attempts that a runner refused for lack of capacity"
    )
    placer_retry_error = _counter(
        "lb_placer_retry_error_count", "Attempts that failed to reach a runner"
    )
    reservations = _counter(
        "lb_placer_reservation_count", "Slots that runners were asked to hold for a call"
    )
    reservations_committed = _counter(
        "lb_placer_reservation_committed_count", "Held slots to which a call was committed"
    )
    reservations_abandoned = _counter(
        "lb_placer_reservation_abandoned_count",
        "Reservations given up by this LB: lost races, clients gone, runners too slow",
    )
    hedges = _counter("lb_placer_hedge_count", "Second runners asked because the first took long")
    hedges_won = _counter(
        "lb_placer_hedge_won_count", "Calls that were committed to the second runner"
    )

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, *, calls: CallCounts | None = None
    ) -> None:
        super().__init__()
        counts = CallCounts(registry) if calls is None else calls
        self.calls, self.ended = counts.calls, counts.ended
        self.queued, self.running = counts.queued, counts.running
        self._histograms: list[tuple[Histogram, str, str]] = []
        self._attempts = self._histogram(
            "lb_placer_attempt_count", "Attempts to run a call, per placement", bounds=ATTEMPTS
        ).series()
        self._placer_latency = self._histogram(
            "lb_placer_latency", "Milliseconds until a call was placed or given up"
        ).series()
        self._sched_latency = self._histogram(
            "lb_runner_sched_latency", "Milliseconds that runners took to find a container"
        ).series()
        self._exec_latency = self._histogram(
            "lb_runner_exec_latency", "Milliseconds that functions ran"
        ).series()
        by_status = self._histogram(
            "lb_call_latency", "Milliseconds of a call outside of its function", "call_status"
        )
        self._call_latency = {status: by_status.series(status) for status in self.ended}
        registry.register(self)

    def _histogram(
        self, name: str, text: str, *labels: str, bounds: Sequence[float] = MILLISECONDS
    ) -> Histogram:
        histogram = Histogram(labels, bounds)
        self._histograms.append((histogram, f"fn_{name}", text))
        return histogram

    def collect(self) -> Iterator[Metric]:
        yield from super().collect()
        for histogram, name, text in self._histograms:
            yield histogram.metric(name, text)

    def observe_placement(self, attempts: int, latency_ns: int) -> None:
        """A placement is over: how many attempts, and how long until the last of them began."""
        self._attempts.observe(attempts)
        self._placer_latency.observe(latency_ns / 1e6)

    def observe_runner(self, scheduler_ns: int, execution_ns: int) -> None:
        """What a runner reported of a call; 0 = it did not. (A sum must not go down.)"""
        if scheduler_ns > 0:
            self._sched_latency.observe(scheduler_ns / 1e6)
        if execution_ns > 0:
            self._exec_latency.observe(execution_ns / 1e6)

    def observe_call(self, status: CallStatus, latency_ns: int) -> None:
        """A call is over; ``latency_ns`` leaves out what the function itself took."""
        self.ended[status].inc()
        self._call_latency[status].observe(latency_ns / 1e6)


@functools.cache
def default_call_counts() -> CallCounts:
    """Those of this process, in prometheus_client's own registry."""
    return CallCounts()


@functools.cache
def default_metrics() -> LBMetrics:
    """The metrics of this process, in prometheus_client's own registry."""
    return LBMetrics(calls=default_call_counts())


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
        """By the names that Prometheus has for them."""
        return {"app_id": self.app_id, "fn_id": self.fn_id, "image_name": self.image}


_OTHER = ContainerLabels("other", "other", "other")

_LABEL_NAMES = tuple(_OTHER.as_dict())


@attrs.frozen(kw_only=True)
class LoadGauges:
    """What an agent has in use now: bytes, milli-CPUs, and launches."""

    mem_used: int
    mem_total: int
    cpu_used: int
    cpu_total: int
    launches_running: int
    launches_waiting: int


class AgentMetrics(_Counts):
    """What an agent counts. Durations are taken in nanoseconds and exposed in milliseconds.

    ``calls`` are made for ``registry`` by default. Raises `ValueError` if ``registry`` has such
    metrics already.
    """

    launches = _counter("container_launches", "Containers launched")
    launch_failures = _counter("container_launch_failures", "Containers that did not become ready")
    cold_starts = _counter(
        "container_cold_starts", "Calls that found no container and had one launched"
    )
    starts_ahead = _counter(
        "container_starts_ahead", "Containers launched ahead of a call that is foretold"
    )
    starts_ahead_used = _counter(
        "container_starts_ahead_used", "Of those: containers that a call found ready"
    )
    freezes = _counter("container_freezes", "Idle containers paused")
    thaws = _counter("container_thaws", "Paused containers resumed for a call")
    log_lines = _counter("log_lines", "Lines of functions taken for log streams")
    log_lines_dropped = _counter(
        "log_lines_dropped", "Lines dropped because no log stream took them in time"
    )
    reservations = _counter("reservation_count", "Slots that were held for a load balancer's call")
    reservations_committed = _counter(
        "reservation_committed_count", "Held slots whose call was run"
    )
    reservations_abandoned = _counter(
        "reservation_abandoned_count", "Held slots that were given back unused"
    )

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, *, calls: CallCounts | None = None
    ) -> None:
        super().__init__()
        counts = CallCounts(registry) if calls is None else calls
        self.calls, self.ended = counts.calls, counts.ended
        self.queued, self.running = counts.queued, counts.running
        self._states = {state: _StateMetrics(state) for state in STATES}
        self._evictions: Counter[tuple[ContainerLabels, str]] = Counter()
        self._status_calls: Counter[tuple[str, str, str]] = Counter()
        self._ready = Histogram((*_LABEL_NAMES, "container_uds_state"), MILLISECONDS)
        self._wakeups = Histogram((), FAST_MILLISECONDS)
        self._wakeup = self._wakeups.series()
        self._known: set[ContainerLabels] = set()
        self._loads: list[Callable[[], LoadGauges]] = []
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
    def showing(self, read: Callable[[], LoadGauges]) -> Iterator[None]:
        """Have ``read`` asked at each scrape while the block runs. Several agents add up."""
        self._loads.append(read)
        try:
            yield
        finally:
            self._loads.remove(read)

    # --- what is shown ---

    def collect(self) -> Iterator[Metric]:
        yield from super().collect()
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

    def __init__(self, labels: ContainerLabels, durations: Histogram) -> None:
        self.inside = 0
        """How many are in it."""
        self._labels = labels
        self._histogram = durations
        self._durations: Series | None = None
        """Shown from the first one on."""

    def end(self, seconds: float) -> None:
        """One is not in it any more, after so long."""
        self.inside -= 1
        durations = self._durations
        if durations is None:
            durations = self._durations = self._histogram.series(*self._labels)
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
            found = self._stays[labels] = Stays(labels, self._durations)
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


@functools.cache
def default_agent_metrics() -> AgentMetrics:
    """The metrics of this process, in prometheus_client's own registry."""
    return AgentMetrics(calls=default_call_counts())


_REQUEST_LABELS = ("path", "method")

_RESPONSE_LABELS = ("path", "method", "status", "blame", "fn_fdk_version")

_METHODS = frozenset(
    {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE"}
)
"""Clients may invent others for a trigger; those are ``other``."""

_MAX_VERSIONS = 100
"""FDK versions come from functions, so their number needs a bound; later ones are ``other``."""


AnswerLabels = tuple[str, str, int, Blame, str]
"""Route, method, status, whose error it was, and the FDK version of the function, "" for none."""


class FrontMetrics(Collector):
    """HTTP requests begun and answered. ``path`` is the route, not the request's own path.

    Counters have Fn's names to the letter, without the ``_total`` of prometheus_client. Raises
    `ValueError` if ``registry`` has such metrics already.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._versions: set[str] = {""}
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._known: dict[AnswerLabels, Series] = {}
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
        """A request's head was read. A ``method`` that HTTP does not know counts as ``other``."""
        self._requests[path, _method(method)] += 1

    def answered(self, answer: AnswerLabels, duration_ns: int) -> None:
        """An answer is over, ``duration_ns`` nanoseconds after the request began; it is exposed in
        milliseconds."""
        series = self._known.get(answer) or self._series(answer)
        series.observe(duration_ns / 1e6)

    def _series(self, answer: AnswerLabels) -> Series:
        path, method, status, blame, fdk_version = answer
        version = self._version(fdk_version)
        series = self._latency.series(path, _method(method), str(status), blame, version)
        if method in _METHODS and version == fdk_version:
            self._known[answer] = series
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
