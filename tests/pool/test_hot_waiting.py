"""Calls that wait a moment for a hot container of their own instead of having one started."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler.abc import NotPlaced, Outcome, RunnerCall
from hostler.calls import PendingCall
from hostler.errors import ServerBusy
from hostler.pool import NaivePlacer, SweepPlacer, WarmPlacer
from hostler.pool.placer import need_of
from hostler.pool.waiting_room import OVERTAKE_SECONDS
from hostler.protocol import UNOBSERVED, AttemptObserver
from tests.support.simulated_runner import COLD_SECONDS, SimRunner

from .fakes import FakePool, FakeRunner, make_call
from .placers import is_idle, make, occupy


def sim_call(fn_id: str, seconds: float) -> PendingCall:
    call = make_call(fn_id=fn_id)
    call.extensions["seconds"] = repr(seconds)
    return call


class TellingRunner(SimRunner):
    """Calls ``at_end`` when a call has ended here, before the placer hears of it."""

    at_end: Callable[[], None] = staticmethod(lambda: None)

    async def try_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Outcome:
        outcome = await super().try_exec(call, observer)
        self.at_end()
        return outcome


class Fleet:
    """Simulated runners with room for ``containers`` each, and a placer that knows that a call
    of function "a" takes 0.1 s, and which of its containers is hot."""

    def __init__(self, kind: type[SweepPlacer] = WarmPlacer, *, runners: int = 1, containers: int):
        self.runners = [TellingRunner(f"r{n}:1", 128 * containers) for n in range(runners)]
        self.pool = FakePool(self.runners)
        self.placer = make(kind)

    @property
    def cold(self) -> int:
        return sum(runner.cold for runner in self.runners)

    async def place(self, fn_id: str, seconds: float) -> float:
        """Seconds that the call took beside running."""
        began = trio.current_time()
        await self.placer.place_call(self.pool, sim_call(fn_id, seconds))
        return trio.current_time() - began - seconds

    async def learn(self) -> None:
        await self.place("a", 0.1)


async def test_short_calls_wait_for_their_busy_container(autojump_clock: MockClock) -> None:
    fleet, waits = Fleet(runners=2, containers=4), list[float]()
    await fleet.learn()

    async def call() -> None:
        waits.append(await fleet.place("a", 0.1))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
        assert fleet.placer.statistics().waiting == 2
    assert fleet.cold == 1
    assert sorted(waits) == pytest.approx([0, 0.1, 0.2], abs=0.01)
    assert is_idle(fleet.placer)


async def test_in_a_drain_calls_wait_on_for_their_busy_container(
    autojump_clock: MockClock,
) -> None:
    """Those that had been accepted before, and those that come on connections that are kept."""
    fleet, waits = Fleet(containers=4), list[float]()
    await fleet.learn()

    async def call() -> None:
        waits.append(await fleet.place("a", 0.1))

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
        fleet.placer.stop_waiting()
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        assert fleet.placer.statistics().waiting == 2
    assert sorted(waits) == pytest.approx([0, 0.1, 0.2], abs=0.01)
    assert fleet.cold == 1
    assert is_idle(fleet.placer)


async def test_in_a_drain_calls_of_a_full_runner_wait_on_for_their_own_container(
    autojump_clock: MockClock,
) -> None:
    """Another container was asked for and refused, but the one that is there ends its call."""
    fleet, waits = Fleet(containers=1), list[float]()
    await fleet.learn()

    async def call(seconds: float) -> None:
        waits.append(await fleet.place("a", seconds))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, 5.0)  # as never before
        await trio.sleep(0.01)
        nursery.start_soon(call, 0.1)
        await trio.sleep(3 * COLD_SECONDS)
        fleet.placer.stop_waiting()
        nursery.start_soon(call, 0.1)
        with pytest.raises(ServerBusy):
            await fleet.place("has no container", 0.1)
        assert fleet.placer.statistics().waiting == 2
    assert sorted(waits) == pytest.approx([0, 3.5, 5.1], abs=0.2)
    assert is_idle(fleet.placer)


async def test_a_placer_without_patience_starts_another(autojump_clock: MockClock) -> None:
    fleet = Fleet(NaivePlacer, containers=4)
    await fleet.learn()
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(fleet.place, "a", 0.1)
    assert fleet.cold == 2


async def test_who_has_waited_for_as_long_as_a_start_takes_starts(
    autojump_clock: MockClock,
) -> None:
    fleet = Fleet(containers=4)
    await fleet.learn()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.place, "a", 20.0)  # as never before
        await trio.sleep(0.01)
        assert await fleet.place("a", 0.1) == pytest.approx(2 * COLD_SECONDS, abs=0.02)
        assert fleet.cold == 2
        nursery.cancel_scope.cancel()


async def test_the_end_of_the_call_is_for_others_who_have_waited_much_longer(
    autojump_clock: MockClock,
) -> None:
    """A busy function keeps its only container, but not for ever: another function's call waits."""
    fleet, order = Fleet(containers=1), list[tuple[str, float]]()
    await fleet.learn()

    async def call(fn_id: str) -> None:
        began = trio.current_time()
        await fleet.place(fn_id, 0.1)
        order.append((fn_id, began))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "a")
        await trio.sleep(0.01)
        other = trio.current_time()
        nursery.start_soon(call, "b")
        for _ in range(60):
            await trio.sleep(0.05)
            nursery.start_soon(call, "a")
    assert len(order) == 62
    before = [began for fn_id, began in order[: order.index(("b", other))] if fn_id == "a"]
    assert other < max(before) <= other + OVERTAKE_SECONDS
    assert is_idle(fleet.placer)


