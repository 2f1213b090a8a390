"""What a client makes of servers that reset, go away, break the protocol or say nothing."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, PingAckReceived, RequestReceived, WindowUpdated
from h2.settings import SettingCodes

from hostler import wire
from hostler.protocol import (
    ClientEngagement,
    Data,
    EngagementEnded,
    EngagementFailed,
    NotSent,
    ResultStart,
    RunnerFrame,
    ServerEngagement,
    TryCall,
)
from hostler.wire.codec.messages import runner_messages
from hostler.wire.connection import CREDIT, STREAM_WINDOW
from tests.support.observers import OnCommit

from .leaks import settle
from .peer import Peer, peer_and_client
from .services import EMPTY_BODY, SUCCESS, TRY, call, collect, open_pair, read_call


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
        for _ in range(CREDIT // 10_000 + 1):
            assert isinstance(await engaged.receive(), Data)
        await peer.next(Event)
        assert peer.h2.local_flow_control_window(1) > 0


async def test_a_peer_that_is_ahead_is_credited_in_large_steps() -> None:
    """It sends with each credit what that allows: by small ones, small frames."""
    frames: list[RunnerFrame] = [ResultStart(200)]
    frames += [Data(bytes((number,)) * 100_000) for number in range(6)]
    messages = [b"".join(parts) for frame in frames for parts in runner_messages(frame)]
    sent = b"".join(messages)[:STREAM_WINDOW]
    async with peer_and_client() as (peers, client), client.engage(TRY) as engaged:
        peer = await peers.receive()
        await peer.next(DataReceived)
        peer.h2.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
        for start in range(0, STREAM_WINDOW, 1024):
            peer.h2.send_data(1, sent[start : start + 1024])
        peer.h2.ping(b"all sent")
        await peer.flush()
        await peer.next(PingAckReceived)
        assert [await engaged.receive() for _ in range(4)] == frames[:4]
        peer.h2.ping(b"all read")
        await peer.flush()
        found = await peer.until(PingAckReceived)
        assert [event.delta for event in found if isinstance(event, WindowUpdated)] == [CREDIT]


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
    keepalive = wire.Keepalive(interval=0.3, timeout=0.3)
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
        client = wire.GrpcRunnerClient(
            f"127.0.0.1:{port}", wire.ConnectOptions(keepalive=keepalive), loop=loop
        )
        with trio.fail_after(60):
            async with client.engage(TRY) as engaged:
                await taken.wait()
                if busy:
                    with pytest.raises(EngagementEnded, match="no answer"):  # noqa: PT012  (until it fails)
                        while True:
                            await engaged.send(Data(b"x" * 1_000_000))
                with pytest.raises(EngagementFailed, match=r"no answer to a ping within 0.3 s"):
                    await engaged.receive()
        await client.aclose()
        nursery.cancel_scope.cancel()
    assert [e for e in logs if e["event"] == "peer has vanished"]


async def test_keepalive_leaves_a_peer_that_answers() -> None:
    async with open_pair(_slow, keepalive=wire.Keepalive(interval=0.01, timeout=60)) as pair:
        assert await call(pair.client) == [ResultStart(200), SUCCESS]


async def _slow(engagement: ServerEngagement) -> None:
    await read_call(engagement)
    await engagement.send(ResultStart(200))
    await trio.sleep(0.1)  # ten pings
    await engagement.send(SUCCESS)


@pytest.mark.parametrize(
    "shared",
    [
        pytest.param(0, id="stream"),
        pytest.param(512, id="shared-stream", marks=pytest.mark.fast),
    ],
)
async def test_what_a_frozen_runner_has_not_got_is_not_committed(shared: int) -> None:
    """Its socket takes what the kernels hold. The calls behind that are in our own hands, and can
    be tried elsewhere; but for what was written in part."""
    calls, size, largest = 200, 20_000, 2**31 - 1
    try_call = TryCall(models_call_json="x" * size)
    commits: list[int] = []

    def prepare(peer: Peer) -> None:
        peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.h2.increment_flow_control_window(largest - 65535)
        peer.shared_calls = shared

    async def engage(number: int) -> None:
        with suppress(NotSent, EngagementFailed):
            async with client.engage(
                try_call, first=EMPTY_BODY, observer=OnCommit(lambda: commits.append(number))
            ) as engagement:
                await engagement.receive()

    async with (
        peer_and_client(prepare, INITIAL_WINDOW_SIZE=largest, MAX_CONCURRENT_STREAMS=calls) as (
            peers,
            client,
        ),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(engage, 0)
        peer = await peers.receive()
        await trio.testing.wait_all_tasks_blocked(0.01)
        (slot,) = client._pool._slots
        assert (slot.shared is not None) == bool(shared)
        ours = slot.protocol.connection.transport.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        for number in range(1, calls):
            nursery.start_soon(engage, number)
            await trio.testing.wait_all_tasks_blocked()
        committed = len(commits)
        slot.protocol.abort("given up")
        received = 0
        while data := await peer.stream.receive_some(2**20):
            received += len(data)
        assert 1 < len(commits) == committed < calls
        assert (committed - 1) * size <= received
