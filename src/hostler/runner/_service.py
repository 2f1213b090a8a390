"""The runner protocol over an inner agent: what a server of the wire serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import attrs
import msgspec
import structlog
import trio

from ..abc import CallAgent
from ..engagement import GRPCStatus, LogChannel, RunnerService, ServerEngagement
from ..errors import code_of
from ..frames import RunnerStatus
from ._engagement import UNKNOWN, CallRun, Terms

log = structlog.get_logger(__name__)

HealthChecker = Callable[[], Awaitable[Mapping[str, str]]]
"""Adds its map to each status as ``customStatus``. Raising marks the status as failed."""
ConfigHandler = Callable[[Mapping[str, str]], Awaitable[None]]
"""Takes what ``ConfigureRunner`` brings."""
LogStreamer = Callable[[LogChannel], Awaitable[None]]
"""Answers one ``StreamLogs`` stream."""


@attrs.frozen(kw_only=True)
class Hooks:
    """What an embedding program adds to a pure runner; ``None`` = nothing."""

    health_checker: HealthChecker | None = None
    configure: ConfigHandler | None = None
    stream_logs: LogStreamer | None = None


@attrs.frozen(kw_only=True)
class RunnerStatistics:
    """Counts of engagements: now running, ever begun, ended without a NACK."""

    active: int
    received: int
    handled: int
    detached: int
    """Detached calls now running, with or without their engagement."""


class PureRunnerService(RunnerService):
    """Counts and runs engagements; answers status, configuration and log streams."""

    def __init__(
        self, agent: CallAgent, terms: Terms, hooks: Hooks, detached: trio.Nursery
    ) -> None:
        self._agent = agent
        self._terms = terms
        self._hooks = hooks
        self._detached = detached
        self._active = self._received = self._handled = 0
        self._changed = trio.Event()

    def statistics(self) -> RunnerStatistics:
        return RunnerStatistics(
            active=self._active,
            received=self._received,
            handled=self._handled,
            detached=len(self._detached.child_tasks),
        )

    async def wait_idle(self) -> None:
        """Wait until no engagement runs. Detached calls are the nursery's to wait for."""
        while self._active:
            await self._changed.wait()

    async def engage(self, engagement: ServerEngagement) -> None:
        self._active += 1
        self._received += 1
        try:
            run = CallRun(self._agent, self._terms, engagement, self._detached)
            self._handled += await run.serve()
        finally:
            self._active -= 1
            self._changed.set()
            self._changed = trio.Event()

    async def status(self, payload: str | None) -> RunnerStatus:
        counts = RunnerStatus(
            active=self._active,
            requests_received=self._received,
            requests_handled=self._handled,
        )
        if self._hooks.health_checker is None:
            return counts
        try:
            custom = await self._hooks.health_checker()
        except Exception as error:
            log.warning("health check failed", exc_info=error)
            return msgspec.structs.replace(
                counts, failed=True, error_code=code_of(error), error_text=str(error)
            )
        return msgspec.structs.replace(counts, custom_status=custom)

    async def configure(self, config: Mapping[str, str]) -> None:
        if self._hooks.configure is None:
            log.warning("runner has no config handler", keys=sorted(config))
            return
        await self._hooks.configure(config)

    async def stream_logs(self, channel: LogChannel) -> None:
        if self._hooks.stream_logs is None:
            raise GRPCStatus(UNKNOWN, "runner not configured with logStreamer")
        await self._hooks.stream_logs(channel)
