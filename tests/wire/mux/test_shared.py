"""Calls that share a stream: when they do, what they share, and what they don't."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from hostler import wire
from hostler.protocol import Data, EngagementFailed, ResultStart, ServerEngagement, TryCall
from hostler.wire.mux.stream import CALL_WINDOW, ENOUGH
from tests.wire.services import paths

from ..leaks import settle
from ..services import (
    EMPTY_BODY,
    SUCCESS,
    TRY,
    Gate,
    Service,
    body_of,
    call,
    open_pair,
    read_call,
)

pytestmark = pytest.mark.fast

LARGE = b"x" * 40_000


async def test_small_calls_do_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_pair() as pair:
        opened = paths(pair, monkeypatch)
        for _ in range(3):
            assert body_of(await call(pair.client, b"hi")) == b"hi"
        assert opened == ["EngageMany"]


async def test_others_have_a_stream_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_pair() as pair:
        opened = paths(pair, monkeypatch)
        assert body_of(await call(pair.client, LARGE)) == LARGE
        async with pair.client.engage(TryCall("x" * 40_000), first=EMPTY_BODY) as engagement:
            await engagement.receive()
        async with pair.client.engage(TRY) as engagement:  # its body is still to come
            await engagement.send(EMPTY_BODY)
            await engagement.receive()
        async with pair.client.engage(TRY, first=Data(b"a")) as engagement:
            await engagement.send(EMPTY_BODY)
            await engagement.receive()
        assert opened == ["Engage"] * 4


@pytest.mark.parametrize("end", ["runner", "lb"])
async def test_none_do_where_an_end_does_not_know_of_it(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = wire.ServerOptions(shared_calls=0) if end == "runner" else None
    client: dict[str, Any] = {"share_limit": 0} if end == "lb" else {}
    async with open_pair(server_options=server, **client) as pair:
        opened = paths(pair, monkeypatch)
        assert body_of(await call(pair.client, b"hi")) == b"hi"
        assert opened == ["Engage"]


async def test_a_runner_without_it_has_no_such_method() -> None:
    async with open_pair(server_options=wire.ServerOptions(shared_calls=0)) as pair:
        with pytest.raises(EngagementFailed, match="unknown method") as info:
            await pair.client._unary("EngageMany", b"")
        assert info.value.status == 12


async def test_those_over_the_limit_of_the_runner_have_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    service = Service(gate)
    async with open_pair(service, server_options=wire.ServerOptions(shared_calls=3)) as pair:
        opened = paths(pair, monkeypatch)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call, pair.client)
            await settle(lambda: service.running, 5)
            assert opened == ["EngageMany", "Engage", "Engage"]
            gate.open.set()


async def test_calls_of_one_turn_share_writes_and_do_not_wait_for_all_of_it() -> None:
    async with open_pair() as pair:
        await call(pair.client)
        server = next(iter(pair.server.connections)).connection
        client = pair.client._pool._slots[0].protocol.connection
        with _counted(client) as requests, _counted(server) as answers:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(call, pair.client, b"x" * 100)
        # The first two do not know of the others.
        assert len(requests) == 2 + math.ceil(18 / ENOUGH)
        assert len(answers) <= len(requests) + 3
        assert sum(requests) > 20 * 100


@contextmanager
def _counted(connection: Any) -> Iterator[list[int]]:
    """The sizes of the writes to a connection."""
    sizes: list[int] = []
    write = connection.transport.write

    def counted(data: bytes) -> None:
        sizes.append(len(data))
        write(data)

    connection.transport.write = counted
    try:
        yield sizes
    finally:
        del connection.transport.write


async def test_ends_of_calls_leave_nothing_behind() -> None:
    async with open_pair() as pair:
        async with trio.open_nursery() as nursery:
            for size in range(0, 30_000, 1000):
                nursery.start_soon(call, pair.client, bytes(size))
        shared = pair.client._pool._slots[0].shared
        assert shared is not None
        assert (len(shared.calls), shared.unread) == (0, 0)


async def test_a_long_answer_that_nobody_reads_does_not_stop_the_others() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        _, body = await read_call(engagement)
        await engagement.send(ResultStart(200))
        await engagement.send(Data(body * 100_000))
        await engagement.send(SUCCESS)

    async with open_pair(engage) as pair:
        first = Data(b"x" * 100, eof=True)
        async with pair.client.engage(TRY, first=first) as stuck:
            await trio.testing.wait_all_tasks_blocked(0.1)
            shared = pair.client._pool._slots[0].shared
            assert shared is not None
            assert CALL_WINDOW < shared.unread < 2 * CALL_WINDOW
            assert len(body_of(await call(pair.client, b"x"))) == 100_000
            got = 0
            while (frame := await stuck.receive()) is not None:
                got += len(frame.data) if isinstance(frame, Data) else 0
            assert got == 10_000_000
            assert shared.unread == 0


async def test_cancelling_one_leaves_the_others() -> None:
    gate = Gate()
    service = Service(gate)
    async with open_pair(service) as pair, trio.open_nursery() as nursery:
        results: list[object] = []

        async def one() -> None:
            results.append((await call(pair.client))[-1])

        nursery.start_soon(one)
        await settle(lambda: service.running, 1)
        with trio.move_on_after(0) as scope:
            async with pair.client.engage(TRY, first=EMPTY_BODY) as engagement:
                await settle(lambda: service.running, 2)
                scope.cancel()
                await engagement.receive()
        await settle(lambda: service.running, 1)
        assert results == []
        gate.open.set()
        await settle(lambda: results, [SUCCESS])
