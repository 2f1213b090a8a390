"""A runner that goes away while it is sent a call: proof that it never looked at it arrives only
after the call was handed to the transport."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hostler.abc import NotPlaced
from hostler.pool import GrpcRunner, NaivePlacer
from hostler.protocol import (
    UNOBSERVED,
    AttemptObserver,
    ClientEngagement,
    Data,
    NotSent,
    RunnerFrame,
    TryCall,
)
from hostler.testing import FakePool, FakeRunner, MemoryRunnerClient, fake_call
from tests.support.observers import OnCommit

from .bench import PlayedService, answer


class LeavingEngagement(ClientEngagement):
    async def send(self, frame: Data) -> None: ...

    async def commit(self, first: Data | None) -> None: ...

    async def receive(self) -> RunnerFrame | None:
        raise NotSent("the stream was refused")


class LeavingClient(MemoryRunnerClient):
    """Takes the call, then refuses the stream as HTTP/2 lets a server do."""

    @asynccontextmanager
    async def engage(  # type: ignore[override]  # (another end of the same seam)
        self,
        try_call: TryCall,
        *,
        first: Data | None = None,
        request_id: str = "",
        deadline: float = math.inf,
        observer: AttemptObserver = UNOBSERVED,
    ) -> AsyncIterator[ClientEngagement]:
        observer.committed()
        yield LeavingEngagement()


def leaving_runner() -> GrpcRunner:
    return GrpcRunner(LeavingClient(PlayedService(answer()), address="leaving:1"))


async def test_weakness_01_6_a_refused_stream_is_not_placed() -> None:
    commits: list[bool] = []
    outcome = await leaving_runner().try_exec(fake_call(), OnCommit(lambda: commits.append(True)))
    assert commits == [True]
    assert isinstance(outcome, NotPlaced)
    assert isinstance(outcome.reason, NotSent)


async def test_weakness_01_6_the_call_goes_to_the_next_runner() -> None:
    healthy = FakeRunner("healthy:1")
    pool = FakePool([leaving_runner(), healthy])
    for _ in range(8):  # wherever the sweep starts
        await NaivePlacer().place_call(pool, fake_call())
    assert len(healthy.attempts) == 8
