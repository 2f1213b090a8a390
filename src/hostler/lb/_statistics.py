"""What one LB agent is doing and has done."""

from __future__ import annotations

import attrs

from ..metrics import CallStatus, LBMetrics


@attrs.frozen(kw_only=True)
class LBStatistics:
    """A snapshot. ``queued``, ``running`` and ``detached`` (a part of the two) are calls under
    way, the others have been counted since the agent was opened; ``calls`` are the submitted."""

    queued: int = 0
    running: int = 0
    detached: int = 0
    calls: int = 0
    completed: int = 0
    timeouts: int = 0
    server_busy: int = 0
    canceled: int = 0
    errors: int = 0


class Counts:
    """The changing form of `LBStatistics`, which also feeds the metrics."""

    def __init__(self, metrics: LBMetrics) -> None:
        self._metrics = metrics
        self._ended: dict[CallStatus, int] = dict.fromkeys(metrics.ended, 0)
        self.calls = 0
        self.queued = 0
        self.running = 0
        self.detached = 0

    def snapshot(self) -> LBStatistics:
        return LBStatistics(
            queued=self.queued,
            running=self.running,
            detached=self.detached,
            calls=self.calls,
            **self._ended,
        )

    def submitted(self) -> None:
        self.calls += 1
        self._metrics.calls.value += 1

    def refused(self) -> None:
        """A call that was not admitted; it has no latency."""
        self._ended["server_busy"] += 1
        self._metrics.ended["server_busy"].inc()

    def enqueue(self) -> None:
        self.queued += 1
        self._metrics.queued.value += 1

    def dequeue(self) -> None:
        self.queued -= 1
        self._metrics.queued.value -= 1

    def start(self) -> None:
        self.running += 1
        self._metrics.running.value += 1

    def stop(self) -> None:
        self.running -= 1
        self._metrics.running.value -= 1

    def end(
        self, status: CallStatus, latency_ns: int, scheduler_ns: int, execution_ns: int
    ) -> None:
        self._ended[status] += 1
        self._metrics.observe_call(status, latency_ns)
        self._metrics.observe_runner(scheduler_ns, execution_ns)
