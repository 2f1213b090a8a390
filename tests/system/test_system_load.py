"""A thousand calls at once, from this process through two runner processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from hostler import wire
from hostler.abc import CallRequest, ResponseWriter
from hostler.bodies import BytesBody
from hostler.config import PlacerConfig
from hostler.functions import load_functions
from hostler.lb import LBAgent, LBStatistics, open_lb_agent
from hostler.options import from_http_fn_request, with_writer
from hostler.pool import GrpcRunner, NaivePlacer, StaticPool
from hostler.protocol import Headers
from tests.functions.build import fnt_path
from tests.wire.leaks import asyncio_tasks, open_sockets, settle, trio_tasks

from .http import call
from .nodes import FNT, LIMIT, declare, open_fleet, open_runner

CALLS = 1000
ROOM = {"FN_MAX_TOTAL_MEMORY_BYTES": str(16 * 2**20 * 24)}
"""For 24 containers on each runner: most calls have to wait for one."""


class Collect(ResponseWriter):
    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    async def start(self, status: int, headers: Headers) -> None:
        self.status = status

    async def write(self, data: bytes | memoryview) -> None:
        self.body += data


@attrs.frozen
class Program:
    """What a service that embeds a load balancer has."""

    agent: LBAgent
    clients: list[wire.GrpcRunnerClient]
    functions: Path

    async def echo(self, body: bytes) -> None:
        """One call, checked."""
        app, fn = await load_functions(self.functions).find("fnt")
        writer = Collect()
        request = CallRequest(
            method="POST", url="http://lb/invoke/fnt", headers={}, body=BytesBody(body)
        )
        await self.agent.submit(
            self.agent.get_call(from_http_fn_request(app, fn, request), with_writer(writer))
        )
        assert (writer.status, writer.body == body) == (200, True)


@asynccontextmanager
async def open_program(
    loop: wire.Loop, folder: Path, addresses: list[str]
) -> AsyncIterator[Program]:
    clients = [wire.GrpcRunnerClient(address, loop=loop) for address in addresses]
    pool = StaticPool([GrpcRunner(client) for client in clients])
    try:
        async with open_lb_agent(pool, NaivePlacer(PlacerConfig(max_wait=60))) as agent:
            yield Program(agent, clients, declare(folder / "functions.yaml", FNT))
    finally:
        await pool.aclose()


def body_of(number: int) -> bytes:
    """Its own for each call; every hundredth is too big for one frame."""
    return f"call {number} ".encode() * (20_000 if number % 100 == 0 else 1 + number % 50)


async def test_a_thousand_echoes_at_once_leave_nothing(folder: Path) -> None:
    fnt_path()
    async with (
        wire.open_loop() as loop,
        open_runner(folder, env=ROOM) as north,
        open_runner(folder, env=ROOM) as south,
    ):
        before = trio_tasks(), asyncio_tasks(loop), open_sockets()
        async with open_program(loop, folder, [north.address, south.address]) as program:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for number in range(CALLS):
                        nursery.start_soon(program.echo, body_of(number))
            assert program.agent.statistics() == LBStatistics(calls=CALLS, completed=CALLS)
            for client in program.clients:
                assert (client.statistics().streams, client.statistics().waiting) == (0, 0)
        for client in program.clients:
            assert client.statistics() == wire.PoolStatistics(0, 0, 0)
        with trio.fail_after(LIMIT):
            await settle(lambda: asyncio_tasks(loop), before[1])
        assert (trio_tasks(), asyncio_tasks(loop), open_sockets()) == before
        assert north.functions()
        assert south.functions()
        await north.drain()
        await south.drain()


async def test_hundreds_of_clients_over_http(folder: Path) -> None:
    """The same over a load balancer of its own."""
    async with open_fleet(folder, runner_env=ROOM) as fleet:

        async def echo(number: int) -> None:
            reply = await call(fleet.lb, content=body_of(number))
            assert reply.status == 200, reply.body
            assert reply.body == body_of(number)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(400):
                    nursery.start_soon(echo, number)
        await fleet.drain()
