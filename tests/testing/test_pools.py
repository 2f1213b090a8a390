"""Every pool passes the same suite, and the suite finds pools that are wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from prometheus_client import CollectorRegistry

from hostler.abc import Outcome, Runner, RunnerCall, RunnerPool
from hostler.config import PoolConfig
from hostler.errors import NoRunnerReached
from hostler.pool import (
    PoolMetrics,
    RunnerAccess,
    open_dns_pool,
    open_dynamic_pool,
    open_static_pool,
)
from hostler.testing import (
    POOL_CHECKS,
    ContractBroken,
    FakePool,
    FakeRunner,
    PoolSubject,
    check_pool,
)
from tests.pool.dns_server import open_dns_server

ADDRESSES = ["127.0.0.1:1", "127.0.0.2:1"]


def _access() -> RunnerAccess:
    return RunnerAccess(factory=lambda address, name, pki: FakeRunner(address))


@asynccontextmanager
async def _static() -> AsyncIterator[RunnerPool]:
    async with open_static_pool(ADDRESSES, _access()) as pool:
        yield pool


@asynccontextmanager
async def _dynamic() -> AsyncIterator[RunnerPool]:
    metrics = PoolMetrics(CollectorRegistry())
    async with open_dynamic_pool(ADDRESSES, access=_access(), metrics=metrics) as pool:
        yield pool


@asynccontextmanager
async def _dns() -> AsyncIterator[RunnerPool]:
    metrics = PoolMetrics(CollectorRegistry())
    async with open_dns_server() as server:
        server.set("r.test", "A", [address.partition(":")[0] for address in ADDRESSES])
        config = PoolConfig(dns_server=server.address)
        async with open_dns_pool(
            ["dns://r.test:1"], config=config, access=_access(), metrics=metrics
        ) as pool:
            yield pool


@asynccontextmanager
async def _fake() -> AsyncIterator[RunnerPool]:
    yield FakePool([FakeRunner(address) for address in ADDRESSES])


@pytest.mark.parametrize("check", POOL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("opener", [_static, _dynamic, _dns, _fake])
async def test_pool(
    opener: Callable[[], AbstractAsyncContextManager[RunnerPool]],
    check: Callable[[PoolSubject], Awaitable[None]],
) -> None:
    async with opener() as pool:
        await check(PoolSubject(pool=pool, addresses=ADDRESSES))


class Forgetful(FakePool):
    async def runners(self, call: RunnerCall) -> Sequence[Runner]:
        return (await super().runners(call))[:1]


class Gloomy(FakePool):
    def check_reachable(self) -> None:
        raise NoRunnerReached


class Touchy(FakePool):
    def note_outcome(
        self, runner: Runner, call: RunnerCall, outcome: Outcome, seconds: float
    ) -> None:
        raise ValueError("not this outcome")


class Open(FakePool):
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Cancellable(FakePool):
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        await super().aclose()


@pytest.mark.parametrize(
    ("kind", "failures"),
    [
        (FakePool, {}),
        (Forgetful, {"gives_runners": "instead of", "hears_outcomes": "after all outcomes"}),
        (Gloomy, {"says_who_is_reachable": "check_reachable has raised"}),
        (Touchy, {"hears_outcomes": "note_outcome has raised ValueError"}),
        (Open, {"closes": "after its pool is closed", "closes_when_cancelled": "after its pool"}),
        (Cancellable, {"closes_when_cancelled": "after its pool is closed"}),
    ],
)
async def test_suite_finds_a_fault(kind: type[FakePool], failures: dict[str, str]) -> None:
    @asynccontextmanager
    async def open_subject() -> AsyncIterator[PoolSubject]:
        pool = kind([FakeRunner(address) for address in ADDRESSES])
        yield PoolSubject(pool=pool, addresses=ADDRESSES)

    found: dict[str, str] = {}
    try:
        await check_pool(open_subject)
    except ExceptionGroup as group:
        for error in group.exceptions:
            assert isinstance(error, ContractBroken)
            found[error.__notes__[0].removeprefix("in ")] = str(error)
    assert set(found) == set(failures)
    for name, text in failures.items():
        assert text in found[name]
