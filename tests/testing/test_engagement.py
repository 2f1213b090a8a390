"""The engagement seam: memory and wire must be indistinguishable to what is built on them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
import trio.testing

from hostler.protocol import (
    DEADLINE_STATUS,
    Data,
    EngagementEnded,
    EngagementFailed,
    Finished,
    GRPCStatus,
    ResultStart,
    ServerEngagement,
    TryCall,
)
from tests.support.observers import OnCommit

from .services import MIB, TRY, OpenClient, ScriptedService, frames_of, send_for_ever


async def test_frames_pass_in_order_both_ways(open_client: OpenClient) -> None:
    seen: list[object] = []
    finished = Finished(success=True, details="d", execution_ns=5, image="i")

    async def engage(engagement: ServerEngagement) -> None:
        assert engagement.request_id == "r1"
        assert engagement.peer
        seen.extend([frame async for frame in frames_of(engagement)])
        await engagement.send(ResultStart(200, [("A", "1"), ("A", "2")]))
        await engagement.send(Data(b"one"))
        await engagement.send(finished)

    async with open_client(ScriptedService(engage)) as client:
        async with client.engage(TRY, request_id="r1") as engagement:
            await engagement.send(Data(b"a"))
            await engagement.send(Data(b"b", eof=True))
            received = [await engagement.receive() for _ in range(3)]
            assert await engagement.receive() is None
        head, data, end = received
        assert isinstance(head, ResultStart)
        assert (head.status, list(head.headers)) == (200, [("A", "1"), ("A", "2")])
        assert data == Data(b"one")
        assert end == finished
    assert isinstance(seen[0], TryCall)
    assert (seen[0].models_call_json, seen[0].slot_hash_id) == ("{}", "ab01")
    assert dict(seen[0].extensions) == {"k": "v"}
    assert seen[1:] == [Data(b"a"), Data(b"b", eof=True)]


async def test_first_goes_with_the_call_and_commit_is_told_once(open_client: OpenClient) -> None:
    seen: list[object] = []
    commits: list[str] = []

    async def engage(engagement: ServerEngagement) -> None:
        seen.extend([frame async for frame in frames_of(engagement)])
        await engagement.send(Finished(success=True))

    async with open_client(ScriptedService(engage)) as client:
        whole = Data(b"all", eof=True)
        async with client.engage(
            TRY, first=whole, observer=OnCommit(lambda: commits.append("commit"))
        ) as engagement:
            assert commits == ["commit"]
            assert await engagement.receive() == Finished(success=True)
            assert await engagement.receive() is None
    assert seen[1:] == [whole]
    assert commits == ["commit"]


async def test_the_deadline_is_told_and_kept(open_client: OpenClient) -> None:
    left: list[float] = []
    ended = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        left.append(engagement.deadline - trio.current_time())
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, deadline=trio.current_time() + 0.2) as engagement,
    ):
        with pytest.raises(EngagementFailed) as caught:
            await engagement.receive()
        assert caught.value.status == DEADLINE_STATUS
        assert ended.is_set()
    assert 0 < left[0] <= 0.201  # rounded up to a millisecond


async def test_without_a_deadline_there_is_none(open_client: OpenClient) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        assert engagement.deadline == math.inf
        await engagement.send(Finished(success=True))

    async with open_client(ScriptedService(engage)) as client, client.engage(TRY) as engagement:
        assert await engagement.receive() == Finished(success=True)


async def test_a_status_arrives_after_what_was_sent_before_it(open_client: OpenClient) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.send(Data(b"before"))
        raise GRPCStatus(503, "too busy")

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        assert await engagement.receive() == Data(b"before")
        with pytest.raises(EngagementFailed) as caught:
            await engagement.receive()
    assert (caught.value.status, caught.value.text) == (503, "too busy")


async def test_a_status_in_an_exception_group_is_still_that_status(
    open_client: OpenClient,
) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        async with trio.open_nursery():
            raise GRPCStatus(503, "full")

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        with pytest.raises(EngagementFailed) as caught:
            await engagement.receive()
    assert caught.value.status == 503


async def test_an_internal_error_tells_nothing_and_is_logged(
    open_client: OpenClient, logs: Any
) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        raise ValueError("secret")

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        with pytest.raises(EngagementFailed) as caught:
            await engagement.receive()
    assert caught.value.status == 2
    assert "secret" not in caught.value.text
    logs.expect_error("")


@pytest.mark.parametrize("how", ["leave", "raise", "cancel"])
async def test_leaving_early_cancels_the_service(open_client: OpenClient, how: str) -> None:
    """Also in the middle of a read, which must not end as if the client had half-closed."""
    started, cancelled = trio.Event(), trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        started.set()
        try:
            while await engagement.receive() is not None:
                pass
        except trio.Cancelled:
            cancelled.set()
            raise

    async with open_client(ScriptedService(engage)) as client:
        with trio.CancelScope() as scope:
            try:
                async with client.engage(TRY):
                    await started.wait()
                    if how == "raise":
                        raise KeyError(how)
                    if how == "cancel":
                        scope.cancel()
                        await trio.sleep_forever()
            except KeyError:
                assert how == "raise"
        assert scope.cancelled_caught == (how == "cancel")
        await cancelled.wait()


async def test_a_cancelled_attempt_that_was_not_sent_is_not_committed(
    open_client: OpenClient,
) -> None:
    commits: list[str] = []

    async def engage(engagement: ServerEngagement) -> None:
        raise AssertionError("the service must never see it")

    async with open_client(ScriptedService(engage)) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with client.engage(TRY, observer=OnCommit(lambda: commits.append("commit"))):
                pass
        assert scope.cancelled_caught
        assert commits == []


async def test_a_client_that_does_not_read_stops_the_service(open_client: OpenClient) -> None:
    total, piece = 32 * MIB, 64 * 1024
    sent = 0

    async def engage(engagement: ServerEngagement) -> None:
        nonlocal sent
        while sent < total:
            await engagement.send(Data(bytes(piece)))
            sent += piece

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert sent <= 4 * MIB
        got = 0
        while isinstance(frame := await engagement.receive(), Data):
            got += len(frame.data)
        assert (got, frame) == (total, None)


async def test_a_service_that_does_not_read_stops_the_client(open_client: OpenClient) -> None:
    total, piece = 32 * MIB, 64 * 1024
    sent = got = 0
    go = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        nonlocal got
        await go.wait()
        async for frame in frames_of(engagement):
            got += len(frame.data) if isinstance(frame, Data) else 0

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY) as engagement,
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            nonlocal sent
            while sent < total:
                sent += piece
                await engagement.send(Data(bytes(piece), eof=sent == total))

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert sent <= 4 * MIB
        go.set()
        assert await engagement.receive() is None
        assert got == total


async def test_sending_to_a_service_that_has_ended(open_client: OpenClient) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(Finished(success=True))

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY) as engagement,
    ):
        with pytest.raises(EngagementEnded):
            await send_for_ever(engagement)
        assert await engagement.receive() == Finished(success=True)
        assert await engagement.receive() is None


async def test_big_data_is_cut_and_complete(open_client: OpenClient) -> None:
    body = bytes(range(256)) * 40_000

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.send(Data(body))

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        pieces = []
        while isinstance(frame := await engagement.receive(), Data):
            pieces.append(frame.data)
        assert b"".join(pieces) == body
        assert len(pieces) > 1


@pytest.mark.parametrize("size", [0, 10, 100_000, 3 * MIB])
async def test_frames_sent_together_arrive_like_single_ones(
    open_client: OpenClient, size: int
) -> None:
    """Also more than the client's window takes at once, and with the end of the RPC."""
    head, finished = ResultStart(200, [("A", "1")]), Finished(success=True)

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.send_all([head, Data(b"x" * size)])
        await engagement.send_all([Data(b"y" * size), finished], last=True)

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        first = await engagement.receive()
        assert isinstance(first, ResultStart)
        body = b""
        while isinstance(frame := await engagement.receive(), Data):
            body += frame.data
        assert body == b"x" * size + b"y" * size
        assert frame == finished
        assert await engagement.receive() is None


async def test_frames_sent_together_arrive_while_the_service_goes_on(
    open_client: OpenClient,
) -> None:
    seen = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.send_all([ResultStart(200), Data(b"x")])
        await seen.wait()

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(TRY, first=Data(b"", eof=True)) as engagement,
    ):
        assert await engagement.receive() == ResultStart(200)
        assert await engagement.receive() == Data(b"x")
        seen.set()
        assert await engagement.receive() is None
