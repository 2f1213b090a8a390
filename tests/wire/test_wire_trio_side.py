"""Connections that are read by Trio: how they end, and what is said by a program that ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest
import trio

from hostler.protocol import EngagementFailed, ServerEngagement

from .services import EMPTY_BODY, SUCCESS, TRY, Pair, Service, call, open_pair, read_call


def socket_of(pair: Pair) -> socket.socket:
    """The server's end of the one connection."""
    (protocol,) = pair.server.connections
    found: socket.socket = protocol.connection.transport.get_extra_info("socket")
    return found


async def test_a_reset_connection_says_so() -> None:
    async def reset(engagement: ServerEngagement) -> None:
        await engagement.receive()
        sock = socket_of(pair)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        (protocol,) = pair.server.connections
        protocol.connection.transport.abort()

    async with open_pair(reset) as pair:
        with pytest.raises(EngagementFailed, match=r"connection lost: .*reset by peer"):
            await call(pair.client)


async def test_asyncio_may_begin_to_read_although_it_was_told_to_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As that of Python 3.11.2 does, which Debian 12 has."""

    def add_reader(transport: Any, fd: int, callback: Any, *args: Any) -> None:
        if not transport.is_closing():
            transport._loop._add_reader(fd, callback, *args)

    events: Any = asyncio.selector_events
    monkeypatch.setattr(events._SelectorTransport, "_add_reader", add_reader)

    async def play(engagement: ServerEngagement) -> None:
        await read_call(engagement)
        await engagement.send(SUCCESS)

    async with open_pair(play) as pair:
        for _ in range(3):
            await call(pair.client)


async def test_a_closed_connection_says_so() -> None:
    async def close(engagement: ServerEngagement) -> None:
        await engagement.receive()
        (protocol,) = pair.server.connections
        protocol.connection.transport.close()

    async with open_pair(close) as pair:
        with pytest.raises(EngagementFailed, match="connection closed"):
            await call(pair.client)


@pytest.mark.fast
async def test_calls_of_a_program_that_is_cancelled_are_cancelled_on_the_runner() -> None:
    """Their ends go out although the tasks that write have ended by then."""
    cancelled = 0
    both = trio.Event()

    async def play(engagement: ServerEngagement) -> None:
        nonlocal cancelled
        await read_call(engagement)
        if service.started < 2:
            await engagement.send(SUCCESS)
            return
        try:
            await trio.sleep_forever()
        finally:
            cancelled += 1
            if cancelled == 2:
                both.set()

    async def engage() -> None:
        async with pair.client.engage(TRY, first=EMPTY_BODY) as engagement:
            await engagement.receive()

    service = Service(play)
    async with open_pair(service) as pair:
        await call(pair.client)
        (slot,) = pair.client._pool._slots
        side = slot.protocol._trio_side
        assert side is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engage)
            nursery.start_soon(engage)
            while service.started < 3:
                await trio.testing.wait_all_tasks_blocked(0.001)
            for task in side._tasks:
                task.cancel()
            nursery.cancel_scope.cancel()
        await both.wait()
