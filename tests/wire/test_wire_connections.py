"""Connections of a client: how many, when, and what their trouble is called."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from hostler import wire
from hostler.protocol import NotSent
from tests.support.observers import OnCommit
from tests.support.ports import free_port

from .leaks import settle
from .services import EMPTY_BODY, TRY, Gate, Service, call, open_pair


async def test_a_thousand_calls_in_flight_over_few_connections() -> None:
    gate = Gate()
    service = Service(gate)
    async with open_pair(service) as pair, trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(call, pair.client)
        await settle(lambda: service.running, 1000)
        statistics = pair.client.statistics()
        assert (statistics.streams, statistics.waiting) == (1000, 0)
        assert statistics.connections == 4
        gate.open.set()
        await service.wait_idle()
        # all are idle now but one is enough
        await settle(lambda: pair.client.statistics().connections, 1)
        await settle(lambda: len(pair.server.connections), 1)


async def test_calls_over_the_limit_wait_and_are_served() -> None:
    gate = Gate()
    service = Service(gate)
    async with (
        open_pair(service, max_connections=2, streams_per_connection=3) as pair,
        trio.open_nursery() as nursery,
    ):
        for _ in range(10):
            nursery.start_soon(call, pair.client)
        await settle(lambda: service.running, 6)
        await settle(lambda: pair.client.statistics().waiting, 4)
        assert pair.client.statistics().connections == 2
        gate.open.set()
    assert service.started == 10


async def test_a_burst_dials_once() -> None:
    async with open_pair() as pair:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(call, pair.client)
        assert len(pair.server.connections) == 1


async def test_reconnects_after_a_loss() -> None:
    async with open_pair() as pair:
        await call(pair.client)
        (protocol,) = pair.server.connections
        protocol.connection.transport.abort()
        await settle(lambda: pair.client.statistics().connections, 0)
        await call(pair.client)


async def test_transport_that_is_closing_is_not_used() -> None:
    async with open_pair() as pair:
        await call(pair.client)
        pair.client._pool._slots[0].protocol.connection.transport.close()
        # asyncio has not told of the loss yet
        await call(pair.client)


@pytest.fixture
def dead_port() -> int:
    return free_port()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_refused(dead_port: int, host: str) -> None:
    async with wire.open_loop() as loop:
        client = wire.GrpcRunnerClient(f"{host}:{dead_port}", loop=loop)
        with pytest.raises(NotSent, match=f"cannot reach runner {host}.*: connection refused"):
            await call(client)
        with pytest.raises(NotSent, match="connection refused"):
            await client.status()
        await client.aclose()


async def test_back_at_once_after_being_refused(dead_port: int) -> None:
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            client = wire.GrpcRunnerClient(f"127.0.0.1:{dead_port}", loop=loop)
            for _ in range(3):
                with pytest.raises(NotSent):
                    await call(client)
            async with wire.open_server(Service(), f"127.0.0.1:{dead_port}", loop=loop):
                await call(client)
                await client.aclose()


async def test_a_runner_that_closes_before_it_accepts_has_not_got_the_call() -> None:
    """As it stops: the kernel resets whom it has connected since the last accept. That is as good
    as to refuse them, so it need not be avoided (as it is where clients are browsers)."""
    committed = trio.Event()
    failures: list[NotSent] = []

    async def attempt(client: wire.GrpcRunnerClient) -> None:
        try:
            async with client.engage(TRY, first=EMPTY_BODY, observer=OnCommit(committed.set)):
                pytest.fail("it was engaged")
        except NotSent as error:
            failures.append(error)

    with trio.fail_after(60):
        async with wire.open_loop() as loop, trio.open_nursery() as nursery:
            with socket.create_server(("127.0.0.1", 0)) as stopping:
                address = f"127.0.0.1:{stopping.getsockname()[1]}"
                client = wire.GrpcRunnerClient(
                    address, wire.ConnectOptions(connect_timeout=60), loop=loop
                )
                for _ in range(2):
                    nursery.start_soon(attempt, client)
                await trio.lowlevel.wait_readable(stopping)
            await settle(lambda: len(failures), 2)
            await client.aclose()
    assert not committed.is_set()


async def test_all_waiters_share_one_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with wire.open_loop() as loop:
            client = wire.GrpcRunnerClient(
                f"127.0.0.1:{silent.getsockname()[1]}",
                wire.ConnectOptions(handshake_timeout=0.5),
                loop=loop,
            )
            failures: list[NotSent] = []

            async def attempt() -> None:
                try:
                    await call(client)
                except NotSent as error:
                    failures.append(error)

            begun = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(attempt)
            assert len(failures) == 100
            assert "no handshake within 0.5 s" in str(failures[0])
            assert trio.current_time() - begun < 40  # not a hundred timeouts
            await client.aclose()


async def test_full_backlog_times_out() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        name = full.getsockname()
        with socket.create_connection(name):  # takes the only place
            async with wire.open_loop() as loop:
                client = wire.GrpcRunnerClient(
                    f"127.0.0.1:{name[1]}", wire.ConnectOptions(connect_timeout=0.05), loop=loop
                )
                with pytest.raises(NotSent, match=r"no connection within 0.05 s"):
                    await call(client)
                await client.aclose()


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64, "ü" * 64])
async def test_a_name_that_no_host_can_have(host: str) -> None:
    async with wire.open_loop() as loop:
        with pytest.raises(ValueError, match="no host"):
            wire.GrpcRunnerClient(f"{host}:1", loop=loop)
        with pytest.raises(ValueError, match="no host"):
            async with wire.open_server(Service(), f"{host}:0", loop=loop):
                pass


async def test_unknown_host() -> None:
    async with wire.open_loop() as loop:
        client = wire.GrpcRunnerClient("no-such-host.invalid:1", loop=loop)
        with pytest.raises(NotSent, match=r"cannot resolve the host name|not resolved in time"):
            await call(client)
        await client.aclose()
