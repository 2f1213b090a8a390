"""Connections of a client: how many, when, and what their trouble is called."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived
from h2.settings import SettingCodes

from hostler import wire
from hostler.engagement import (
    ClientEngagement,
    EngagementEnded,
    EngagementFailed,
    NotSent,
    ServerEngagement,
)
from hostler.frames import Data, ResultStart

from .leaks import settle
from .services import EMPTY_BODY, SUCCESS, TRY, Service, call, collect, open_pair, read_call


class Gate:
    """A service that answers when it is told to."""

    def __init__(self) -> None:
        self.open = trio.Event()

    async def __call__(self, engagement: ServerEngagement) -> None:
        await read_call(engagement)
        await self.open.wait()
        await engagement.send(SUCCESS)


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
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


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
    with trio.fail_after(5):
        async with wire.open_loop() as loop:
            client = wire.GrpcRunnerClient(f"127.0.0.1:{dead_port}", loop=loop)
            for _ in range(3):
                with pytest.raises(NotSent):
                    await call(client)
            async with wire.open_server(Service(), f"127.0.0.1:{dead_port}", loop=loop):
                await call(client)
                await client.aclose()


async def test_all_waiters_share_one_failure(dead_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with wire.open_loop() as loop:
            client = wire.GrpcRunnerClient(
                f"127.0.0.1:{silent.getsockname()[1]}", loop=loop, handshake_timeout=0.05
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
            assert "no handshake within 0.05 s" in str(failures[0])
            assert trio.current_time() - begun < 2  # not a hundred timeouts
            await client.aclose()


async def test_full_backlog_times_out() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        name = full.getsockname()
        with socket.create_connection(name):  # takes the only place
            async with wire.open_loop() as loop:
                client = wire.GrpcRunnerClient(
                    f"127.0.0.1:{name[1]}", loop=loop, connect_timeout=0.05
                )
                with pytest.raises(NotSent, match=r"no connection within 0.05 s"):
                    await call(client)
                await client.aclose()


async def test_unknown_host() -> None:
    async with wire.open_loop() as loop:
        client = wire.GrpcRunnerClient("no-such-host.invalid:1", loop=loop)
        with pytest.raises(NotSent, match=r"cannot resolve the host name|not resolved in time"):
            await call(client)
        await client.aclose()


# --- a peer by hand, for what a well-behaved server does not do ---


class Peer:
    """The server's side of one connection, as the test wants it."""

    def __init__(self, stream: trio.SocketStream, settings: dict[SettingCodes | int, int]) -> None:
        self.stream = stream
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="ascii"))
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings(settings)

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def next(self, kind: type[Event]) -> Event:
        """The next event of a kind, others are dropped."""
        while True:
            for event in self.h2.receive_data(await self.stream.receive_some()):
                if isinstance(event, kind):
                    await self.flush()
                    return event
            await self.flush()


@asynccontextmanager
async def peer_and_client(
    **settings: int,
) -> AsyncIterator[tuple[trio.MemoryReceiveChannel[Peer], wire.GrpcRunnerClient]]:
    send, receive = trio.open_memory_channel[Peer](10)

    async def serve(stream: trio.SocketStream) -> None:
        peer = Peer(stream, {SettingCodes[name]: value for name, value in settings.items()})
        await peer.flush()
        await send.send(peer)
        await trio.sleep_forever()

    with trio.fail_after(10):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        async with wire.open_loop() as loop, trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            client = wire.GrpcRunnerClient(f"127.0.0.1:{port}", loop=loop, connect_timeout=5)
            yield receive, client
            await client.aclose()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def an_engagement() -> AsyncIterator[
    tuple[trio.MemoryReceiveChannel[Peer], wire.GrpcRunnerClient, ClientEngagement]
]:
    async with (
        peer_and_client() as (peers, client),
        client.engage(TRY, first=EMPTY_BODY) as engagement,
    ):
        yield peers, client, engagement


@pytest.mark.parametrize("how", ["refused", "goaway"])
async def test_a_stream_that_was_not_looked_at_is_not_sent(how: str) -> None:
    async with (
        peer_and_client() as (peers, client),
        client.engage(TRY, first=EMPTY_BODY) as engaged,
    ):
        peer = await peers.receive()
        event = await peer.next(RequestReceived)
        assert isinstance(event, RequestReceived)
        if how == "refused":
            peer.h2.reset_stream(event.stream_id or 1, ErrorCodes.REFUSED_STREAM)
        else:
            peer.h2.close_connection(last_stream_id=0)
        await peer.flush()
        with pytest.raises(NotSent, match="did not look at the call"):
            await engaged.receive()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCodes.CANCEL, 1),
        (ErrorCodes.INTERNAL_ERROR, 13),
        (ErrorCodes.NO_ERROR, 13),
        (ErrorCodes.ENHANCE_YOUR_CALM, 8),
        (4242, 13),
    ],
)
async def test_other_resets_have_failed(code: int, status: int) -> None:
    async with (
        peer_and_client() as (peers, client),
        client.engage(TRY, first=EMPTY_BODY) as engaged,
    ):
        peer = await peers.receive()
        await peer.next(DataReceived)
        peer.h2.reset_stream(1, code)
        await peer.flush()
        with pytest.raises(EngagementFailed, match="reset by the peer") as info:
            await engaged.receive()
        assert info.value.status == status


async def test_a_lost_connection_has_failed() -> None:
    async with (
        peer_and_client() as (peers, client),
        client.engage(TRY, first=EMPTY_BODY) as engaged,
    ):
        peer = await peers.receive()
        await peer.next(DataReceived)
        await peer.stream.aclose()
        with pytest.raises(EngagementFailed, match="connection") as info:
            await engaged.receive()
        assert info.value.status == 14


