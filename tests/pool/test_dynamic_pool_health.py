"""What a dynamic pool makes of its runners' behaviour: ejected, found again, told by themselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler.abc import NotPlaced, Outcome, PKIData, Placed, Placer, Runner
from hostler.config import PlacerConfig
from hostler.errors import (
    APIError,
    FunctionError,
    HostlerError,
    NoRunnerReached,
    RunnerClosed,
    ServerBusy,
)
from hostler.pool import (
    PLACERS,
    PoolMetrics,
    RunnerFault,
)
from hostler.protocol import EngagementFailed, LoadHint
from tests.conftest import Logs

from .fakes import make_call
from .fleet import Fleet, Host, attempt, offered, opened, tell


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  (virtual time)
        await trio.sleep(0.01)


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


@pytest.mark.parametrize(("attempts", "waited"), [(1, False), (0, True)])
async def test_a_call_that_was_refused_or_waits_may_go_to_one_that_is_just_back(
    autojump_clock: MockClock, attempts: int, *, waited: bool
) -> None:
    fleet = Fleet()
    async with opened(fleet, "a:1", "b:1") as pool:
        fleet.hosts["a:1"].change(up=False)
        await attempt(pool, "a:1", 3)
        fleet.hosts["a:1"].change(up=True)
        await trio.sleep(0.1)
        for _ in range(100):
            assert "a:1" in await offered(pool, attempts, waited=waited)


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
        await attempt(pool, "a:1", 3, limit=patience)
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
            fleet.hosts[address].seconds = seconds
            for _ in range(count):
                call = make_call()
                call.timings.execution_ns = round(execution * 1e9)
                await tell(pool, call, address)

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


async def test_trouble_of_a_kind_of_its_own_ends_nothing(autojump_clock: MockClock) -> None:
    """A runner of the embedding program may raise any `HostlerError` where it can't be told."""

    class Own(Host):
        async def watch_health(self) -> AsyncGenerator[bool, None]:
            if self.outcome is not None:
                raise HostlerError("the line is cut")
            async with aclosing(super().watch_health()) as words:
                async for serving in words:
                    yield serving

        async def watch_load(self) -> AsyncGenerator[LoadHint, None]:
            await trio.lowlevel.checkpoint()
            if self.outcome is not None:
                raise HostlerError("the line is cut")
            return
            yield

    class OwnFleet(Fleet):
        def __call__(self, address: str, name: str, pki: PKIData | None) -> Runner:
            host = self.hosts[address] = Own(address, tells=True)
            host.change(up=address != "a:1")
            return host

    fleet = OwnFleet()
    async with opened(fleet, "a:1", "b:1") as pool:
        await trio.sleep(5)
        assert await offered(pool) == ["b:1"]
        fleet.hosts["a:1"].change(up=True)
        await trio.sleep(5)
        assert await offered(pool) == ["a:1", "b:1"]


@pytest.mark.parametrize("tells", [True, False])
async def test_a_pool_without_a_runner_that_can_be_reached_says_so_and_recovers(
    autojump_clock: MockClock, logs: Logs, *, tells: bool
) -> None:
    fleet = Fleet(tells=tells)
    async with opened(fleet, "a:1", "b:1") as pool:
        await wait_all_tasks_blocked()
        for host in fleet.hosts.values():
            host.change(up=False)
        for address in ("a:1", "b:1"):
            await attempt(pool, address, 3)
        lost = trio.current_time()
        assert {health.address: health.state for health in pool.health()} == {
            "a:1": "ejected",
            "b:1": "unreachable",
        }
        await trio.sleep(9.9)
        assert await offered(pool) == ["b:1"]
        pool.check_reachable()
        await trio.sleep(0.2)
        with pytest.raises(NoRunnerReached, match="no runner can be reached"):
            await pool.runners(make_call())
        fleet.hosts["b:1"].change(up=True)
        with trio.fail_after(1):
            await until(lambda: [each.state for each in pool.health()] == ["ejected", "in use"])
        assert await offered(pool) == ["b:1"]
        assert trio.current_time() - lost < 12
    assert [entry["runner"] for entry in logs.with_event("runner is reachable again")] == ["b:1"]


async def test_a_pool_whose_runner_answers_now_and_then_is_no_pool_without_runners(
    autojump_clock: MockClock,
) -> None:
    fleet = Fleet()
    async with opened(fleet, "a:1") as pool:
        fleet.hosts["a:1"].change(up=False)
        await attempt(pool, "a:1", 2)
        await trio.sleep(3600)
        await attempt(pool, "a:1")  # the third in a row: from now on it is unreachable
        assert pool.health()[0].state == "unreachable"
        pool.check_reachable()
        await trio.sleep(11)
        with pytest.raises(NoRunnerReached):
            pool.check_reachable()
        pool.update(["a:1", "new:1"])
        pool.check_reachable()
        pool.update([])
        pool.check_reachable()


async def test_calls_that_wait_fail_together_when_no_runner_was_reached_for_long(
    autojump_clock: MockClock,
) -> None:
    fleet = Fleet()
    errors: list[Exception] = []

    async def place(placer: Placer) -> None:
        try:
            await placer.place_call(pool, make_call())
        except ServerBusy as error:
            errors.append(error)

    async with opened(fleet, "a:1") as pool:
        fleet.hosts["a:1"].change(up=False)
        start = trio.current_time()
        placer = PLACERS["warm"](PlacerConfig())
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(place, placer)
        assert len(errors) == 20
        assert all(isinstance(error, NoRunnerReached) for error in errors)
        assert 10 <= trio.current_time() - start <= 11
        late = trio.current_time()
        await place(placer)
        assert trio.current_time() == late
        # A restart within the time is survived.
        fleet.hosts["a:1"].change(up=True)
        await until(lambda: pool.health()[0].state == "in use")
        fleet.hosts["a:1"].change(up=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place, placer)
            await trio.sleep(9)
            fleet.hosts["a:1"].change(up=True)
        assert len(errors) == 21
