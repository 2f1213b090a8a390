"""LB agent: admits calls, has them placed, and accounts for their end; runs detached calls."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple

import attrs
import structlog
import trio

from .._arguments import all_callable, all_of, check
from .._concurrency.drain import DrainBudget
from .._concurrency.gate import Gate
from .._concurrency.nurseries import is_cancellation, open_background
from ..abc import Body, CallAgent, CallListener, CallOverrider, Placer, RunnerPool
from ..bodies import BodyBudget, keep_whole
from ..calls import (
    LISTENER_SECONDS,
    AckWriter,
    CallListeners,
    CallOption,
    PendingCall,
    build_call,
    check_overrider,
)
from ..config import LBConfig
from ..errors import (
    HostlerError,
    MissingEOF,
    ProtocolError,
    RunnerFailed,
    RunnerFault,
    ServerBusy,
    ServiceReservationFailure,
    code_of,
    is_internal,
)
from ..metrics import CallStatus, LBMetrics, default_metrics
from ..protocol import EngagementFailed, NotSent
from .drain import DrainReport, report_of

log = structlog.get_logger(__name__)

RUNNER_FAILURES = (EngagementFailed, NotSent, RunnerFault, MissingEOF, ProtocolError)
"""Errors of an attempt that tell of the runner, not of the call."""


class LBAgent(CallAgent):
    """Made by `hostler.lb.open_lb_agent`, which owns ``detached``, the nursery of acknowledged
    detached calls."""

    def __init__(
        self,
        pool: RunnerPool,
        placer: Placer,
        *,
        detached: trio.Nursery,
        config: LBConfig,
        call_overrider: CallOverrider | None,
        call_options: Iterable[CallOption],
        listeners: Iterable[CallListener],
        metrics: LBMetrics,
        bodies: BodyBudget,
    ) -> None:
        self._placer = placer
        self._detached = detached
        self._config = config
        self._overrider = call_overrider
        self._options = tuple(call_options)
        self._counts = Counts(metrics)
        self._gate = Gate()
        self._detached_calls: set[PendingCall] = set()
        self._drain_from: LBStatistics | None = None
        self._drain_began = math.inf
        self._drain_until = math.inf
        self.drain_report: DrainReport | None = None
        """What the drain has cost, once the agent has drained."""
        self._pool = pool
        self._bodies = bodies
        self._listeners = CallListeners(listeners)
        self._log = log.bind()
        """Bound once: a module's own logger looks its methods up for each line."""

    def __repr__(self) -> str:
        state = "closed" if self._gate.closed else "open"
        return f"<LBAgent {state} {self.statistics()}>"

    def statistics(self) -> LBStatistics:
        """The present counts. Synchronous."""
        return self._counts.snapshot()

    def calls(self) -> list[PendingCall]:
        under_way = (*self._gate.purposes, *self._detached_calls)
        return [call for call in under_way if isinstance(call, PendingCall)]

    def get_call(self, *options: CallOption) -> PendingCall:
        call = build_call((*options, *self._options), self._overrider)
        if call.logger is not None or call.docker_auth is not None:
            option = "with_logger" if call.logger is not None else "with_docker_auth"
            raise HostlerError(f"{option}: only for an agent that runs calls itself")
        return call

    async def submit(self, call: PendingCall) -> None:
        if call.model.type == "detached":
            await self._submit_detached(call)
            return
        scope = call.scope
        if scope is None or scope in self._gate:  # the gate counts scopes: each call needs its own
            with trio.CancelScope() as call.scope:
                await self.submit(call)
                return
            # The agent closes and the grace is over.
            raise call.cancelled_error()
        await self._admit(call, scope)
        run = CallRun(self, call)
        try:
            await run.begin()
            if call.deadline == math.inf:  # the default, which needs no scope
                await self._placer.place_call(self._pool, call)
            else:
                await run.place_in_time()
        except BaseException as error:
            await run.end(error)
            if isinstance(error, RUNNER_FAILURES):
                raise RunnerFailed from error
            raise
        else:
            await run.end(None)
        finally:
            self._gate.leave(scope)

    async def _admit(self, call: PendingCall, scope: trio.CancelScope) -> None:
        """Count the call, and let ``scope`` in. It has to leave the gate."""
        for _, listener in self._listeners.of_submit:
            listener.note_submit(call)
        self._counts.submitted()
        if self._gate.closed:
            self._counts.refused()
            busy = ServerBusy()
            self._listeners.note_end(call, busy, told=0)
            await trio.lowlevel.checkpoint()
            raise busy
        # (As `Gate.enter`, whose generator costs each call a microsecond more.)
        self._gate.admit(scope, None if call.model.type == "detached" else call)

    async def _submit_detached(self, call: PendingCall) -> None:
        with trio.CancelScope() as scope:
            await self._admit(call, scope)
            try:
                await self._detached.start(self._run_detached, call)
                return
            finally:
                self._gate.leave(scope)
        # The agent closes and the grace is over.
        raise call.cancelled_error()

    async def _run_detached(self, call: PendingCall, *, task_status: trio.TaskStatus[None]) -> None:
        """Until the acknowledgement this is a part of the caller's task: errors are raised there,
        and it is cancelled with it. After that no error may leave."""
        writer = call.writer = HeadAckWriter(task_status)
        self._counts.detached += 1
        self._detached_calls.add(call)
        try:
            await self._see_through_detached(call)
            writer.acknowledge()
        except Exception as error:
            if not writer.acknowledged:
                raise
            log_late_failure(call.model.id, error)
        finally:
            self._counts.detached -= 1
            self._detached_calls.discard(call)

    async def _see_through_detached(self, call: PendingCall) -> None:
        run = CallRun(self, call)
        try:
            await run.keep_body(self._config.max_detached_body)
            await run.begin()
            # One time limit for all: the placer, the runner (as gRPC deadline) and the function.
            until = trio.current_time() + self._detached_seconds(call)
            call.deadline = min(call.deadline, until)
            await run.place_in_time()
        except BaseException as error:
            await run.end(error)
            if isinstance(error, RUNNER_FAILURES):
                raise RunnerFailed from error
            raise
        else:
            await run.end(None)

    def _detached_seconds(self, call: PendingCall) -> float:
        placing = self._placer.config.detached_placer_timeout
        return placing + call.model.timeout + self._config.execution_headroom / 1000

    def close_admission(self) -> None:
        """Refuse with `ServerBusy` new calls and calls that no runner has taken yet. Synchronous.
        Idempotent."""
        self._gate.close()
        self._placer.close()

    def begin_drain(self, grace: float | DrainBudget) -> None:
        """Refuse calls that wait for room on a runner; no call waits for room from now on. All
        others may run, including calls that wait for a busy container. The end of the agent's block
        closes admission, and keeps within ``grace`` seconds from now. Only the first call counts.
        Synchronous.

        A front end that stops calls this, lets the requests go on that it has accepted, and leaves
        the block after them.
        """
        if self._drain_from is None:
            self._drain_from, self._drain_began = self.statistics(), trio.current_time()
            self._drain_until = DrainBudget.of(grace).deadline()
            log.info("lb agent drains", **self._left())
            self._placer.stop_waiting()

    async def drain(self, grace: float | DrainBudget) -> None:
        """Close admission and give the calls under way ``grace`` seconds to end, less if an earlier
        `begin_drain` says so, then cancel them. Waits for their end; the listeners of cancelled
        calls have `LISTENER_SECONDS` (10) more.

        Detached calls end with their nursery, whose deadline this sets: nothing may be awaited in
        its block afterwards.
        """
        self.begin_drain(grace)
        self.close_admission()
        deadline = min(self._drain_until, DrainBudget.of(grace).deadline())
        with trio.move_on_at(deadline) as scope:
            await self._gate.wait_empty()
        self._detached.cancel_scope.deadline = deadline
        if scope.cancelled_caught and any(self._left().values()):
            log.warning("lb agent cancels what is left", **self._left())
            self._gate.cancel_all()
            # Shielded from the deadline above, and bounded: a cancelled call only tells its
            # listeners.
            with trio.CancelScope(shield=True, deadline=deadline + LISTENER_SECONDS):
                await self._gate.wait_empty()

    def _left(self) -> dict[str, int]:
        statistics = self.statistics()
        return {"running": statistics.running, "detached": statistics.detached}

    def note_end(self) -> None:
        """Everything is over: make ``drain_report``, and log it. Does nothing if no drain has
        begun. Synchronous."""
        if self._drain_from is None:
            return
        self.drain_report = report_of(
            self._drain_from,
            self.statistics(),
            seconds=trio.current_time() - self._drain_began,
            tasks=self._gate.inside + len(self._detached.child_tasks),
        )
        told = log.info if self.drain_report.clean else log.warning
        told("lb agent has drained", **attrs.asdict(self.drain_report))

    def abort(self) -> None:
        """Cancel all calls now, and refuse others. Does not wait for their end. Synchronous."""
        self.close_admission()
        self._gate.cancel_all()
        self._detached.cancel_scope.cancel()