async def test_goaway_lets_running_calls_end_and_new_ones_dial() -> None:
    async with (
        peer_and_client() as (peers, client),
        client.engage(TRY, first=EMPTY_BODY) as engaged,
    ):
        peer = await peers.receive()
        await peer.next(DataReceived)
        goaway = b"\0\0\x08\x07\0\0\0\0\0" + (1).to_bytes(4, "big") + b"\0\0\0\0"
        peer.h2.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        # GOAWAY and what follows it in one packet
        await peer.stream.send_all(goaway + peer.h2.data_to_send())
        await settle(client._pool._usable, 0)
        peer.h2.send_data(1, b"\0\0\0\0\x04\x1a\x02\x08\x01")
        peer.h2.send_headers(1, [("grpc-status", "0")], end_stream=True)
        await peer.flush()
        async with client.engage(TRY):
            other = await peers.receive()
            await other.next(DataReceived)
            assert client.statistics().connections == 2
        (finished,) = await collect(engaged)
        assert getattr(finished, "success", False)


async def test_a_stream_limit_of_the_peer_is_respected() -> None:
    async with peer_and_client(MAX_CONCURRENT_STREAMS=2) as (peers, client):
        async with client.engage(TRY), client.engage(TRY), client.engage(TRY):
            assert client.statistics().connections == 2
        assert (await peers.receive()) is not (await peers.receive())


async def test_credits_are_only_given_for_what_is_read() -> None:
    async with peer_and_client() as (peers, client), client.engage(TRY) as engaged:
        peer = await peers.receive()
        await peer.next(DataReceived)
        peer.h2.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        frame = b"\0\0\0\x27\x10" + b"\x12\x8d\x4e\x0a\x8a\x4e" + b"x" * 9994
        while (window := peer.h2.local_flow_control_window(1)) > 0:
            peer.h2.send_data(1, frame[: min(window, len(frame))])
            await peer.flush()
        await trio.testing.wait_all_tasks_blocked(0.02)
        with trio.move_on_after(0.02):
            await peer.next(Event)
        assert peer.h2.local_flow_control_window(1) == 0
        for _ in range(20):
            assert isinstance(await engaged.receive(), Data)
        await peer.next(Event)
        assert peer.h2.local_flow_control_window(1) > 0


async def test_answers_that_are_not_grpc() -> None:
    async with peer_and_client() as (peers, client), client.engage(TRY) as engaged:
        peer = await peers.receive()
        await peer.next(DataReceived)
        peer.h2.send_headers(1, [(":status", "502"), ("content-type", "text/html")])
        peer.h2.send_data(1, b"<html>", end_stream=True)
        await peer.flush()
        with pytest.raises(EngagementFailed, match="unexpected HTTP status '502'") as info:
            await engaged.receive()
        assert info.value.status == 14


async def test_http2_errors_of_the_peer_close_its_connection_only() -> None:
    async with peer_and_client() as (peers, client):
        async with client.engage(TRY) as engaged:
            peer = await peers.receive()
            await peer.next(DataReceived)
            await peer.stream.send_all(b"\0\0\x01\x00\0\0\0\0\0x")  # DATA on stream 0
            with pytest.raises(EngagementFailed) as info:
                await engaged.receive()
            assert info.value.status == 14
        async with client.engage(TRY):
            await peers.receive()


async def test_frames_of_unknown_types_are_ignored() -> None:
    async with peer_and_client() as (peers, client), client.engage(TRY) as engaged:
        peer = await peers.receive()
        await peer.next(DataReceived)
        await peer.stream.send_all(b"\0\0\x01\xbb\0\0\0\0\0x")
        peer.h2.send_headers(1, [(":status", "100")])  # informational
        peer.h2.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        peer.h2.send_headers(1, [("grpc-status", "503")], end_stream=True)
        await peer.flush()
        with pytest.raises(EngagementFailed) as info:
            await engaged.receive()
        assert info.value.status == 503


@pytest.mark.parametrize("busy", [False, True])
async def test_a_silent_peer_is_given_up(busy: bool, logs: list[dict[str, object]]) -> None:
    """Also while there is data that it does not take."""
    keepalive = wire.Keepalive(interval=0.05, timeout=0.05)
    async with wire.open_loop() as loop, trio.open_nursery() as nursery:
        taken = trio.Event()

        async def serve(stream: trio.SocketStream) -> None:
            peer = Peer(stream, {SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
            peer.h2.increment_flow_control_window(2**31 - 1 - 65535)
            await peer.flush()
            taken.set()
            await trio.sleep_forever()

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        client = wire.GrpcRunnerClient(f"127.0.0.1:{port}", loop=loop, keepalive=keepalive)
        with trio.fail_after(5):
            async with client.engage(TRY) as engaged:
                await taken.wait()
                if busy:
                    with pytest.raises(EngagementEnded, match="no answer"):  # noqa: PT012  (until it fails)
                        while True:
                            await engaged.send(Data(b"x" * 1_000_000))
                with pytest.raises(EngagementFailed, match=r"no answer to a ping within 0.05 s"):
                    await engaged.receive()
        await client.aclose()
        nursery.cancel_scope.cancel()
    assert [e for e in logs if e["event"] == "peer has vanished"]


async def test_keepalive_leaves_a_peer_that_answers() -> None:
    async with open_pair(_slow, keepalive=wire.Keepalive(interval=0.01, timeout=5)) as pair:
        assert await call(pair.client) == [ResultStart(200), SUCCESS]


async def _slow(engagement: ServerEngagement) -> None:
    await read_call(engagement)
    await engagement.send(ResultStart(200))
    await trio.sleep(0.1)  # ten pings
    await engagement.send(SUCCESS)
