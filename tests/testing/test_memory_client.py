"""What only the memory client can do: fail on demand, and break the order of the frames."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hostler.protocol import (
    Data,
    EngagementEnded,
    EngagementFailed,
    Finished,
    NotSent,
    ServerEngagement,
)
from hostler.testing import MemoryRunnerClient, memory_engagement_pair
from tests.support.observers import OnCommit

from .services import TRY, ScriptedService


async def test_unreachable_while_it_is_set() -> None:
    async def engage(engagement: ServerEngagement) -> None:
        await engagement.send(Finished(success=True))

    commits: list[None] = []
    client = MemoryRunnerClient(ScriptedService(engage))
    client.unreachable = ConnectionRefusedError("refused")
    with pytest.raises(NotSent, match="refused") as caught:
        async with client.engage(TRY, observer=OnCommit(lambda: commits.append(None))):
            pytest.fail("entered")
    assert caught.value.__cause__ is client.unreachable
    assert commits == []
    client.unreachable = None
    async with client.engage(TRY, observer=OnCommit(lambda: commits.append(None))) as engagement:
        assert await engagement.receive() == Finished(success=True)
    assert (commits, client.attempts, client.engagements) == ([None], 2, 0)


async def test_lost_connection_drops_what_is_under_way() -> None:
    cancelled = trio.Event()

    async def engage(engagement: ServerEngagement) -> None:
        await engagement.send(Data(b"lost"))
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    client = MemoryRunnerClient(ScriptedService(engage))
    async with client.engage(TRY) as engagement:
        await trio.testing.wait_all_tasks_blocked()
        client.lose_connections("cable cut")
        with pytest.raises(EngagementFailed, match="cable cut") as caught:
            await engagement.receive()
        assert caught.value.status == 14
        with pytest.raises(EngagementEnded):
            await engagement.send(Data(b"x"))
        await cancelled.wait()
    async with client.engage(TRY) as engagement:
        assert await engagement.receive() == Data(b"lost"), "a new one works"


async def test_pair_takes_frames_in_any_order_and_half_closes() -> None:
    client, server = memory_engagement_pair(request_id="r", peer="p")
    assert (server.request_id, server.peer) == ("r", "p")
    await client.send(Data(b"early"))
    await client.send(TRY)
    client.half_close()
    assert [await server.receive() for _ in range(3)] == [Data(b"early"), TRY, None]
    await server.send(Data(b"answer"))
    server.finish(503, "full")
    assert await client.receive() == Data(b"answer")
    with pytest.raises(EngagementFailed) as caught:
        await client.receive()
    assert caught.value.status == 503