@attrs.frozen(kw_only=True)
class LBStatistics:
    """A snapshot. ``queued``, ``running`` and ``detached`` (a part of the two) are calls under way.
    The others count since the agent was opened; ``calls`` are the submitted ones."""

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
    """The live counts behind `LBStatistics`, which also feed the metrics."""

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
        """A call was not admitted; it has no latency."""
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


PLACER_SECONDS = 0.05
"""Seconds for the placer to refuse a call itself after the time of its client is over."""


class CallRun:
    """Runs one call once: `begin`, its placement, and `end` in any case."""

    def __init__(self, agent: LBAgent, call: PendingCall) -> None:
        self._agent = agent
        self._call = call
        self._kept: Body | None = None
        self._submitted_at = trio.current_time()
        self._started_at: float | None = None
        self._running = False
        self._told = 0
        """How many listeners know that it has begun."""

    async def keep_body(self, limit: float) -> None:
        """Keep the whole body, up to ``limit`` bytes, until the end."""
        self._agent._counts.enqueue()
        try:
            self._kept = await keep_whole(self._call.body, self._agent._bodies, limit)
            self._call.body = self._kept
        finally:
            self._agent._counts.dequeue()

    async def begin(self) -> None:
        """The call runs from now on, once the listeners know of it."""
        call, agent = self._call, self._agent
        self._started_at = self._submitted_at if self._kept is None else trio.current_time()
        call.model.status = "running"
        call.model.started_at = dt.datetime.now(dt.UTC)
        if agent._listeners.of_begin:
            await self._tell_before()
        self._told = len(agent._listeners.all)
        agent._counts.start()
        self._running = True

    async def _tell_before(self) -> None:
        self._agent._counts.enqueue()
        try:
            for place, listener in self._agent._listeners.of_begin:
                self._told = place - 1
                await listener.before_call(self._call)
        finally:
            self._agent._counts.dequeue()

    async def place_in_time(self) -> None:
        """Have the call placed before its deadline."""
        with trio.move_on_at(self._call.deadline + PLACER_SECONDS) as scope:
            await self._agent._placer.place_call(self._agent._pool, self._call)
        if scope.cancelled_caught:  # perhaps the process was suspended, and no runner had the call
            raise ServiceReservationFailure if self._call.runner_address else ServerBusy

    async def end(self, error: BaseException | None) -> None:
        """The call has ended with ``error``, or well: account for it, and tell the listeners."""
        call, listeners = self._call, self._agent._listeners
        model = call.model
        if self._running:
            self._agent._counts.stop()
        if error is not None:
            call.never_placed = is_cancellation(error) and not call.runner_address
        model.completed_at = dt.datetime.now(dt.UTC)
        ending = ending_of(error)
        model.status, model.error = ending.model_status, ending.text
        try:
            self._account(ending)
            listeners.note_end(call, error, told=self._told)
            if listeners.of_after:
                await listeners.tell_after(call, told=self._told)
        finally:
            if self._kept is not None:
                await self._kept.aclose()

    def _account(self, ending: Ending) -> None:
        call, timings, now = self._call, self._call.timings, trio.current_time()
        latency_ns = max(0, self._age_ns(now) - (call.user_execution_ns or 0))
        self._agent._counts.end(
            ending.status, latency_ns, timings.scheduler_ns, timings.execution_ns
        )
        self._agent._log.info(
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
        """Nanoseconds since the call was started, or since it was made if it never was."""
        if self._started_at is None:
            return time.monotonic_ns() - self._call.created_ns
        return round((now - self._started_at) * 1e9)


def _ms(duration_ns: int) -> float:
    """Milliseconds with whole microseconds. (`round` to places takes several times as long.)"""
    return (duration_ns + 500) // 1000 / 1000 if duration_ns else 0.0


CANCELLED_CODE = 444


class Ending(NamedTuple):
    """``status`` is the label of counters and latencies, ``model_status`` the final
    ``Call.status``, ``text`` the error in the model and the log, ``code`` the HTTP status of this
    outcome for a client."""

    status: CallStatus
    model_status: Literal["success", "timeout", "error"]
    text: str
    code: int


GOOD = Ending("completed", "success", "", 200)


def ending_of(error: BaseException | None) -> Ending:
    """The ending of a call that ended with ``error``."""
    if error is None:
        return GOOD
    if is_cancellation(error):
        return Ending("canceled", "error", "cancelled", CANCELLED_CODE)
    code, text = code_of(error), str(error) or type(error).__name__
    if isinstance(error, ServiceReservationFailure):
        return Ending("timeouts", "timeout", text, code or 500)
    busy = code == ServerBusy.default_code
    return Ending("server_busy" if busy else "errors", "error", text, code or 500)


ACCEPTED = 202


class HeadAckWriter(AckWriter):
    """Takes the response head of a detached call as its acknowledgement, and nothing else."""

    async def start(self, status: int, headers: object) -> None:
        if status != ACCEPTED:
            log.warning("detached call was answered, not acknowledged", status=status)
        self.acknowledge()


def log_late_failure(call_id: str, error: Exception) -> None:
    """Log an internal failure after the client has its 202, because no client learns of it."""
    if is_internal(error):
        log.error("detached call failed", call_id=call_id, exc_info=error)


@asynccontextmanager
async def open_lb_agent(
    pool: RunnerPool,
    placer: Placer,
    *,
    config: LBConfig | None = None,
    call_overrider: CallOverrider | None = None,
    call_options: Iterable[CallOption] = (),
    listeners: Iterable[CallListener] = (),
    metrics: LBMetrics | None = None,
    bodies: BodyBudget | None = None,
    grace: float | DrainBudget | None = None,
) -> AsyncIterator[LBAgent]:
    """An agent whose calls run on the runners of ``pool``, chosen by ``placer``.

    ``call_options`` are applied to each call after the caller's, then the ``call_overrider``.
    ``listeners`` hear of each call in order. ``metrics`` are the process's own by default; give the
    placer the same. ``bodies`` is the budget for the bodies of detached calls; give the front end
    the same. The caller opens and closes ``pool`` around this block.

    Leaving the block drains: new calls and calls that are still searching for a runner get
    `ServerBusy` at once, which also closes the placer. Running calls, including detached ones, have
    ``grace`` seconds (default: ``config.drain_grace_msecs``) to end and are then cancelled. There
    is no grace if an exception or a cancellation leaves the block. A call that the agent has to
    cancel raises `ServiceReservationFailure` in its submitter's task, since it may have run, or
    `ServerBusy` if no runner had got it. Afterwards ``agent.drain_report`` says what the drain has
    cost.

    Raises `ConfigError` for an argument of another kind, and for a ``call_overrider`` that does
    not take what it gets.
    """
    check("open_lb_agent", pool=(pool, RunnerPool), placer=(placer, Placer))
    check("open_lb_agent", optional=True, config=(config, LBConfig), metrics=(metrics, LBMetrics))
    check("open_lb_agent", optional=True, bodies=(bodies, BodyBudget))
    check_overrider(call_overrider)
    call_options = all_callable("open_lb_agent: call_options", call_options)
    listeners = all_of("open_lb_agent: listeners", listeners, CallListener)
    config = config or LBConfig()
    async with open_background() as detached:
        agent = LBAgent(
            pool,
            placer,
            detached=detached,
            config=config,
            call_overrider=call_overrider,
            call_options=call_options,
            listeners=listeners,
            metrics=metrics or default_metrics(),
            bodies=bodies or BodyBudget(),
        )
        try:
            yield agent
            await agent.drain(config.drain_grace_msecs / 1000 if grace is None else grace)
        except BaseException:
            agent.abort()
            raise
    agent.note_end()