@pytest.mark.parametrize("when", ["while it waits", "just before its turn", "just after"])
async def test_a_cancelled_call_leaves_its_place_and_its_turn(
    autojump_clock: MockClock, when: str
) -> None:
    fleet = Fleet(containers=1)
    await fleet.learn()
    scope, ended = trio.CancelScope(), trio.Event()

    async def cancelled() -> None:
        with scope:
            await fleet.place("a", 0.1)

    async def first() -> None:
        await fleet.place("a", 0.1)
        if when == "just after":
            scope.cancel()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.sleep(0.01)
        nursery.start_soon(cancelled)
        await trio.sleep(0.01)
        assert fleet.placer.statistics().waiting == 1
        if when == "just before its turn":
            fleet.runners[0].at_end = scope.cancel
        if when == "while it waits":
            scope.cancel()
            await wait_all_tasks_blocked()
            assert fleet.placer.statistics().waiting == 0
        assert await fleet.place("a", 0.1) == pytest.approx(0.08, abs=0.01)
    assert ended.is_set()
    assert scope.cancelled_caught
    assert is_idle(fleet.placer)


async def test_closing_refuses_who_waits_for_a_hot_container(autojump_clock: MockClock) -> None:
    fleet = Fleet(containers=1)
    await fleet.learn()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.place, "a", 0.1)
        await trio.sleep(0.01)
        nursery.start_soon(_expect_busy, fleet)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        fleet.placer.close()
        await wait_all_tasks_blocked()
        assert fleet.placer.statistics().calls == 1
        assert trio.current_time() - began < 0.01
    assert is_idle(fleet.placer)


async def _expect_busy(fleet: Fleet) -> None:
    with pytest.raises(ServerBusy):
        await fleet.place("a", 0.1)


@pytest.mark.parametrize("kind", [NaivePlacer, WarmPlacer])
async def test_who_is_refused_when_all_others_have_ended_looks_again(
    autojump_clock: MockClock, kind: type[SweepPlacer]
) -> None:
    """Its line was full when it left it, and nobody is left whose end would wake it."""

    async def taken(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
        """Another load balancer's call has the place that was free, for a moment."""
        if runner.active >= runner.slots:
            return NotPlaced(ServerBusy())
        if 1.0 <= trio.current_time() - began < 1.2:
            await trio.sleep(0.1)
            return NotPlaced(ServerBusy())
        observer.committed()
        return await runner.run(call)

    began = trio.current_time()
    runners = [FakeRunner("a:1", seconds=1.0, script=taken), FakeRunner("b:1", seconds=1.05)]
    pool, placer = FakePool(runners), make(kind)
    async with trio.open_nursery() as nursery:
        await occupy(nursery, placer, pool, make_call("x"), make_call("y"))
        await trio.sleep(0.5)
        await placer.place_call(pool, make_call("waits"))
    assert trio.current_time() - began < 5
    assert is_idle(placer)


async def test_runners_are_told_of_each_surplus_container_once(autojump_clock: MockClock) -> None:
    """By the calls that find a hot container, as one of the others would tell the wrong runner. A
    call that is refused, or cancelled, has not told."""
    told: list[tuple[str, bool]] = []

    class Runner(TellingRunner):
        refuses = False

        async def try_exec(
            self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED
        ) -> Outcome:
            told.append((call.model.fn_id, call.surplus))
            if self.refuses:
                return NotPlaced(ServerBusy(), retry_after=1)
            return await super().try_exec(call, observer)

    fleet = Fleet(containers=4)
    fleet.runners[:] = [runner] = [Runner("r:1", 4 * 128)]
    policy = fleet.placer.loads.policies.of(need_of(sim_call("a", 0.1)))
    policy.surplus = 2
    await fleet.learn()
    assert told.pop() == ("a", False)  # it starts the first container
    await fleet.place("b", 0.1)
    assert told.pop() == ("b", False)
    runner.refuses = True
    with trio.move_on_after(0.01):
        await fleet.place("a", 0.1)
    assert told[0] == ("a", True)
    assert policy.surplus == 2
    told.clear()
    runner.refuses = False
    for _ in range(5):  # (after a refusal no hot container is expected there)
        await fleet.place("a", 0.1)
    assert [surplus for _, surplus in told] == [False, True, True, False, False]
    assert policy.surplus == 0
