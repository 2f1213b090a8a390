"""Flow control from end to end, and memory that does not depend on the size of a body."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from hostler.protocol import Data, ResultStart, ServerEngagement
from hostler.wire.connection import STREAM_WINDOW

from .services import EMPTY_BODY, SUCCESS, TRY, Service, body_of, call, collect, open_pair

ROOT = Path(__file__).resolve().parents[2]
MAX_GROWTH_KIB = 16 * 1024
CHUNK = b"x" * 50_000
BUFFERED = STREAM_WINDOW + len(CHUNK) + 256 * 1024
"""What may lie between two ends: the window, the send under way, the transport's own buffer."""

pytestmark = pytest.mark.usefixtures("carrier")


def _start(side: str, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.wire.process", side, address],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
async def test_memory_of_two_processes_while_200_mb_pass_each_way() -> None:
    with trio.fail_after(60), _start("server", "127.0.0.1:0") as server:
        try:
            assert server.stdout is not None
            address = (await trio.to_thread.run_sync(server.stdout.readline)).strip()
            with _start("client", address) as client:
                output, _ = await trio.to_thread.run_sync(client.communicate)
            assert client.returncode == 0
        finally:
            server.kill()
    server_growth, client_growth = map(int, output.splitlines()[-1].split())
    assert server_growth < MAX_GROWTH_KIB
    assert client_growth < MAX_GROWTH_KIB


async def _count_until_stuck(send: trio.abc.SendStream) -> int:
    """Bytes that ``send`` takes until it takes no more."""
    count = 0
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def stop_when_stuck() -> None:
                await trio.testing.wait_all_tasks_blocked(0.1)
                scope.cancel()

            while True:
                await send.send_all(CHUNK)
                count += len(CHUNK)
    return count


class _Sender(trio.abc.SendStream):
    """An engagement as a stream."""

    def __init__(self, engagement: object) -> None:
        self._engagement = engagement

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._engagement.send(Data(bytes(data)))  # type: ignore[attr-defined]

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


async def test_runner_that_does_not_read_stops_the_lb() -> None:
    go = trio.Event()
    read = 0

    async def engage(engagement: ServerEngagement) -> None:
        nonlocal read
        await engagement.receive()
        await go.wait()
        while isinstance(frame := await engagement.receive(), Data) and not frame.eof:
            read += len(frame.data)
        await engagement.send(SUCCESS)

    async with open_pair(engage) as pair, pair.client.engage(TRY) as engagement:
        count = await _count_until_stuck(_Sender(engagement))
        assert 0 < count < BUFFERED
        go.set()
        await engagement.send(EMPTY_BODY)
        assert await collect(engagement) == [SUCCESS]
        assert count <= read <= count + len(CHUNK)  # the send under way was completed


async def test_lb_that_does_not_read_stops_the_runner() -> None:
    counts: list[int] = []
    stuck = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(ResultStart(200))
        counts.append(await _count_until_stuck(_Sender(engagement)))
        stuck.set()
        await engagement.send(SUCCESS)

    async with open_pair(engage) as pair, pair.client.engage(TRY) as engagement:
        await stuck.wait()
        assert 0 < counts[0] < BUFFERED
        frames = await collect(engagement)
        assert counts[0] <= len(body_of(frames)) <= counts[0] + len(CHUNK)


async def test_stopped_streams_do_not_stop_others_of_their_connection() -> None:
    """Forty full windows are more than a connection's usual window; a call still gets through."""
    service = Service()

    async def never_reads(engagement: ServerEngagement) -> None:
        await trio.sleep_forever()

    async with open_pair(service) as pair:
        await call(pair.client)
        echo, service.on_engage = service.on_engage, never_reads
        async with trio.open_nursery() as nursery:
            for _ in range(40):

                @nursery.start_soon
                async def flood() -> None:
                    async with pair.client.engage(TRY) as engagement:
                        while True:
                            await engagement.send(Data(CHUNK))

            await trio.testing.wait_all_tasks_blocked(0.1)
            service.on_engage = echo
            assert body_of(await call(pair.client, CHUNK)) == CHUNK
            assert pair.client.statistics().connections == 1
            nursery.cancel_scope.cancel()
