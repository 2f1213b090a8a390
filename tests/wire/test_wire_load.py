"""Watching a runner's load over the wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest
import trio

from hostler.protocol import EngagementFailed, GRPCStatus, LoadHint

from .foreign_health import theirs
from .leaks import settle
from .services import Service, hear, open_pair

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

    async def watch_load(self) -> AsyncGenerator[LoadHint, None]:
        self.watchers += 1
        try:
            for hint in HINTS:
                yield hint
            await self.end()
        finally:
            self.watchers -= 1


async def test_hints_are_told_and_leaving_ends_the_stream_at_both_ends() -> None:
    service = Telling()
    async with open_pair(service) as pair:
        async with aclosing(pair.client.watch_load()) as hints:
            assert [await anext(hints) for _ in HINTS] == HINTS
            assert service.watchers == 1
        assert pair.client.statistics().streams == 0
        await settle(lambda: service.watchers, 0)


async def test_a_runner_that_does_not_tell_is_no_error() -> None:
    async with open_pair(Service()) as pair:
        assert [hint async for hint in pair.client.watch_load()] == []


async def test_a_server_of_others_without_the_service_is_no_error() -> None:
    async with theirs() as (_, client):
        assert [hint async for hint in client.watch_load()] == []


@pytest.mark.parametrize("status", [None, 14, 8])
async def test_a_watch_that_ends_says_why(status: int | None) -> None:
    async def end() -> None:
        await trio.lowlevel.checkpoint()
        if status is not None:
            raise GRPCStatus(status, "so it is")

    told: list[LoadHint] = []
    async with open_pair(Telling(end)) as pair:
        with pytest.raises(EngagementFailed) as failure:
            await hear(pair.client.watch_load(), told)
    assert told == HINTS
    assert failure.value.status == (14 if status is None else status)
