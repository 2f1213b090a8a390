"""A server's beginning and end, and what it makes of clients that misbehave."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, RemoteSettingsChanged, ResponseReceived, StreamReset, TrailersReceived
from hyperframe.frame import RstStreamFrame

from hostler import wire
from hostler.protocol import Data, EngagementFailed, NotSent, ResultStart, ServerEngagement
from hostler.wire.codec import messages as codec
from hostler.wire.codec.messages import with_prefix
from hostler.wire.connection import MAX_STREAMS
from tests.conftest import Logs

from .leaks import asyncio_tasks, open_sockets, settle, trio_tasks
from .services import EMPTY_BODY, SUCCESS, TRY, Service, call, collect, echo, open_pair, read_call


async def test_address_is_the_bound_one() -> None:
    async with wire.open_loop() as loop:
        for bind in ("127.0.0.1:0", ":0", "localhost:0"):
            async with wire.open_server(Service(), bind, loop=loop) as server:
                host, _, port = server.address.rpartition(":")
                assert int(port) > 0
                assert bind == ":0" or host in ("127.0.0.1", "[::1]")
                client = wire.GrpcRunnerClient(
                    f"localhost:{port}", wire.ConnectOptions(connect_timeout=60), loop=loop
                )
                assert len(await call(client)) == 3
                await client.aclose()
                assert "accepting" in repr(server)


async def test_port_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        taken.listen()
        async with wire.open_loop() as loop:
            with pytest.raises(OSError, match=f"cannot listen on {bind}: address already in use"):
                async with wire.open_server(Service(), bind, loop=loop):
                    pytest.fail("opened")
            with pytest.raises(OSError, match=r"cannot listen on no-such-host.invalid:1: "):
                async with wire.open_server(Service(), "no-such-host.invalid:1", loop=loop):
                    pytest.fail("opened")
            with pytest.raises(ValueError, match="not of the form host:port"):
                async with wire.open_server(Service(), "8080", loop=loop):
                    pytest.fail("opened")


async def test_stop_accepting_lets_running_calls_end_and_refuses_new_ones() -> None:
    go = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        await read_call(engagement)
        await engagement.send(ResultStart(200))
        await go.wait()
        await engagement.send(SUCCESS)

    async with open_pair(engage) as pair, pair.client.engage(TRY, first=EMPTY_BODY) as running:
        await running.receive()
        pair.server.stop_accepting()
        pair.server.stop_accepting()
        # at once, before the client can have heard of it
        with pytest.raises(NotSent):
            await call(pair.client)
        # and when it has
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(NotSent, match="connection refused"):
            await call(pair.client)
        assert "stopping" in repr(pair.server)
        go.set()
        assert await collect(running) == [SUCCESS]


async def test_end_of_the_server_cancels_calls_and_says_so() -> None:
    service = Service()
    record: list[str] = []

    async def engage(engagement: ServerEngagement) -> None:
        await read_call(engagement)
        await engagement.send(ResultStart(200))
        try:
            await trio.sleep_forever()
        finally:
            record.append("ended")

    service.on_engage = engage
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            tasks, sockets = trio_tasks(), open_sockets()
            async with wire.open_server(service, "127.0.0.1:0", loop=loop) as server:
                client = wire.GrpcRunnerClient(
                    server.address, wire.ConnectOptions(connect_timeout=60), loop=loop
                )
                manager = client.engage(TRY, first=EMPTY_BODY)
                engagement = await manager.__aenter__()
                assert await engagement.receive() == ResultStart(200)
            assert record == ["ended"]
            with pytest.raises(EngagementFailed, match="the server is shutting down") as info:
                await engagement.receive()
            assert info.value.status == 14
            await manager.__aexit__(None, None, None)
            await client.aclose()
            await settle(open_sockets, sockets)
            await settle(trio_tasks, tasks)
            assert asyncio_tasks(loop) == 0


@pytest.mark.parametrize("share_limit", [0, 1000])
async def test_end_of_the_server_proves_that_it_has_not_looked_at_a_call(share_limit: int) -> None:
    """The stream was accepted, but nobody has come to its call: another runner may have it."""
    service = Service()
    entered = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        entered.set()
        await trio.sleep_forever()

    service.on_engage = engage
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            async with wire.open_server(service, "127.0.0.1:0", loop=loop) as server:
                client = wire.GrpcRunnerClient(
                    server.address,
                    wire.ConnectOptions(connect_timeout=60, share_limit=share_limit),
                    loop=loop,
                )
                manager = client.engage(TRY, first=EMPTY_BODY)
                engagement = await manager.__aenter__()
                await entered.wait()
            with pytest.raises(NotSent, match="did not look at the call"):
                await engagement.receive()
            await manager.__aexit__(None, None, None)
            await client.aclose()


async def test_cancelled_server_ends_in_time_with_a_client_that_does_not_read() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        while True:
            await engagement.send(Data(b"x" * 100_000))

    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            with trio.CancelScope() as scope:
                async with wire.open_server(Service(engage), "127.0.0.1:0", loop=loop) as server:
                    host, _, port = server.address.rpartition(":")
                    with socket.create_connection((host, int(port))) as silent:
                        h2 = H2Connection(H2Configuration(client_side=True))
                        h2.initiate_connection()
                        h2.increment_flow_control_window(2**31 - 1 - 65535)
                        h2.update_settings({4: 2**31 - 1})
                        h2.send_headers(1, _HEADERS)
                        h2.send_data(1, b"\0\0\0\0\x02\x0a\0")
                        silent.sendall(h2.data_to_send())
                        await trio.testing.wait_all_tasks_blocked(0.05)
                        scope.cancel()
                        await trio.sleep_forever()


_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/RunnerProtocol/Engage"),
    (":authority", "x"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


class RawClient:
    """A client by hand."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="ascii"))
        self.h2.initiate_connection()

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def events(self, last: type[Event]) -> list[Event]:
        """All events up to one of a kind."""
        found: list[Event] = []
        while not any(isinstance(event, last) for event in found):
            found += self.h2.receive_data(await self.stream.receive_some())
        return found


