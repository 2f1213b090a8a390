"""Every runner passes the same suite, and the suite finds runners that are wrong."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.abc import Outcome, Placed, Runner, RunnerCall
from hostler.agent import open_agent
from hostler.calls import PendingCall
from hostler.config import AgentConfig
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.errors import FunctionFailed
from hostler.pool import GrpcRunner
from hostler.protocol import UNOBSERVED, AttemptObserver, RunnerClient, RunnerService, RunnerStatus
from hostler.runner import open_runner_service
from hostler.testing import (
    RUNNER_CHECKS,
    ContractBroken,
    FakeAttempt,
    FakeRunner,
    RunnerSubject,
    check_runner,
    fake_call,
)

from .services import OPENERS


def _call() -> PendingCall:
    return fake_call(image="work", memory=128, timeout=30, idle_timeout=30)


async def _work(request: SimRequest) -> SimResponse:
    await trio.lowlevel.checkpoint()
    return SimResponse()


@pytest.mark.parametrize("check", RUNNER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("way", OPENERS)
async def test_grpc_runner(
    tmp_path: Path, way: str, check: Callable[[RunnerSubject], Awaitable[None]]
) -> None:
    open_client: Callable[[RunnerService], AbstractAsyncContextManager[RunnerClient]] = OPENERS[way]
    config = AgentConfig(iofs_path=str(tmp_path), enable_nb_resource_tracker=True)
    async with open_sim_driver() as driver:
        driver.add_image("work", _work)
        async with (
            open_agent(driver, config=config) as agent,
            open_runner_service(agent) as service,
            open_client(service) as client,
        ):
            runner = GrpcRunner(client)
            try:
                await check(RunnerSubject(runner=runner, new_call=_call))
            finally:
                await runner.aclose()


@pytest.mark.parametrize("reserves", [False, True])
@pytest.mark.parametrize("check", RUNNER_CHECKS, ids=lambda check: check.__name__)
async def test_fake_runner(
    check: Callable[[RunnerSubject], Awaitable[None]], reserves: bool
) -> None:
    await check(RunnerSubject(runner=FakeRunner(reserves=reserves), new_call=_call))


class Moving(FakeRunner):
    @property
    def address(self) -> str:
        return f"fake:{len(self.attempts)}"


class Failing(FakeRunner):
    def __init__(self) -> None:
        super().__init__(otherwise=FakeAttempt(outcome=Placed(FunctionFailed())))


class Silent(FakeRunner):
    async def try_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Outcome:
        return await super().try_exec(call)


class Greedy(FakeRunner):
    async def try_reserve(
        self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED
    ) -> Outcome:
        return await self.try_exec(call, observer)


class Stubborn(FakeRunner):
    async def try_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Outcome:
        with trio.CancelScope(shield=True):
            outcome = await super().try_exec(call, observer)
        return outcome  # noqa: RET504  (for mypy the scope may swallow what is raised)


class Strange(FakeRunner):
    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        return None  # type: ignore[return-value]


class Watched(FakeRunner):
    async def watch_health(self) -> AsyncGenerator[bool, None]:
        await trio.lowlevel.checkpoint()
        yield "well"  # type: ignore[misc]


class Open(FakeRunner):
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Cancellable(FakeRunner):
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        await super().aclose()


@pytest.mark.parametrize(
    ("kind", "check", "text"),
    [
        (Moving, "has_an_address", "has changed from"),
        (Failing, "runs_calls", "the call has failed"),
        (Silent, "runs_calls", "committed was told 0 times"),
        (Greedy, "reserves_slots", "claim was asked 0 times"),
        (Greedy, "gives_slots_back", "unclaimed reservation"),
        (Stubborn, "can_be_cancelled", "turned a cancellation into an outcome"),
        (Strange, "tells_its_status", "the status is None"),
        (Watched, "can_be_watched", "watch_health yields 'well'"),
        (Open, "closes", "has taken a call"),
        (Cancellable, "closes_when_cancelled", "has taken a call"),
    ],
)
async def test_suite_finds_a_fault(kind: Callable[[], Runner], check: str, text: str) -> None:
    @asynccontextmanager
    async def open_subject() -> AsyncIterator[RunnerSubject]:
        yield RunnerSubject(runner=kind(), new_call=_call)

    with pytest.raises(ExceptionGroup) as caught:
        await check_runner(open_subject)
    errors = {note.removeprefix("in "): e for e in caught.value.exceptions for note in e.__notes__}
    assert isinstance(errors[check], ContractBroken)
    assert text in str(errors[check])
