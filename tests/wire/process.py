"""One end of the wire in a process of its own, which can tell how much memory it uses.

``python -m tests.wire.process SIDE ADDRESS``: ``server`` listens at ADDRESS and prints the bound
one; ``client`` makes one call to it and prints its growth in KiB as its last line.
"""

from __future__ import annotations

import sys
from pathlib import Path

import structlog
import trio

from hostler import wire
from hostler.protocol import Data, ResultStart, ServerEngagement

from .services import EMPTY_BODY, SUCCESS, TRY, Service

TOTAL = 200_000_000
CHUNK = b"x" * 50_000
PAUSE_EVERY = 20_000_000
"""The slow reader lets everything stand still each time it has read so much."""


def rss_kib(pid: int | str = "self") -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


class Reader:
    """Counts bytes; stands still now and then. Remembers how much memory was used at most."""

    def __init__(self) -> None:
        self.count = 0
        self.peak = 0
        self._next = PAUSE_EVERY

    async def take(self, data: bytes) -> None:
        self.count += len(data)
        if self.count >= self._next:
            self._next += PAUSE_EVERY
            await trio.sleep(0.02)  # the slowness under test, nothing is waited for
            self.peak = max(self.peak, rss_kib())


async def both_ways(engagement: ServerEngagement) -> None:
    """Reads TOTAL slowly, then writes TOTAL; tells its growth in the details."""
    await engagement.receive()
    before = rss_kib()
    reader = Reader()
    while isinstance(frame := await engagement.receive(), Data) and not frame.eof:
        await reader.take(frame.data)
    await engagement.send(ResultStart(200, [("X-Read", str(reader.count))]))
    for _ in range(TOTAL // len(CHUNK)):
        await engagement.send(Data(CHUNK))
    growth = max(reader.peak, rss_kib()) - before
    await engagement.send(type(SUCCESS)(success=True, details=str(growth)))


async def server(bind: str) -> None:
    async with (
        wire.open_loop() as loop,
        wire.open_server(Service(both_ways), bind, loop=loop) as running,
    ):
        print(running.address, flush=True)  # noqa: T201  (the parent reads it)
        await trio.sleep_forever()


async def client(address: str) -> None:
    async with wire.open_loop() as loop:
        runner = wire.GrpcRunnerClient(address, wire.ConnectOptions(connect_timeout=60), loop=loop)
        before = rss_kib()
        reader = Reader()
        async with runner.engage(TRY) as engagement:
            for _ in range(TOTAL // len(CHUNK)):
                await engagement.send(Data(CHUNK))
            await engagement.send(EMPTY_BODY)
            reader.peak = rss_kib()
            start = await engagement.receive()
            assert isinstance(start, ResultStart)
            assert start.headers == (("X-Read", str(TOTAL)),)
            while isinstance(frame := await engagement.receive(), Data):
                await reader.take(frame.data)
            assert reader.count == TOTAL
            print(frame.details, reader.peak - before)  # type: ignore[union-attr]  # noqa: T201
        await runner.aclose()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run({"server": server, "client": client}[sys.argv[1]], sys.argv[2])
