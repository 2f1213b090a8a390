"""Opening and draining a pure runner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import structlog

from .. import wire
from .._concurrency.drain import Grace
from ..abc import InnerAgent
from ..bodies import BodyBudget
from ..metrics import AgentMetrics
from ._hooks import Hooks, StatusChecks
from ._logs import FunctionLogs
from ._service import MAX_DETACHED_BODY, PureRunnerService, RunnerStatistics, open_runner_service

DEFAULT_KEEPALIVE = wire.Keepalive(interval=60.0)
"""A server may ping more often than a client: nobody counts it."""

log = structlog.get_logger(__name__)


class PureRunner:
    """A running pure runner. ``address`` is the ``host:port`` that it is bound to."""

    def __init__(self, service: PureRunnerService, address: str) -> None:
        self._service = service
        self.address = address

    def statistics(self) -> RunnerStatistics:
        return self._service.statistics()

    def __repr__(self) -> str:
        return f"<PureRunner {self.address} {self.statistics()}>"


@asynccontextmanager
async def open_pure_runner(
    agent: InnerAgent,
    bind: str,
    *,
    loop: wire.Loop | None = None,
    ssl_context: wire.TLS | None = None,
    client_names: Collection[str] = (),
    detached: bool = True,
    checks: StatusChecks | None = None,
    hooks: Hooks | None = None,
    logs: FunctionLogs | None = None,
    metrics: AgentMetrics | None = None,
    bodies: BodyBudget | None = None,
    max_detached_body: float = MAX_DETACHED_BODY,
    keepalive: wire.Keepalive = DEFAULT_KEEPALIVE,
    multiplex_calls: int = wire.SHARED_CALLS,
    grace: float | Grace = 30.0,
) -> AsyncIterator[PureRunner]:
    """Serve the runner protocol on ``bind`` (``host:port``; port 0 = any) until the block ends.

    ``agent`` runs the calls; it is opened, and closed, by the caller, around this block.
    ``loop`` is the trio-asyncio loop of the embedding program; without one, the current loop is
    used, or one is opened. ``ssl_context`` as of `hostler.wire.server_tls`, or files to follow;
    without one the runner talks plaintext and logs a warning. With ``client_names``, an LB's
    certificate must have one of them (`hostler.wire.certificate_names`). ``detached`` = whether
    detached calls are taken. Their bodies are here, whole, before they are acknowledged:
    ``bodies`` is what all of them may take, ``max_detached_body`` the bytes that one may have.
    ``keepalive`` says when a silent connection is checked, and given up.
    ``multiplex_calls`` is how many calls an LB may have at once on one stream (0 = one each).
    ``checks`` are what a status consists of. ``logs`` is the built-in log streamer; the agent has
    to be opened with its ``collect`` as ``output``. ``metrics`` are the process's own by default.

    Leaving the block drains: new streams are refused, calls that wait for a slot are NACKed,
    and what runs, detached calls too, has ``grace`` seconds to finish before it is cancelled. Of
    what is left then, log collectors have some seconds to take the last lines. If the block is
    left by an exception or a cancellation there is no grace. The standard gRPC health service of
    the same server says NOT_SERVING from the begin of the drain.

    Raises `OSError` if it can't bind, `ValueError` for ``client_names`` without TLS.
    """
    if ssl_context is None:
        log.warning("runner serves without TLS", bind=bind)
    async with (
        wire.open_loop(loop) as running_loop,
        open_runner_service(
            agent,
            detached=detached,
            checks=checks,
            hooks=hooks,
            logs=logs,
            metrics=metrics,
            bodies=bodies,
            max_detached_body=max_detached_body,
        ) as service,
        wire.open_server(
            service,
            bind,
            loop=running_loop,
            ssl_context=ssl_context,
            client_names=client_names,
            keepalive=keepalive,
            shared_calls=multiplex_calls,
        ) as server,
    ):
        yield PureRunner(service, server.address)
        await service.drain(grace, stop_accepting=server.stop_accepting)
