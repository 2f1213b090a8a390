"""Opening and draining a pure runner."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

from .. import wire
from ..abc import InnerAgent
from ._engagement import Terms
from ._service import Hooks, PureRunnerService, RunnerStatistics
from ._writers import AcknowledgeDetached

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
    ssl_context: ssl.SSLContext | None = None,
    detached: bool = True,
    status_image: str = "",
    hooks: Hooks | None = None,
    grace: float = 30.0,
) -> AsyncIterator[PureRunner]:
    """Serve the runner protocol on ``bind`` (``host:port``; port 0 = any) until the block ends.

    ``agent`` runs the calls; it is opened, and closed, by the caller, around this block.
    ``loop`` is the trio-asyncio loop of the embedding program; without one, the current loop is
    used, or one is opened. ``ssl_context`` as of `hostler.wire.server_tls`; without one the
    runner talks plaintext and logs a warning. ``detached`` = whether detached calls are taken.
    ``status_image`` is an image that no caller may name.

    Leaving the block drains: new streams are refused, calls that wait for a slot are NACKed,
    and what runs, detached calls too, has ``grace`` seconds to finish before it is cancelled.
    If the block is left by an exception or a cancellation there is no grace.

    Raises `OSError` if it can't bind.
    """
    if ssl_context is None:
        log.warning("runner serves without TLS", bind=bind)
    terms = Terms(detached=detached, status_image=status_image)
    async with wire.open_loop(loop) as running_loop, trio.open_nursery() as calls:
        service = PureRunnerService(agent, terms, hooks or Hooks(), calls)
        if detached:
            agent.add_listener(AcknowledgeDetached())
        async with wire.open_server(
            service, bind, loop=running_loop, ssl_context=ssl_context
        ) as server:
            yield PureRunner(service, server.address)
            await _drain(agent, server, service, calls, grace)


async def _drain(
    agent: InnerAgent,
    server: wire.GrpcServer,
    service: PureRunnerService,
    calls: trio.Nursery,
    grace: float,
) -> None:
    log.info("runner drains", active=service.statistics().active, grace_s=grace)
    agent.close_admission()
    server.stop_accepting()
    with trio.move_on_after(grace) as scope:
        await service.wait_idle()
    if scope.cancelled_caught:
        log.warning("runner cancels what is left", **_counts(service))
    calls.cancel_scope.deadline = scope.deadline


def _counts(service: PureRunnerService) -> dict[str, int]:
    statistics = service.statistics()
    return {"active": statistics.active, "detached": statistics.detached}
