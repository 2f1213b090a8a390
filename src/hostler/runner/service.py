"""Runner service: the protocol's RPCs over an agent, detached calls, drain."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Mapping,
)
from contextlib import asynccontextmanager
from typing import Any

import attrs
import msgspec
import structlog
import trio

from .. import wire
from .._arguments import all_of, check
from .._concurrency.drain import DrainBudget
from .._concurrency.nurseries import open_background
from .._fast import FastService
from ..abc import RunnerAgent
from ..bodies import BodyBudget
from ..config import LBConfig
from ..errors import ProtocolError
from ..metrics import AgentMetrics, default_agent_metrics
from ..protocol import (
    Finished,
    GRPCStatus,
    LoadHint,
    LogChannel,
    RunnerStatus,
    ServerEngagement,
    TryCall,
)
from .engagement import (
    UNKNOWN,
    AcknowledgeDetached,
    EngagementRun,
    RunnerState,
)
from .load_feed import LoadFeed
from .logs import FunctionLogs
from .status import Hooks, StatusChecks, StatusTracker

log = structlog.get_logger(__name__)

MAX_DETACHED_BODY = LBConfig().max_detached_body
"""Bytes of the body of a detached call: what a load balancer takes by default."""

LOG_SECONDS = 5.0
"""Seconds that log collectors get at most in a drain to take the rest, once all calls are over."""


@attrs.frozen(kw_only=True)
class RunnerStatistics:
    """Counts of engagements: now running, ever begun, ended without a NACK."""

    active: int
    received: int
    handled: int
    detached: int
    """Detached calls now running, with or without their engagement."""


@attrs.frozen(kw_only=True)
class RunnerOptions:
    """The options of a pure runner."""

    detached: bool = True
    """Whether detached calls are taken. Their whole bodies are here before they are
    acknowledged."""
    bodies: BodyBudget = attrs.Factory(BodyBudget)
    """The budget for the bodies of all detached calls."""
    max_detached_body: float = MAX_DETACHED_BODY
    """Bytes of the body of one detached call."""
    checks: StatusChecks = attrs.Factory(StatusChecks)
    """What a status consists of."""
    hooks: Hooks = attrs.Factory(Hooks)
    """What the embedding program adds."""
    logs: FunctionLogs | None = None
    """The built-in log streamer. The agent has to be opened with its ``collect`` as ``output``."""
    metrics: AgentMetrics = attrs.Factory(default_agent_metrics)
    """The process's own by default."""


class PureRunnerService(FastService):
    """Counts and runs engagements; answers status, configuration and log streams.

    Made by `open_runner_service`, which owns ``tasks``: detached calls and status checks.
    """

    def __init__(self, agent: RunnerAgent, options: RunnerOptions, tasks: trio.Nursery) -> None:
        checks, hooks = options.checks, options.hooks
        self._agent = agent
        self._hooks = hooks
        self._logs = options.logs
        self._state = RunnerState(
            agent, tasks, takes_detached=options.detached, status_image=checks.image
        )
        self._tracker = StatusTracker(agent, tasks, checks, hooks.health_checker, options.metrics)
        self._feed = LoadFeed(agent)

    def __repr__(self) -> str:
        return f"<PureRunnerService {self.statistics()}>"

    def statistics(self) -> RunnerStatistics:
        """Counts of engagements, over all LBs. Synchronous."""
        state = self._state
        return RunnerStatistics(
            active=state.active,
            received=state.received,
            handled=state.handled,
            detached=state.detached,
        )

    async def drain(self, grace: float | DrainBudget) -> None:
        """NACK queued calls, and wait up to ``grace`` seconds for running ones, including detached
        calls. Then log streams take the rest and end, within what is left of the grace.

        New engagements have to be refused before. The opener of the service cancels what is left by
        leaving its block. Cancellable.
        """
        state = self._state
        deadline = DrainBudget.of(grace).deadline()
        log.info("runner drains", grace_s=deadline - trio.current_time(), **self._left())
        self._agent.close_admission()
        with trio.move_on_at(deadline) as scope:
            while state.active or state.detached:
                await state.changed.wait()
        if scope.cancelled_caught:
            log.warning("runner cancels what is left", **self._left())
        elif self._logs is not None:
            with trio.move_on_at(min(deadline, trio.current_time() + LOG_SECONDS)):
                await self._logs.finish()

    def _left(self) -> dict[str, int]:
        return {"active": self._state.active, "detached": self._state.detached}

    # --- the RPCs ---

    def engage(self, engagement: ServerEngagement) -> Coroutine[Any, Any, None]:
        """Runs the call on the agent, and sends its response and outcome; see `EngagementRun`."""
        return EngagementRun(self._state, engagement).serve()

    def begin_engage(
        self, engagement: ServerEngagement, first: TryCall
    ) -> Finished | Callable[[], Awaitable[None]]:
        run = EngagementRun(self._state, engagement)
        answer = run.refuse(first)
        if answer is None:
            return run.serve
        self._state.received += 1
        return answer

    async def status(self, payload: str | None) -> RunnerStatus:
        result = await self._tracker.status(payload)
        state, kdumps = self._state, self._hooks.kdumps_on_disk
        return msgspec.structs.replace(
            result,
            active=state.active,
            requests_received=state.received,
            requests_handled=state.handled,
            reservations=self._agent.reservation_seconds > 0,
            kdumps_on_disk=0 if kdumps is None else kdumps(),
        )

    def watch_load(self) -> AsyncGenerator[LoadHint, None]:
        return self._feed.watch()

    async def configure(self, config: Mapping[str, str]) -> None:
        """Awaits the hook ``configure``, whose error fails the RPC. Logs a warning if there is no
        hook."""
        if self._hooks.configure is None:
            log.warning("runner has no config handler", keys=sorted(config))
            return
        await self._hooks.configure(config)

    async def stream_logs(self, channel: LogChannel) -> None:
        """Serves the log stream with the hook ``stream_logs``, or else with the built-in streamer.
        Raises `GRPCStatus` (UNKNOWN) if there is neither, and for a collector that breaks the
        protocol."""
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
    agent: RunnerAgent, options: RunnerOptions | None = None
) -> AsyncIterator[PureRunnerService]:
    """The runner protocol over ``agent``, without a wire: for `open_pure_runner`, and for programs
    and tests with a transport of their own. Parameters as there.

    Leaving the block cancels detached calls and status checks; `PureRunnerService.drain` waits for
    them first.
    """
    options = RunnerOptions() if options is None else options
    async with open_background() as tasks:
        if options.detached:
            agent.add_listener(AcknowledgeDetached(options.bodies, options.max_detached_body))
        yield PureRunnerService(agent, options, tasks)
        tasks.cancel_scope.cancel()