async def _raw(server: wire.GrpcServer) -> RawClient:
    host, _, port = server.address.rpartition(":")
    client = RawClient(await trio.open_tcp_stream(host, int(port)))
    await client.flush()
    return client


async def test_a_client_that_opens_more_streams_than_it_may_loses_its_connection() -> None:
    """And nobody else's: it has not even looked at how many it may open."""

    async def stuck(engagement: ServerEngagement) -> None:
        await trio.sleep_forever()

    async with open_pair(stuck) as pair:
        raw = await _raw(pair.server)
        for number in range(MAX_STREAMS + 1):
            raw.h2.send_headers(2 * number + 1, _HEADERS)
        await raw.flush()
        with suppress(trio.BrokenResourceError):
            while await raw.stream.receive_some():
                pass
        await raw.stream.aclose()
        assert pair.service.started <= MAX_STREAMS
        await pair.service.wait_idle()
        pair.service.on_engage = echo
        assert len(await call(pair.client)) == 3


async def test_what_a_client_has_sent_before_it_knew_of_the_end_is_refused() -> None:
    """Not lost: its connection is kept until it closes it."""
    leaving, refused = trio.Event(), trio.Event()

    async def late_client(raw: RawClient) -> None:
        await leaving.wait()
        await trio.testing.wait_all_tasks_blocked(0.02)
        raw.h2.send_headers(1, _HEADERS)  # it has not read the GOAWAY that was sent meanwhile
        await raw.flush()
        refusal = RstStreamFrame(1, error_code=int(ErrorCodes.REFUSED_STREAM)).serialize()
        received = b""
        while refusal not in received:
            received += await raw.stream.receive_some()
        refused.set()
        await raw.stream.aclose()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, wire.open_loop() as loop:
            async with wire.open_server(Service(), "127.0.0.1:0", loop=loop) as server:
                raw = await _raw(server)
                await raw.events(RemoteSettingsChanged)
                await trio.testing.wait_all_tasks_blocked(0.01)  # it is served, not just accepted
                nursery.start_soon(late_client, raw)
                leaving.set()
            assert refused.is_set()


