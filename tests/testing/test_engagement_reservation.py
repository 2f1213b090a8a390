"""Reservations over the engagement seam: the same through memory and over the wire."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from hostler.protocol import (
    Commit,
    Data,
    EngagementFailed,
    Finished,
    GRPCStatus,
    Reserved,
    ServerEngagement,
    TryCall,
)
from tests.support.observers import RecordingObserver

from .services import TRY, OpenClient, ScriptedService, frames_of

RESERVE = msgspec.structs.replace(TRY, reserve=True)
DONE = Finished(success=True)


async def test_a_call_is_reserved_committed_and_answered(open_client: OpenClient) -> None:
    seen: list[object] = []
    observer = RecordingObserver()

    async def engage(engagement: ServerEngagement) -> None:
        seen.append(await engagement.receive())
        await engagement.send(Reserved())
        seen.extend([frame async for frame in frames_of(engagement)])
        await engagement.send(DONE)

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(RESERVE, observer=observer) as engagement,
    ):
        assert await engagement.receive() == Reserved()
        assert observer.events == ["asked"]
        await engagement.commit(Data(b"a"))
        assert observer.events == ["asked", "commit"]
        await engagement.send(Data(b"b", eof=True))
        assert await engagement.receive() == DONE
        assert await engagement.receive() is None
    assert isinstance(seen[0], TryCall)
    assert seen[0].reserve
    assert seen[0].models_call_json == TRY.models_call_json
    assert seen[1:] == [Commit(with_data=True), Data(b"a"), Data(b"b", eof=True)]
    assert observer.events == ["asked", "commit"]


async def test_a_commit_without_a_body_yet(open_client: OpenClient) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(Reserved())
        assert await engagement.receive() == Commit()
        await engagement.send(DONE)

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(RESERVE) as engagement,
    ):
        assert await engagement.receive() == Reserved()
        await engagement.commit(None)
        assert await engagement.receive() == DONE


@pytest.mark.parametrize("when", ["before there is a slot", "while it is held"])
async def test_leaving_uncommitted_cancels_the_service(open_client: OpenClient, when: str) -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        started.set()
        try:
            if when == "while it is held":
                await engagement.send(Reserved())
                await engagement.receive()
                raise AssertionError("something came after it was reserved")
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    async with open_client(ScriptedService(engage)) as client:
        async with client.engage(RESERVE) as engagement:
            await started.wait()
            if when == "while it is held":
                assert await engagement.receive() == Reserved()
        await cancelled.wait()


async def test_a_commit_that_comes_too_late_is_none(open_client: OpenClient) -> None:
    """The runner has refused and ended; what it said is there, and nothing was committed."""
    observer = RecordingObserver()
    busy = Finished(success=False, error_code=503)

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send_all([Reserved()])
        await engagement.send_all([busy], last=True)

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(RESERVE, observer=observer) as engagement,
    ):
        assert await engagement.receive() == Reserved()
        await trio.testing.wait_all_tasks_blocked(0.05)
        await engagement.commit(Data(b"", eof=True))
        assert await engagement.receive() == busy
        assert await engagement.receive() is None
    assert observer.events == ["asked"]


async def test_a_cancelled_commit_is_none(open_client: OpenClient) -> None:
    observer = RecordingObserver()
    seen: list[object] = []
    left = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        await engagement.send(Reserved())
        try:
            seen.append(await engagement.receive())
        finally:
            left.set()

    async with open_client(ScriptedService(engage)) as client:
        async with client.engage(RESERVE, observer=observer) as engagement:
            assert await engagement.receive() == Reserved()
            with trio.CancelScope() as scope:
                scope.cancel()
                await engagement.commit(None)
            assert scope.cancelled_caught
        await left.wait()
    assert (observer.events, seen) == (["asked"], [])


async def test_a_refused_reservation_is_a_status_or_an_outcome(open_client: OpenClient) -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.receive()
        raise GRPCStatus(503, "full")

    async with (
        open_client(ScriptedService(engage)) as client,
        client.engage(RESERVE) as engagement,
    ):
        with pytest.raises(EngagementFailed) as caught:
            await engagement.receive()
    assert caught.value.status == 503
