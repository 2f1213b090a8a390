"""One call from its admission to its end."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Sequence

import attrs
import structlog
import trio

from .._concurrency.nurseries import is_cancellation
from ..abc import Body, CallListener, Placer, RunnerPool
from ..bodies import BodyBudget, keep_whole
from ..call import PendingCall, hears, tell_after
from ..errors import ServerBusy, ServiceReservationFailure
from ._ending import Ending, ending_of
from ._statistics import Counts

PLACER_SECONDS = 0.05
"""Seconds for the placer to refuse a call itself whose client's time is over."""


@attrs.frozen(kw_only=True)
class Means:
    """What an agent has for all its calls. ``listeners`` are told in order."""

    pool: RunnerPool
    placer: Placer
    listeners: Sequence[CallListener]
    counts: Counts
    bodies: BodyBudget
    log: structlog.typing.FilteringBoundLogger
    """Of finished calls: bound, as what a module has is looked up for each line."""
    hear_begin: bool = attrs.field(init=False)
    """Whether one of the listeners wants to be told before a call."""

    @hear_begin.default
    def _default_hear_begin(self) -> bool:
        return any(
            hears(listener.before_call, CallListener.before_call) for listener in self.listeners
        )


class CallRun:
    """Runs one call once."""

    def __init__(self, means: Means, call: PendingCall) -> None:
        self._means = means
        self._call = call
        self._kept: Body | None = None
        self._submitted_at = trio.current_time()
        self._started_at: float | None = None
        self._told = 0
        """How many of the listeners."""

    async def run(self, *, seconds: float = math.inf, body_limit: float | None = None) -> None:
        """See the call through. Raises the error that ends it.

        ``seconds`` is our own limit on a call under way. With a ``body_limit`` the body is kept
        whole before, up to so many bytes, and until the end.
        """
        call, means = self._call, self._means
        try:
            if body_limit is not None:
                await self._keep_body(body_limit)
            self._started_at = self._submitted_at if self._kept is None else trio.current_time()
            call.model.status = "running"
            call.model.started_at = dt.datetime.now(dt.UTC)
            if means.hear_begin:
                await self._tell_before()
            else:
                self._told = len(means.listeners)
            means.counts.start()
            try:
                # One budget: the placer, the runner (as gRPC deadline) and the function are told it
                if seconds < math.inf:
                    call.deadline = min(call.deadline, trio.current_time() + seconds)
                if call.deadline == math.inf:  # as by default: a scope would be for nothing
                    await means.placer.place_call(means.pool, call)
                else:
                    await self._place_in_time()
            finally:
                means.counts.stop()
        except BaseException as error:
            call.not_placed = is_cancellation(error) and not call.runner_address
            await self._end(error)
            raise
        else:
            await self._end(None)
        finally:
            if self._kept is not None:
                await self._kept.aclose()

    async def _keep_body(self, limit: float) -> None:
        self._means.counts.enqueue()
        try:
            self._kept = await keep_whole(self._call.body, self._means.bodies, limit)
            self._call.body = self._kept
        finally:
            self._means.counts.dequeue()

    async def _tell_before(self) -> None:
        self._means.counts.enqueue()
        try:
            for listener in self._means.listeners:
                await listener.before_call(self._call)
                self._told += 1
        finally:
            self._means.counts.dequeue()

    async def _place_in_time(self) -> None:
        with trio.move_on_at(self._call.deadline + PLACER_SECONDS) as scope:
            await self._means.placer.place_call(self._means.pool, self._call)
        if scope.cancelled_caught:  # maybe since the process stood still, while nobody had it
            raise ServiceReservationFailure if self._call.runner_address else ServerBusy

    async def _end(self, error: BaseException | None) -> None:
        model = self._call.model
        model.completed_at = dt.datetime.now(dt.UTC)
        ending = ending_of(error)
        model.status, model.error = ending.model_status, ending.text
        self._account(ending)
        if self._told:
            await tell_after(self._means.listeners[: self._told], self._call)

    def _account(self, ending: Ending) -> None:
        call, timings, now = self._call, self._call.timings, trio.current_time()
        latency_ns = max(0, self._age_ns(now) - (call.user_execution_ns or 0))
        self._means.counts.end(
            ending.status, latency_ns, timings.scheduler_ns, timings.execution_ns
        )
        self._means.log.info(
            "call finished",
            call_id=call.model.id,
            app_id=call.model.app_id,
            fn_id=call.model.fn_id,
            type=call.model.type,
            request_id=call.request_id,
            status=ending.status,
            code=ending.code,
            error=call.model.error,
            runner=call.runner_address,
            attempts=call.attempts,
            total_ms=_ms(round((now - self._submitted_at) * 1e9)),
            lb_ms=_ms(latency_ns),
            scheduler_ms=_ms(timings.scheduler_ns),
            pull_ms=_ms(timings.image_pull_wait_ns),
            prep_ms=_ms(timings.ctr_prep_ns),
            create_ms=_ms(timings.ctr_create_ns),
            init_ms=_ms(timings.init_start_ns),
            execution_ms=_ms(timings.execution_ns),
        )

    def _age_ns(self, now: float) -> int:
        """Nanoseconds since the call was started, or made if it never was."""
        if self._started_at is None:
            return time.monotonic_ns() - self._call.created_ns
        return round((now - self._started_at) * 1e9)


def _ms(duration_ns: int) -> float:
    """With whole microseconds. (`round` to places takes several times as long.)"""
    return (duration_ns + 500) // 1000 / 1000 if duration_ns else 0.0