async def test_a_connection_that_fails_unexpectedly_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    async with wire.open_loop() as loop, wire.open_server(Service(), ":0", loop=loop) as server:
        port = server.address.rpartition(":")[2]
        with monkeypatch.context() as broken:
            broken.setattr(loop, "connect_accepted_socket", None)
            with socket.create_connection(("127.0.0.1", int(port))) as refused:
                refused.settimeout(60)
                assert await trio.to_thread.run_sync(refused.recv, 1) == b""
        client = wire.GrpcRunnerClient(
            f"localhost:{port}", wire.ConnectOptions(connect_timeout=60), loop=loop
        )
        assert len(await call(client)) == 3
        await client.aclose()
    assert logs.expect_error("connection failed")["peer"]


async def test_many_streams_are_announced() -> None:
    async with open_pair() as pair:
        raw = await _raw(pair.server)
        await raw.events(RemoteSettingsChanged)
        assert raw.h2.remote_settings.max_concurrent_streams >= 1000
        await raw.stream.aclose()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({":method": "GET"}, "2"),
        ({"content-type": "text/html"}, "2"),
        ({":path": "/RunnerProtocol/Other"}, "12"),
        ({":path": "/"}, "12"),
    ],
)
async def test_requests_that_make_no_sense(change: dict[str, str], status: str) -> None:
    async with open_pair() as pair:
        raw = await _raw(pair.server)
        raw.h2.send_headers(1, list({**dict(_HEADERS), **change}.items()), end_stream=True)
        await raw.flush()
        events = await raw.events(ResponseReceived)
        (response,) = [event for event in events if isinstance(event, ResponseReceived)]
        headers: Any = response.headers  # (text, by the encoding that is set)
        assert dict(headers)["grpc-status"] == status
        await raw.stream.aclose()
        await settle(lambda: len(pair.server.connections), 0)


async def test_end_tells_a_client_that_could_still_send_to_stop() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.send(SUCCESS)

    async with open_pair(engage) as pair:
        raw = await _raw(pair.server)
        raw.h2.send_headers(1, _HEADERS)
        raw.h2.send_data(1, with_prefix(codec.encode_client(TRY)))
        await raw.flush()
        events = await raw.events(StreamReset)
        (reset,) = [event for event in events if isinstance(event, StreamReset)]
        assert reset.error_code == 0
        assert any(isinstance(event, TrailersReceived) for event in events)
        await raw.stream.aclose()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\x01\x01\x04\0\0\0\0x",
    ],
)
async def test_what_is_not_http2_closes_only_its_connection(data: bytes) -> None:
    async with open_pair() as pair:
        raw = RawClient(await trio.open_tcp_stream(*_split(pair.server.address)))
        await raw.stream.send_all(data)
        with pytest.raises((trio.BrokenResourceError, EOFError)):  # noqa: PT012  (reads to the end)
            while await raw.stream.receive_some():
                pass
            raise EOFError
        await raw.stream.aclose()
        assert len(await call(pair.client)) == 3


async def test_header_bytes_that_are_not_ascii_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_pair(share_limit=0) as pair:
        headers = [*pair.client._request_headers("Engage", ""), ("x", "h\xe4")]
        monkeypatch.setattr(pair.client, "_request_headers", lambda *_: [*headers])
        assert len(await call(pair.client)) == 3


async def test_an_error_in_a_callback_ends_the_connection_not_the_loop(
    logs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pair() as pair:
        await call(pair.client)
        (protocol,) = pair.server.connections

        def boom(*_: object) -> None:
            raise RuntimeError("bug")

        monkeypatch.setattr(protocol.processor, "data_received", boom)
        with pytest.raises(EngagementFailed, match="connection"):
            await call(pair.client)
        await call(pair.client)
    entry = logs.expect_error("connection failed")
    assert entry["during"] == "data_received"


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