DEFAULT_KEEPALIVE = wire.Keepalive(interval=60.0)
"""A server may ping more often than a client, because pings of servers are not counted."""


class PureRunner:
    """A running pure runner. ``address`` is the ``host:port`` that it is bound to."""

    def __init__(self, service: PureRunnerService, address: str) -> None:
        self._service = service
        self.address = address

    def statistics(self) -> RunnerStatistics:
        """Counts of engagements, over all LBs. Synchronous."""
        return self._service.statistics()

    def __repr__(self) -> str:
        return f"<PureRunner {self.address} {self.statistics()}>"


@asynccontextmanager
async def open_pure_runner(
    agent: RunnerAgent,
    bind: str,
    options: RunnerOptions | None = None,
    *,
    loop: wire.Loop | None = None,
    ssl_context: wire.TLS | None = None,
    client_names: Collection[str] = (),
    keepalive: wire.Keepalive = DEFAULT_KEEPALIVE,
    multiplex_calls: int = wire.SHARED_CALLS,
    grace: float | DrainBudget = 30.0,
) -> AsyncIterator[PureRunner]:
    """Serve the runner protocol on ``bind`` (``host:port``; port 0 = any) until the block ends.

    ``agent`` runs the calls; the caller opens and closes it around this block. ``loop`` is the
    trio-asyncio loop of the embedding program; without one, the current loop is used, or one is
    opened. ``ssl_context`` is as of `hostler.wire.server_tls`, or files to follow; without one the
    runner talks plaintext and logs a warning. With ``client_names``, an LB's certificate must have
    one of them (`hostler.wire.certificate_names`). ``keepalive`` says when a silent connection is
    checked, and given up. ``multiplex_calls`` is how many calls an LB may have at once on one
    stream (0 = one each).

    Leaving the block drains: new streams are refused, calls that wait for a slot are NACKed, and
    running calls, including detached ones, have ``grace`` seconds to finish before they are
    cancelled. From what is left then, log collectors have some seconds to take the last lines.
    There is no grace if an exception or a cancellation leaves the block. The standard gRPC health
    service of the same server says NOT_SERVING from the begin of the drain.

    Raises `OSError` if it can't bind, `ValueError` for ``client_names`` without TLS, `ConfigError`
    for an argument of another kind.
    """
    check("open_pure_runner", agent=(agent, RunnerAgent), bind=(bind, str))
    check("open_pure_runner", optional=True, options=(options, RunnerOptions))
    client_names = all_of("open_pure_runner: client_names", client_names, str)
    if ssl_context is None:
        log.warning("runner serves without TLS", bind=bind)
    async with (
        wire.open_loop(loop) as running_loop,
        open_runner_service(agent, options) as service,
        wire.open_server(
            service,
            bind,
            wire.ServerOptions(
                ssl_context=ssl_context,
                client_names=client_names,
                keepalive=keepalive,
                shared_calls=multiplex_calls,
            ),
            loop=running_loop,
        ) as server,
    ):
        yield PureRunner(service, server.address)
        server.stop_accepting()
        await service.drain(grace)
