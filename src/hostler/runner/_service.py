"""The runner protocol over an inner agent: what a server of the wire serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import attrs
import structlog
import trio

from .._concurrency.drain import Grace
from .._concurrency.nurseries import open_background
from .._concurrency.signal import Change
from ..abc import InnerAgent
from ..bodies import BodyBudget
from ..config import LBConfig
from ..errors import ProtocolError
from ..metrics import AgentMetrics, default_agent_metrics
from ..protocol import (
    Finished,
    GRPCStatus,
    LoadHint,
    LogChannel,
    RunnerService,
    RunnerStatus,
    ServerEngagement,
    TryCall,
)
from ._detached import DetachedCalls
from ._engagement import UNKNOWN, CallRun, Terms
from ._hooks import Hooks, StatusChecks
from ._load_feed import LoadFeed
from ._logs import FunctionLogs
from ._status import StatusTracker
from ._writers import AcknowledgeDetached

log = structlog.get_logger(__name__)

MAX_DETACHED_BODY = LBConfig().max_detached_body
"""Bytes of the body of a detached call: what a load balancer takes by default."""
LOG_SECONDS = 5.0
"""Seconds that log collectors get in a drain at most to take what is left, once all calls are
over."""


@attrs.frozen(kw_only=True)
class RunnerStatistics:
    """Counts of engagements: now running, ever begun, ended without a NACK."""

    active: int
    received: int
    handled: int
    detached: int
    """Detached calls now running, with or without their engagement."""


class PureRunnerService(RunnerService):
    """Counts and runs engagements; answers status, configuration and log streams.

    Made by `open_runner_service`, which owns ``tasks``: detached calls and status checks.
    """

    def __init__(
        self,
        agent: InnerAgent,
        terms: Terms,
        hooks: Hooks,
        tasks: trio.Nursery,
        *,
        logs: FunctionLogs | None = None,
        metrics: AgentMetrics | None = None,
    ) -> None:
        self._agent = agent
        self._terms = terms
        self._hooks = hooks
        self._logs = logs
        self._changed = Change()
        self._detached = DetachedCalls(tasks, self._changed.note)
        self._tracker = StatusTracker(
            agent,
            terms.checks,
            hooks,
            default_agent_metrics() if metrics is None else metrics,
            tasks,
            self._counters,
        )
        self._feed = LoadFeed(agent)
        self._call_log: structlog.typing.FilteringBoundLogger = log.bind()
        self._active = self._received = self._handled = 0

    def __repr__(self) -> str:
        return f"<PureRunnerService {self.statistics()}>"

    def statistics(self) -> RunnerStatistics:
        return RunnerStatistics(
            active=self._active,
            received=self._received,
            handled=self._handled,
            detached=self._detached.count,
        )

    async def drain(
        self, grace: float | Grace, *, stop_accepting: Callable[[], None] = lambda: None
    ) -> None:
        """NACK what is queued, and wait up to ``grace`` seconds for what runs, detached calls
        too; then log streams take what is left and end, within what is left of the grace.

        ``stop_accepting`` is to refuse new engagements. What is left afterwards has to be
        cancelled, which whoever opened the service does by leaving its block. Cancellable.
        """
        deadline = Grace.of(grace).deadline()
        log.info("runner drains", grace_s=deadline - trio.current_time(), **self._left())
        self._agent.close_admission()
        stop_accepting()
        with trio.move_on_at(deadline) as scope:
            while self._active or self._detached.count:
                await self._changed.wait()
        if scope.cancelled_caught:
            log.warning("runner cancels what is left", **self._left())
        elif self._logs is not None:
            with trio.move_on_at(min(deadline, trio.current_time() + LOG_SECONDS)):
                await self._logs.finish()

    def _left(self) -> dict[str, int]:
        return {"active": self._active, "detached": self._detached.count}

    def _counters(self) -> RunnerStatus:
        return RunnerStatus(
            active=self._active,
            requests_received=self._received,
            requests_handled=self._handled,
            reservations=self._agent.reservation_seconds > 0,
        )

    # --- the RPCs ---

    async def engage(self, engagement: ServerEngagement) -> None:
        self._active += 1
        self._received += 1
        handled = True  # also one that breaks off: it was not answered with a NACK
        try:
            run = engagement.prepared
            if not isinstance(run, CallRun):
                run = self._run(engagement)
            handled = await run.serve()
        finally:
            self._active -= 1
            self._handled += handled
            self._changed.note()

    def refuse(self, engagement: ServerEngagement, first: TryCall) -> Finished | None:
        run = engagement.prepared = self._run(engagement)
        answer = run.refuse(first)
        if answer is not None:
            self._received += 1
        return answer

    def _run(self, engagement: ServerEngagement) -> CallRun:
        return CallRun(self._agent, self._terms, engagement, self._detached, self._call_log)

    async def status(self, payload: str | None) -> RunnerStatus:
        return await self._tracker.status(payload)

    async def watch_load(self, send: Callable[[LoadHint], Awaitable[None]]) -> None:
        await self._feed.serve(send)

    async def configure(self, config: Mapping[str, str]) -> None:
        if self._hooks.configure is None:
            log.warning("runner has no config handler", keys=sorted(config))
            return
        await self._hooks.configure(config)

    async def stream_logs(self, channel: LogChannel) -> None:
        streamer = self._hooks.stream_logs
        if streamer is None and self._logs is not None:
            streamer = self._logs.stream
        if streamer is None:
            raise GRPCStatus(UNKNOWN, "runner not configured with logStreamer")
        try:
            await streamer(channel)
        except ProtocolError as broken:
            raise GRPCStatus(UNKNOWN, f"Protocol failure: {broken}") from broken


@asynccontextmanager
async def open_runner_service(
    agent: InnerAgent,
    *,
    detached: bool = True,
    checks: StatusChecks | None = None,
    hooks: Hooks | None = None,
    logs: FunctionLogs | None = None,
    metrics: AgentMetrics | None = None,
    bodies: BodyBudget | None = None,
    max_detached_body: float = MAX_DETACHED_BODY,
) -> AsyncIterator[PureRunnerService]:
    """The runner protocol over ``agent``, without a wire: for `open_pure_runner`, and for programs
    and tests that bring a transport of their own. Parameters as there.

    Leaving the block cancels detached calls and status checks; `PureRunnerService.drain` waits
    for them first.
    """
    async with open_background() as tasks:
        terms = Terms(detached=detached, checks=checks or StatusChecks())
        if detached:
            agent.add_listener(AcknowledgeDetached(bodies, max_detached_body))
        yield PureRunnerService(agent, terms, hooks or Hooks(), tasks, logs=logs, metrics=metrics)
        tasks.cancel_scope.cancel()
