"""Engagements that fail: refused sizes, statuses of services, bytes that mean nothing."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from hostler.errors import ProtocolError
from hostler.protocol import (
    AttemptObserver,
    Data,
    EngagementFailed,
    Finished,
    GRPCStatus,
    ResultStart,
    ServerEngagement,
    TryCall,
)
from tests.support.observers import OnCommit

from .services import (
    EMPTY_BODY,
    SUCCESS,
    TRY,
    call,
    collect,
    open_pair,
    read_call,
)

pytestmark = pytest.mark.usefixtures("carrier")


async def test_too_large_try_call_is_refused_with_its_status_and_not_committed() -> None:
    record: list[str] = []
    big = TryCall(models_call_json="x" * (4 * 2**20))
    async with open_pair() as pair:
        async with pair.client.engage(
            big, first=EMPTY_BODY, observer=OnCommit(lambda: record.append("commit"))
        ) as engagement:
            with pytest.raises(EngagementFailed, match="received message larger than max") as info:
                await engagement.receive()
            assert info.value.status == 8
        assert record == []
        assert len(await call(pair.client)) == 3  # the connection is fine


async def test_too_large_frame_from_the_runner() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.send(Finished(success=True, details="x" * (4 * 2**20)))

    async with open_pair(engage) as pair:
        with pytest.raises(EngagementFailed, match="larger than max") as info:
            await call(pair.client)
        assert info.value.status == 8
        await pair.service.wait_idle()


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("status", [503, 14, 2, 9])
async def test_status_of_the_service_reaches_the_peer(status: int, grouped: bool) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await read_call(engagement)
        error = GRPCStatus(status, "tëxt\n%")
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [error])]) if grouped else error

    async with open_pair(engage) as pair:
        with pytest.raises(EngagementFailed) as info:
            await call(pair.client)
        assert (info.value.status, info.value.text) == (status, "tëxt\n%")


async def test_status_from_a_nursery_child_wins_over_the_cancelled_sibling() -> None:
    async def nack() -> None:
        raise GRPCStatus(503, "busy")

    async def engage(engagement: ServerEngagement) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nack)
            nursery.start_soon(trio.sleep_forever)

    async with open_pair(engage) as pair:
        with pytest.raises(EngagementFailed) as info:
            await call(pair.client)
        assert info.value.status == 503


async def test_status_after_frames_comes_after_them() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await read_call(engagement)
        await engagement.send(ResultStart(200))
        await engagement.send(Data(b"x" * 100_000))
        raise GRPCStatus(13, "broke")

    async with open_pair(engage) as pair, pair.client.engage(TRY, first=EMPTY_BODY) as engagement:
        assert isinstance(await engagement.receive(), ResultStart)
        got = 0
        with pytest.raises(EngagementFailed, match="broke"):  # noqa: PT012  (until it fails)
            while True:
                frame = await engagement.receive()
                assert isinstance(frame, Data)
                got += len(frame.data)
        assert got == 100_000


async def test_status_text_that_is_no_unicode_does_no_harm() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        raise GRPCStatus(9, "a\udc80b")

    async with open_pair(engage) as pair:
        with pytest.raises(EngagementFailed, match=r"a\?b") as info:
            await call(pair.client)
        assert info.value.status == 9


@pytest.mark.parametrize("grouped", [False, True])
async def test_unforeseen_error_is_logged_and_tells_nothing(logs: Any, grouped: bool) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        error = RuntimeError("secret")
        raise ExceptionGroup("", [error, GRPCStatus(503, "busy")]) if grouped else error

    async with open_pair(engage) as pair:
        with pytest.raises(EngagementFailed) as info:
            await call(pair.client)
    assert info.value.status == 2
    assert "secret" not in info.value.text
    assert str(logs.expect_error("rpc failed")["exc_info"]) == "secret"


async def test_undecodable_bytes_end_with_a_clean_status_and_one_line(logs: Any) -> None:
    async with open_pair() as pair, pair.client._stream("Engage", "") as stream:
        await stream.send(b"\0\0\0\0\x02\xff\xff")
        assert await stream.receive() is None
        assert ("grpc-status", "13") in (stream.headers or [])
    assert len(logs.with_event("undecodable message")) == 1


async def test_unknown_frames_are_skipped_by_the_client_and_refused_by_the_server(
    logs: Any,
) -> None:
    unknown = b"\0\0\0\0\x04\x7a\x02hi"

    async def engage(engagement: ServerEngagement) -> None:
        with pytest.raises(ProtocolError, match="neither try nor data"):
            await engagement.receive()
        vars(engagement)["_stream"].start_response(
            [(":status", "200"), ("content-type", "application/grpc")]
        )
        await vars(engagement)["_stream"].send(unknown)
        await engagement.send(SUCCESS)

    async with open_pair(engage) as pair, pair.client._stream("Engage", "") as stream:
        from hostler.wire.client import _Engagement

        await stream.send(unknown)
        assert await collect(_Engagement(stream, "runner", AttemptObserver())) == [SUCCESS]
    assert len(logs.with_event("unknown frame skipped")) == 1
