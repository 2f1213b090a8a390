"""The client of gRPC's health service, against a server of grpcio's."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import grpc  # type: ignore[import-untyped]
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hostler import wire
from hostler.protocol import EngagementFailed, NotSent
from hostler.wire.codec.messages import CodecError, decode_serving

from .foreign_health import theirs
from .leaks import open_sockets, settle
from .services import Service, hear, open_pair

SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


@pytest.mark.parametrize(
    ("message", "serving"),
    [
        (b"", False),  # UNKNOWN
        (SERVING, True),
        (NOT_SERVING, False),
        (SERVICE_UNKNOWN, None),
        (NOT_SERVING + SERVING, True),  # the last one counts
        (b"\x12\x03abc\x08\x01\x18\x05", True),  # fields that are not known
        (b"\x25abcd\x29abcdefgh\x08\x01", True),
    ],
)
def test_answers(message: bytes, serving: bool | None) -> None:
    assert decode_serving(message) is serving


@pytest.mark.parametrize("message", [b"\x08", b"\x08\x80", b"\x12\x05ab", b"\x29abc", b"\x0b"])
def test_answers_that_are_none(message: bytes) -> None:
    with pytest.raises(CodecError):
        decode_serving(message)


@given(st.binary(max_size=40))
def test_any_bytes_are_an_answer_or_none(message: bytes) -> None:
    with contextlib.suppress(CodecError):
        assert decode_serving(message) in (True, False, None)


async def test_each_change_is_told() -> None:
    async with theirs() as (server, client), aclosing(client.watch_health()) as words:
        for serving in (True, False, True):
            server.say(SERVING if serving else NOT_SERVING)
            assert await anext(words) is serving
        assert server.requests == [b""]
        assert client.statistics().streams == 1
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(words)
        assert client.statistics().streams == 0


async def test_a_server_that_does_not_know_of_the_whole() -> None:
    async with theirs() as (server, client):
        server.say(SERVICE_UNKNOWN, None)
        assert [serving async for serving in client.watch_health()] == []


@pytest.mark.parametrize("status", [None, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
async def test_a_watch_that_ends(status: grpc.StatusCode | None) -> None:
    told: list[bool] = []
    async with theirs() as (server, client):
        server.say(SERVING, status)
        with pytest.raises(EngagementFailed) as caught:
            await hear(client.watch_health(), told)
        assert caught.value.status == (status.value[0] if status else 14)
    assert told == [True]


async def test_nonsense(logs: list[dict[str, object]]) -> None:
    async with theirs() as (server, client):
        server.say(b"\xff\xff", None)
        with pytest.raises(EngagementFailed, match="unmarshal"):
            assert [serving async for serving in client.watch_health()] == []
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "undecodable message"
    ]


async def test_a_server_without_the_service() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with wire.open_loop() as loop:
            client = wire.GrpcRunnerClient(
                f"127.0.0.1:{port}", wire.ConnectOptions(connect_timeout=60), loop=loop
            )
            assert [serving async for serving in client.watch_health()] == []
            await client.aclose()
    finally:
        server.stop(0).wait()


async def test_a_server_that_goes_away() -> None:
    with trio.fail_after(60):
        async with wire.open_loop() as loop:
            sockets = open_sockets()
            async with trio.open_nursery() as nursery:
                server = await nursery.start(serve, loop)
                client = wire.GrpcRunnerClient(server.address, loop=loop)
                await client.status()
                nursery.cancel_scope.cancel()
            with pytest.raises(NotSent, match="cannot reach runner"):
                assert [serving async for serving in client.watch_health()] == []
            await client.aclose()
            await settle(open_sockets, sockets)


async def serve(
    loop: wire.Loop, task_status: trio.TaskStatus[wire.GrpcServer] = trio.TASK_STATUS_IGNORED
) -> None:
    async with wire.open_server(Service(), "127.0.0.1:0", loop=loop) as server:
        task_status.started(server)
        await trio.sleep_forever()


async def test_a_watch_that_ends_by_the_clients_close() -> None:
    async with open_pair() as pair:
        await pair.client.aclose()
        with pytest.raises(NotSent, match="closed"):
            await anext(pair.client.watch_health())
