"""Pools that change while they are in use, and what they make of their runners' behaviour."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler.abc import NotPlaced, Outcome, PKIData, Placed, Runner, RunnerCall
from hostler.config import PoolConfig
from hostler.engagement import EngagementFailed, NotSent
from hostler.errors import APIError, ConfigError, FunctionError, RunnerClosed, ServerBusy
from hostler.frames import RunnerStatus
from hostler.pool import (
    ConsistentHashPlacer,
    DynamicPool,
    NaivePlacer,
    PoolMetrics,
    RunnerFault,
    open_dynamic_pool,
)
from hostler.pool._static import keepalive_of
from tests.conftest import Logs
from tests.wire.leaks import trio_tasks

from .fakes import FakeRunner, fresh_metrics, make_call

DOWN = NotPlaced(NotSent("refused"))


class Host(FakeRunner):
    """A runner whose machine a test can break; it can tell how it is if it ``tells``."""

    def __init__(self, address: str, *, tells: bool = False, **options: Any) -> None:
        super().__init__(address, **options)
        self.outcome: Outcome | None = None
        """What attempts get at once, instead of running."""
        self.tells = tells
        self.serving = True
        self.probes: list[float] = []
        self.changed = trio.Event()
        self.gone = trio.Event()
        self.stuck = False

    def change(self, *, serving: bool | None = None, up: bool | None = None) -> None:
        if serving is not None:
            self.serving = serving
        if up is not None:
            self.outcome = None if up else DOWN
        self.changed.set()
        self.changed = trio.Event()

    async def try_exec(
        self, call: RunnerCall, *, on_commit: Callable[[], None] = lambda: None
    ) -> Outcome:
        if self.stuck:
            await trio.sleep_forever()
        if self.outcome is not None:
            self.attempts[call.model.id] += 1
            await trio.lowlevel.checkpoint()
            return self.outcome
        return await super().try_exec(call, on_commit=on_commit)

    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        self.probes.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.outcome is not None:
            raise NotSent("refused")
        return RunnerStatus()

    async def watch_health(self, tell: Callable[[bool], None]) -> None:
        await trio.lowlevel.checkpoint()
        while self.tells:
            if self.outcome is not None:
                raise EngagementFailed(14, "connection closed")
            tell(self.serving)
            await self.changed.wait()

    async def aclose(self) -> None:
        try:
            while self.active:  # noqa: ASYNC110  (virtual time)
                await trio.sleep(0.1)
        finally:
            self.gone.set()
            self.closed += 1


class Fleet:
    """Makes hosts, and remembers them."""

    def __init__(self, **options: Any) -> None:
        self.hosts: dict[str, Host] = {}
        self.made: list[tuple[str, str]] = []
        self.options = options

    def __call__(self, address: str, name: str, pki: PKIData | None) -> Runner:
        if not address:
            raise ConfigError("runner address ''")
        self.made.append((address, name))
        host = self.hosts[address] = Host(address, **self.options)
        return host


@asynccontextmanager
async def opened(
    fleet: Fleet, *addresses: str, metrics: PoolMetrics | None = None, **config: Any
) -> AsyncIterator[DynamicPool]:
    """A pool on virtual time that leaves no task behind."""
    before = trio_tasks()
    async with open_dynamic_pool(
        addresses,
        config=PoolConfig(**config),
        factory=fleet,
        metrics=metrics or PoolMetrics(CollectorRegistry()),
        rng=random.Random(1),
    ) as pool:
        yield pool
    assert trio_tasks() == before
    assert pool.statistics().leaving == 0
    assert all(host.closed == 1 for host in fleet.hosts.values())


async def offered(pool: DynamicPool, attempts: int = 1) -> list[str]:
    """What the pool offers to a call that was refused before, hence without slow start."""
    call = make_call()
    call.attempts = attempts
    return [runner.address for runner in await pool.runners(call)]


async def attempt(pool: DynamicPool, address: str, count: int = 1) -> list[Outcome]:
    """Attempts at one runner of the pool."""
    call = make_call()
    runner = next(r for r in pool._offer if r.address == address)
    return [await runner.try_exec(call) for _ in range(count)]


async def test_runners_come_go_and_stay(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    metrics = PoolMetrics(CollectorRegistry())
    async with opened(fleet, "a:1", "b:1", metrics=metrics) as pool:
        before = {runner.address: runner for runner in await pool.runners(make_call())}
        gone = fleet.hosts["a:1"].gone
        pool.update(["c:1", "b:1"])
        after = {runner.address: runner for runner in await pool.runners(make_call())}
        assert list(after) == ["c:1", "b:1"]
        assert after["b:1"] is before["b:1"]
        await gone.wait()
        await wait_all_tasks_blocked()
        assert fleet.made == [("a:1", ""), ("b:1", ""), ("c:1", "")]
        assert (metrics.runners.value, metrics.joined.value, metrics.left.value) == (2, 3, 1)
    assert (metrics.runners.value, metrics.left.value, metrics.leaving.value) == (0, 3, 0)


async def test_a_runner_that_leaves_finishes_its_calls(autojump_clock: MockClock) -> None:
    fleet = Fleet(seconds=100)
    async with opened(fleet, "a:1") as pool, trio.open_nursery() as nursery:
        placer = NaivePlacer(metrics=fresh_metrics())
        nursery.start_soon(placer.place_call, pool, make_call())
        await trio.sleep(1)
        pool.update(["b:1"])
        await trio.sleep(1)
        assert pool.statistics().leaving == 1
        await fleet.hosts["a:1"].gone.wait()
        assert trio.current_time() == pytest.approx(100, abs=1)
        await wait_all_tasks_blocked()
        assert repr(pool) == (
            "<DynamicPool open DynamicPoolStatistics(runners=1, ejected=0, leaving=0)>"
        )


async def test_leaving_has_an_end(autojump_clock: MockClock, logs: Logs) -> None:
    fleet = Fleet(seconds=100)
    async with opened(fleet, "a:1", leave_grace=10.0) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(attempt, pool, "a:1")
        await trio.sleep(0.01)
        pool.update(["b:1"])
        await fleet.hosts["a:1"].gone.wait()
        assert trio.current_time() == pytest.approx(10, abs=0.1)
        await wait_all_tasks_blocked()
        assert logs.with_event("runner that left was cut off")[0]["runner"] == "a:1"
        nursery.cancel_scope.cancel()


async def test_one_that_comes_back_while_it_leaves_is_new(autojump_clock: MockClock) -> None:
    fleet = Fleet(seconds=5)
    async with opened(fleet, "a:1") as pool, trio.open_nursery() as nursery:
        nursery.start_soon(attempt, pool, "a:1")
        await trio.sleep(0.01)
        old = fleet.hosts["a:1"]
        pool.update([])
        assert await offered(pool) == []
        pool.update(["a:1"])
        assert fleet.hosts["a:1"] is not old
        assert (await attempt(pool, "a:1")) == [Placed()]
        await old.gone.wait()


async def test_a_bad_address_changes_nothing(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    async with opened(fleet, "a:1") as pool:
        with pytest.raises(ConfigError):
            pool.update(["b:1", ""])
        assert pool.addresses == ("a:1",)
        del fleet.hosts["b:1"]  # made, and never used


async def test_a_closed_pool_stays_empty(autojump_clock: MockClock) -> None:
    async with opened(Fleet(), "a:1") as pool:
        await pool.aclose()
        await pool.aclose()
        pool.update(["b:1"])
        assert await offered(pool) == []


async def test_closing_is_bounded_by_the_callers_deadline(autojump_clock: MockClock) -> None:
    fleet = Fleet(seconds=100)
    async with opened(fleet, "a:1", "b:1") as pool, trio.open_nursery() as nursery:
        nursery.start_soon(attempt, pool, "a:1")
        await trio.sleep(0.01)
        pool.update(["b:1"])
        with trio.move_on_after(3) as scope:
            await pool.aclose()
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(3, abs=0.1)
        assert fleet.hosts["a:1"].closed == fleet.hosts["b:1"].closed == 1
        nursery.cancel_scope.cancel()


async def test_an_exception_of_the_block_has_no_grace(autojump_clock: MockClock) -> None:
    fleet = Fleet(seconds=100)
    with pytest.raises(ValueError, match="mine"):
        async with open_dynamic_pool(
            ["a:1"], factory=fleet, metrics=PoolMetrics(CollectorRegistry())
        ):
            raise ValueError("mine")
    assert trio.current_time() == 0
    assert fleet.hosts["a:1"].closed == 1


async def test_a_runner_that_cannot_be_reached_is_ejected_and_found_again(
    autojump_clock: MockClock, logs: Logs
) -> None:
    fleet = Fleet()
    metrics = PoolMetrics(CollectorRegistry())
    async with opened(fleet, "a:1", "b:1", "c:1", metrics=metrics) as pool:
        host = fleet.hosts["a:1"]
        host.change(up=False)
        await attempt(pool, "a:1", 2)
        assert await offered(pool) == ["a:1", "b:1", "c:1"]
        await attempt(pool, "a:1")
        assert await offered(pool) == ["b:1", "c:1"]
        assert (metrics.ejected.value, metrics.ejections["unreachable"].value) == (1, 1)
        await trio.sleep(600)
        assert await offered(pool) == ["b:1", "c:1"]
        pauses = [b - a for a, b in zip(host.probes, host.probes[1:], strict=False)]
        assert 0.04 <= pauses[0] <= 0.06
        assert all(0.4 <= pause <= 0.6 for pause in pauses[10:])
        host.change(up=True)
        back = trio.current_time()
        with trio.fail_after(1):
            while "a:1" not in await offered(pool):  # noqa: ASYNC110  (virtual time)
                await trio.sleep(0.01)
        assert trio.current_time() - back <= 0.61
        assert metrics.ejected.value == 0
        count = len(host.probes)
        await trio.sleep(60)
        assert len(host.probes) == count
    assert [entry["cause"] for entry in logs.with_event("runner ejected")] == ["unreachable"]
    assert logs.with_event("runner ejected")[0]["reason"] == "refused"
    assert logs.with_event("runner is in use again")[0]["runner"] == "a:1"


async def test_one_that_is_back_gets_a_growing_share(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    async with opened(fleet, "a:1", "b:1", slow_start=10.0) as pool:
        fleet.hosts["a:1"].change(up=False)
        await attempt(pool, "a:1", 3)
        fleet.hosts["a:1"].change(up=True)
        await trio.sleep(0.1)
        shares = []
        for _ in range(12):
            lists = [await offered(pool, attempts=0) for _ in range(300)]
            shares.append(sum("a:1" in names for names in lists) / 300)
            await trio.sleep(1)
        assert 0.03 < shares[0] < 0.2
        assert 0.4 < shares[5] < 0.7
        assert shares[10:] == [1, 1]
        assert all("b:1" in names for names in lists)


async def test_a_call_that_was_refused_may_go_to_one_that_is_just_back(
    autojump_clock: MockClock,
) -> None:
    fleet = Fleet()
    async with opened(fleet, "a:1", "b:1") as pool:
        fleet.hosts["a:1"].change(up=False)
        await attempt(pool, "a:1", 3)
        fleet.hosts["a:1"].change(up=True)
        await trio.sleep(0.1)
        assert all(["a:1" in await offered(pool, attempts=1) for _ in range(100)])


async def test_only_ejected_and_refusing_runners_are_better_than_none(
    autojump_clock: MockClock,
) -> None:
    fleet = Fleet(tells=True)
    async with opened(fleet, "a:1", "b:1", "c:1", "d:1") as pool:
        await wait_all_tasks_blocked()
        for address in ("a:1", "b:1"):
            fleet.hosts[address].tells = False
            fleet.hosts[address].change(up=False)
            await attempt(pool, address, 3)
        assert await offered(pool) == ["c:1", "d:1"]
        for address in ("c:1", "d:1"):
            fleet.hosts[address].change(serving=False)
        await wait_all_tasks_blocked()
        assert await offered(pool) == ["a:1", "b:1"]


@pytest.mark.parametrize(
    "outcome",
    [
        NotPlaced(ServerBusy()),
        NotPlaced(RunnerClosed()),
        Placed(FunctionError()),
        Placed(ServerBusy()),
        Placed(APIError(400, "too big")),
        Placed(ValueError("the client's body")),
        Placed(EngagementFailed(1, "cancelled")),
        Placed(EngagementFailed(4, "deadline")),
        Placed(),
    ],
    ids=repr,
)
async def test_what_is_not_the_runners_fault_never_counts(
    autojump_clock: MockClock, outcome: Outcome
) -> None:
    fleet = Fleet()
    async with opened(fleet, "a:1", "b:1", eject_failures=1, eject_faults=1) as pool:
        fleet.hosts["a:1"].outcome = outcome
        assert await attempt(pool, "a:1", 100) == [outcome] * 100
        assert await offered(pool) == ["a:1", "b:1"]
        fleet.hosts["a:1"].outcome = None


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (Placed(EngagementFailed(14, "connection lost")), "unreachable"),
        (Placed(EngagementFailed(13, "internal")), "faulty"),
        (Placed(RunnerFault("code 0: driver trouble")), "faulty"),
        (Placed(APIError()), "faulty"),
    ],
    ids=repr,
)
async def test_what_is_the_runners_fault(
    autojump_clock: MockClock, logs: Logs, outcome: Outcome, cause: str
) -> None:
    fleet = Fleet()
    async with opened(fleet, "a:1", "b:1", eject_faults=3) as pool:
        fleet.hosts["a:1"].outcome = outcome
        await attempt(pool, "a:1", 3)
        assert await offered(pool) == ["b:1"]
        assert logs.with_event("runner ejected")[0]["cause"] == cause
        fleet.hosts["a:1"].outcome = None


async def test_a_fault_ends_after_its_time(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    async with opened(fleet, "a:1", "b:1", eject_faults=1, eject_interval=10.0) as pool:
        fleet.hosts["a:1"].outcome = Placed(APIError())
        await attempt(pool, "a:1")
        await trio.sleep(9.9)
        assert await offered(pool) == ["b:1"]
        await trio.sleep(0.2)
        assert await offered(pool) == ["a:1", "b:1"]
        fleet.hosts["a:1"].outcome = None


@pytest.mark.parametrize(("patience", "ejected"), [(2.0, True), (0.1, False)])
async def test_one_that_does_not_take_calls_in_time(
    autojump_clock: MockClock, patience: float, ejected: bool
) -> None:
    """The haste of a client says nothing."""
    fleet = Fleet()
    async with opened(fleet, "a:1", "b:1") as pool:
        fleet.hosts["a:1"].stuck = True
        for _ in range(3):
            with trio.move_on_after(patience):
                await attempt(pool, "a:1")
        assert ("a:1" not in await offered(pool)) is ejected
        fleet.hosts["a:1"].stuck = False


async def test_a_client_that_leaves_says_nothing(autojump_clock: MockClock) -> None:
    fleet = Fleet()
    async with opened(fleet, "a:1", "b:1", eject_failures=1) as pool:
        fleet.hosts["a:1"].stuck = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, pool, "a:1")
            await trio.sleep(100)
            nursery.cancel_scope.cancel()
        assert await offered(pool) == ["a:1", "b:1"]


async def test_a_slow_runner(autojump_clock: MockClock, logs: Logs) -> None:
    """Slow outside of the function, that is."""
    fleet = Fleet()
    async with opened(fleet, "a:1", "b:1", "c:1", eject_interval=1000.0) as pool:

        async def take(address: str, count: int, seconds: float, execution: float) -> None:
            runner = next(r for r in pool._offer if r.address == address)
            fleet.hosts[address].seconds = seconds
            for _ in range(count):
                call = make_call()
                call.timings.execution_ns = round(execution * 1e9)
                await runner.try_exec(call)

        async def all_take(execution: float) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take, "a:1", 50, 1.4, execution)
                nursery.start_soon(take, "b:1", 140, 0.5, 0.49)
                nursery.start_soon(take, "c:1", 75, 0.9, 0.88)

        await all_take(1.35)
        assert "a:1" in await offered(pool)
        await all_take(0.1)
        assert await offered(pool) == ["b:1", "c:1"]
        assert logs.with_event("runner ejected")[0]["cause"] == "slow"


async def test_its_own_word(autojump_clock: MockClock, logs: Logs) -> None:
    fleet = Fleet(tells=True)
    metrics = PoolMetrics(CollectorRegistry())
    async with opened(fleet, "a:1", "b:1", metrics=metrics) as pool:
        await wait_all_tasks_blocked()
        fleet.hosts["a:1"].change(serving=False)
        await wait_all_tasks_blocked()
        assert await offered(pool) == ["b:1"]
        fleet.hosts["a:1"].change(serving=True)
        await wait_all_tasks_blocked()
        assert await offered(pool) == ["a:1", "b:1"]
        assert (metrics.refusals.value, metrics.returns.value) == (1, 1)
    assert len(logs.with_event("runner takes no calls")) == 1


async def test_a_runner_that_restarts_without_any_traffic(autojump_clock: MockClock) -> None:
    fleet = Fleet(tells=True)
    async with opened(fleet, "a:1", "b:1") as pool:
        await wait_all_tasks_blocked()
        host = fleet.hosts["a:1"]
        host.change(serving=False)
        await wait_all_tasks_blocked()
        host.change(up=False)
        await trio.sleep(1)
        assert await offered(pool) == ["b:1"]
        host.serving = True
        host.change(up=True)
        await trio.sleep(0.6)
        assert await offered(pool) == ["a:1", "b:1"]


async def test_a_last_word_is_forgotten_when_it_cannot_be_renewed(
    autojump_clock: MockClock,
) -> None:
    """The runner was replaced by one that does not know the health service."""
    fleet = Fleet(tells=True)
    async with opened(fleet, "a:1", "b:1") as pool:
        await wait_all_tasks_blocked()
        host = fleet.hosts["a:1"]
        host.change(serving=False)
        await wait_all_tasks_blocked()
        host.tells = False
        host.change()
        await wait_all_tasks_blocked()
        assert await offered(pool) == ["a:1", "b:1"]


async def test_without_watching(autojump_clock: MockClock) -> None:
    fleet = Fleet(tells=True)
    async with opened(fleet, "a:1", "b:1", health_watch=False) as pool:
        await wait_all_tasks_blocked()
        fleet.hosts["a:1"].change(serving=False)
        await wait_all_tasks_blocked()
        assert await offered(pool) == ["a:1", "b:1"]


async def test_an_ejection_moves_only_the_functions_of_that_runner(
    autojump_clock: MockClock,
) -> None:
    fleet = Fleet(seconds=0.01, slots=1000)
    async with opened(fleet, *(f"r{number}:1" for number in range(5))) as pool:
        placer = ConsistentHashPlacer(metrics=fresh_metrics())

        async def homes() -> dict[str, str]:
            calls = [make_call(f"c{number}", fn_id=f"fn{number}") for number in range(100)]
            for call in calls:
                await placer.place_call(pool, call)
            return {call.model.fn_id: call.runner_address for call in calls}

        before = await homes()
        fleet.hosts["r2:1"].change(up=False)
        during = await homes()
        assert pool.statistics().ejected == 1
        moved = {fn for fn in before if before[fn] != during[fn]}
        assert moved == {fn for fn in before if before[fn] == "r2:1"}
        assert len({during[fn] for fn in moved}) > 1
        fleet.hosts["r2:1"].change(up=True)
        await trio.sleep(10)
        assert await homes() == before


async def test_churn_under_load_loses_no_call(autojump_clock: MockClock) -> None:
    rng = random.Random(7)
    names = [f"r{number}:1" for number in range(8)]
    fleet = Fleet(seconds=0.5, slots=50, tells=True)
    async with opened(fleet, *names) as pool:
        placer = NaivePlacer(metrics=fresh_metrics(), rng=rng)
        calls = [make_call(f"c{number}") for number in range(1000)]
        async with trio.open_nursery() as nursery:
            for number, call in enumerate(calls):
                nursery.start_soon(placer.place_call, pool, call)
                await trio.sleep(0.01)
                if number % 20 == 0:
                    pool.update(rng.sample(names, rng.randint(1, 8)))
        assert all(call.runner_address for call in calls)
        assert not any(host.outcome for host in fleet.hosts.values())


def test_intervals_of_the_config_reach_the_wire() -> None:
    keepalive = keepalive_of(
        PoolConfig(keepalive_interval=1.0, keepalive_timeout=2.0, vanished_timeout=3.0)
    )
    assert (keepalive.interval, keepalive.timeout, keepalive.vanished) == (1, 2, 3)
