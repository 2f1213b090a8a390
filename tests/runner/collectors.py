"""Function logs, and a collector of them that is the test."""

from __future__ import annotations

from collections.abc import Sequence

import trio
import trio.testing
from prometheus_client import CollectorRegistry

from hostler.abc import End
from hostler.agent import OutputPiece
from hostler.metrics import AgentMetrics
from hostler.protocol import LogAck, LogChannel, LogContainer, LogMessage, LogStart
from hostler.runner import FunctionLogs


def make_logs(limit: int = 1_000_000) -> FunctionLogs:
    return FunctionLogs(limit=limit, metrics=AgentMetrics(CollectorRegistry()))


def output(
    data: bytes,
    *,
    call: str = "call",
    container: str = "ctr",
    stderr: bool = False,
    running: bool = True,
    ends: End = "",
) -> OutputPiece:
    return OutputPiece(container, "app", "fn", call, data, stderr, running=running, ends=ends)


class Collector(LogChannel):
    """A channel whose collector is the test."""

    def __init__(self, logs: FunctionLogs, nursery: trio.Nursery) -> None:
        self._send, self._receive = trio.open_memory_channel[LogMessage](10)
        self._out, self.batches = trio.open_memory_channel[Sequence[LogContainer]](0)
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        nursery.start_soon(self._run, logs)

    async def _run(self, logs: FunctionLogs) -> None:
        with self.scope:
            await logs.stream(self)
        self.ended.set()

    async def ask(self, message: LogMessage) -> Sequence[LogContainer]:
        self.say(message)
        return await self.batches.receive()

    def say(self, message: LogMessage) -> None:
        self._send.send_nowait(message)

    def half_close(self) -> None:
        self._send.close()

    async def receive(self) -> LogMessage | None:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return None

    async def send(self, batch: Sequence[LogContainer]) -> None:
        await self._out.send(batch)


def texts(batch: Sequence[LogContainer]) -> list[bytes]:
    return [
        line.data for container in batch for request in container.requests for line in request.lines
    ]


async def everything(logs: FunctionLogs) -> list[bytes]:
    """All lines that wait, taken by one collector."""
    found: list[bytes] = []
    async with trio.open_nursery() as nursery:
        collector = Collector(logs, nursery)
        collector.say(LogStart())
        while logs.statistics().queued:
            found += texts(await collector.ask(LogAck()))
        collector.say(LogAck())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return found
