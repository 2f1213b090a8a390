"""Watching a runner's load over the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from hostler.protocol import EngagementFailed, GRPCStatus, LoadHint

from .foreign_health import theirs
from .leaks import settle
from .services import Service, open_pair

HINTS = [
    LoadHint(active=3, free_memory=2**40, reclaimable_memory=5, warm={b"a": 2}, complete=True),
    LoadHint(complete=True),
    LoadHint(free_cpus=0, reclaimable_cpus=1500),
]


class Telling(Service):
    """Sends `HINTS`, then ends as ``end`` does."""

    def __init__(self, end: Callable[[], Awaitable[None]] = trio.sleep_forever) -> None:
        super().__init__()
        self.end = end
        self.watchers = 0

    async def watch_load(self, send: Callable[[LoadHint], Awaitable[None]]) -> None:
        self.watchers += 1
        try:
            for hint in HINTS:
                await send(hint)
            await self.end()
        finally:
            self.watchers -= 1


async def test_hints_are_told_and_leaving_ends_the_stream_at_both_ends() -> None:
    service = Telling()
    async with open_pair(service) as pair:
        told, heard = trio.open_memory_channel[LoadHint](10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.client.watch_load, told.send_nowait)
            assert [await heard.receive() for _ in HINTS] == HINTS
            assert service.watchers == 1
            nursery.cancel_scope.cancel()
        assert pair.client.statistics().streams == 0
        await settle(lambda: service.watchers, 0)


async def test_a_runner_that_does_not_tell_is_no_error() -> None:
    async with open_pair(Service()) as pair:
        await pair.client.watch_load(lambda hint: pytest.fail("told"))


async def test_a_server_of_others_without_the_service_is_no_error() -> None:
    async with theirs() as (_, client):
        await client.watch_load(lambda hint: pytest.fail("told"))


@pytest.mark.parametrize("status", [None, 14, 8])
async def test_a_watch_that_ends_says_why(status: int | None) -> None:
    async def end() -> None:
        await trio.lowlevel.checkpoint()
        if status is not None:
            raise GRPCStatus(status, "so it is")

    told: list[LoadHint] = []
    async with open_pair(Telling(end)) as pair:
        with pytest.raises(EngagementFailed) as failure:
            await pair.client.watch_load(told.append)
    assert told == HINTS
    assert failure.value.status == (14 if status is None else status)
