"""The LB's metrics, under Fn's names, for Prometheus.

`LBMetrics` is an object that is handed to the placer and to the LB agent. Making one registers
it. Both parts share `default_metrics` if they are given none, so that a stock node has them.

Counters carry Fn's names to the letter (``fn_calls``), without the ``_total`` that
prometheus_client adds to counters of its own: dashboards made for Fn keep working. They are
exposed as untyped for that reason. All changes happen in the event loop's thread; a scrape from
another thread reads whole integers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ._histogram import Histogram

CallStatus = Literal["completed", "timeouts", "server_busy", "canceled", "errors"]
"""How a call ended, as counters and the latency's label name it."""

MILLISECONDS = (1, 10, 50, 100, 250, 500, 1_000, 10_000, 60_000, 120_000)
"""Upper bounds of the latency buckets, those of Fn's default server."""
ATTEMPTS = (0, 2, 3, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the buckets for attempts."""


class Count:
    """A number that is exposed: a counter that only grows, or a gauge."""

    def __init__(self, name: str, text: str, kind: str) -> None:
        self.value = 0
        self._name = name
        self._text = text
        self._kind = kind

    def inc(self) -> None:
        self.value += 1

    def dec(self) -> None:
        self.value -= 1

    def metric(self) -> Metric:
        metric = Metric(self._name, self._text, self._kind)
        metric.add_sample(self._name, {}, self.value)
        return metric


class _Counts(Collector):
    """Exposes `Count` objects."""

    def __init__(self) -> None:
        self._counts: list[Count] = []

    def _counter(self, name: str, text: str) -> Count:
        return self._add(Count(f"fn_{name}", text, "unknown"))

    def _gauge(self, name: str, text: str) -> Count:
        return self._add(Count(f"fn_{name}", text, "gauge"))

    def _add(self, count: Count) -> Count:
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


class CallCounts(_Counts):
    """What both kinds of agent count of their calls, under the same names. Those of one process
    share one such object, as in Fn, so an LB and an agent that are embedded together add up.

    Raises `ValueError` if ``registry`` has such metrics already.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        super().__init__()
        self.calls = self._counter("calls", "Calls submitted")
        self.ended: dict[CallStatus, Count] = {
            "completed": self._counter("completed", "Calls that succeeded"),
            "timeouts": self._counter("timeouts", "Calls whose time was over"),
            "server_busy": self._counter("server_busy", "Calls refused for lack of capacity"),
            "canceled": self._counter("canceled", "Calls whose client went away"),
            "errors": self._counter("errors", "Calls that failed in any other way"),
        }
        self.queued = self._gauge(
            "queued", "Calls that wait for a container, or on an LB that are read and validated"
        )
        self.running = self._gauge("running", "Calls being run, or on an LB placed or run")
        registry.register(self)


class LBMetrics(_Counts):
    """What an LB counts. ``placer_*`` and ``runner_*`` stand for Fn's ``lb_placer_*`` and
    ``lb_runner_*``; latencies take nanoseconds and are exposed in milliseconds.

    ``calls`` are made for ``registry`` by default. Raises `ValueError` if ``registry`` has such
    metrics already.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, *, calls: CallCounts | None = None
    ) -> None:
        super().__init__()
        counts = CallCounts(registry) if calls is None else calls
        self.calls, self.ended = counts.calls, counts.ended
        self.queued, self.running = counts.queued, counts.running
        self.placer_pool_error = self._counter(
            "lb_placer_rp_error_count", "Placements that ended with a runner pool error"
        )
        self.placer_pool_empty = self._counter(
            "lb_placer_rp_empty_count", "Sweeps over an empty list of runners"
        )
        self.placer_client_cancelled = self._counter(
            "lb_placer_client_cancelled_count", "Placements that ended with the client gone"
        )
        self.placer_client_timeout = self._counter(
            "lb_placer_client_timeout_count", "Placements whose request deadline passed"
        )
        self.placer_timeout = self._counter(
            "lb_placer_timeout_count", "Placements given up after the placer's time"
        )
        self.placer_turned_away = self._counter(
            "lb_placer_turned_away_count", "Calls refused at once instead of waiting too long"
        )
        self.placer_placed_error = self._counter(
            "lb_placer_placed_error_count", "Placed calls that failed"
        )
        self.placer_placed_abort = self._counter(
            "lb_placer_placed_abort_count", "Placed calls whose client left or whose time was over"
        )
        self.placer_placed_ok = self._counter(
            "lb_placer_placed_ok_count", "Placed calls that succeeded"
        )
        self.placer_retry_busy = self._counter(
            "lb_placer_retry_busy_count", "Attempts that a runner refused for lack of capacity"
        )
        self.placer_retry_error = self._counter(
            "lb_placer_retry_error_count", "Attempts that failed to reach a runner"
        )
        self.reservations = self._counter(
            "lb_placer_reservation_count", "Slots that runners were asked to hold for a call"
        )
        self.reservations_committed = self._counter(
            "lb_placer_reservation_committed_count", "Held slots to which a call was committed"
        )
        self.reservations_abandoned = self._counter(
            "lb_placer_reservation_abandoned_count",
            "Reservations given up by this LB: lost races, clients gone, runners too slow",
        )
        self.hedges = self._counter(
            "lb_placer_hedge_count", "Second runners asked because the first took long"
        )
        self.hedges_won = self._counter(
            "lb_placer_hedge_won_count", "Calls that were committed to the second runner"
        )
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
