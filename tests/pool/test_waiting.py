"""Calls that no runner takes: they wait in line, without polling, and nobody is forgotten."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from hostler.abc import NotPlaced, Outcome, Runner, RunnerCall, RunnerPool
from hostler.config import PlacerConfig
from hostler.errors import FunctionError, ServerBusy
from hostler.pool import NaivePlacer, PlacerStatistics
from hostler.protocol import AttemptObserver

from .fakes import FakePool, FakeRunner, fresh_metrics, full, make_call
from .placers import is_idle, make, occupy, place_all

FN_ATTEMPTS = 145
"""What each of 4 calls waiting for one full runner tried in 2 s at Fn (observed there)."""


async def test_weakness_02_2_waiting_calls_hardly_try(autojump_clock: MockClock) -> None:
    runner = full()
    calls = [make_call(f"c{number}") for number in range(4)]
    ends = await place_all(make(timeout=2.0), FakePool([runner]), calls)
    assert all(isinstance(end, ServerBusy) for end in ends)
    assert max(call.attempts for call in calls) <= 12
    assert sum(call.attempts for call in calls) <= 4 * FN_ATTEMPTS / 30


async def test_waiting_calls_are_served_in_the_order_of_arrival(
    autojump_clock: MockClock,
) -> None:
    runner = FakeRunner(seconds=1.0)
    placer, pool = make(), FakePool([runner])
    calls = [make_call(f"c{number}") for number in range(12)]
    async with trio.open_nursery() as nursery:
        await occupy(nursery, placer, pool, *calls)
    assert runner.order == [call.model.id for call in calls]
    assert is_idle(placer)


async def test_the_end_of_a_call_serves_the_next_at_once(autojump_clock: MockClock) -> None:
    runner = FakeRunner(seconds=10.0)
    placer, pool = make(), FakePool([runner])
    calls = [make_call(f"c{number}") for number in range(5)]
    assert await place_all(placer, pool, calls) == [None] * 5
    assert trio.current_time() == pytest.approx(50, abs=0.05)


async def test_a_thousand_calls_share_a_hundred_slots(autojump_clock: MockClock) -> None:
    runners = [FakeRunner(f"r:{number}", slots=25, seconds=0.1) for number in range(1, 5)]
    placer = make()
    calls = [make_call(f"c{number}") for number in range(1000)]
    assert await place_all(placer, FakePool(runners), calls) == [None] * 1000
    assert sum(len(runner.order) for runner in runners) == 1000
    assert trio.current_time() < 1.1 * (1000 / 100 * 0.1)  # ten rounds and little more
    assert sum(call.attempts for call in calls) < 6 * 1000
    assert is_idle(placer)


async def test_room_that_others_make_is_found_and_then_filled_quickly(
    autojump_clock: MockClock,
) -> None:
    runner = FakeRunner(slots=0, seconds=60)
    placer, pool = make(), FakePool([runner])
    calls = [make_call(f"c{number}") for number in range(100)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place_all, placer, pool, calls)
        await trio.sleep(20)
        assert placer.statistics().waiting == 100
        before = runner.attempts.total()
        assert before < 100 + 60  # each once, then one call at a time, rarely
        runner.slots = 100
        await trio.sleep(2)
        assert runner.active == 100
        assert runner.attempts.total() == before + 100


async def test_a_runner_that_needs_a_moment_after_a_call_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    """A call that comes right after another has ended is refused for 5 ms: news come too early."""
    free_at: list[float] = [0.0] * 10

    async def slow_to_reopen(
        runner: FakeRunner, call: RunnerCall, observer: AttemptObserver
    ) -> Outcome:
        await trio.lowlevel.checkpoint()
        observer.committed()
        now = trio.current_time()
        for slot, at in enumerate(free_at):
            if at <= now:
                free_at[slot] = now + 10_000
                outcome = await runner.run(call)
                free_at[slot] = trio.current_time() + 0.005
                return outcome
        return NotPlaced(ServerBusy())

    runner = FakeRunner(seconds=0.1, script=slow_to_reopen)
    calls = [make_call(f"c{number}") for number in range(200)]
    assert await place_all(make(), FakePool([runner]), calls) == [None] * 200
    assert trio.current_time() < 1.1 * 20 * 0.105  # twenty rounds and little more
    assert sum(call.attempts for call in calls) < 4 * 200


async def test_another_function_does_not_wait_behind_the_line(autojump_clock: MockClock) -> None:
    async def only_b(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
        observer.committed()
        await trio.sleep(0.001)
        return await runner.run(call) if call.model.fn_id == "b" else NotPlaced(ServerBusy())

    placer, pool = make(), FakePool([FakeRunner(script=only_b, seconds=0)])
    async with trio.open_nursery() as nursery:
        await occupy(nursery, placer, pool, *(make_call(f"a{n}", fn_id="a") for n in range(3)))
        with trio.fail_after(0.1):
            await placer.place_call(pool, make_call("b", fn_id="b"))
        nursery.cancel_scope.cancel()
    assert is_idle(placer)


async def test_room_that_is_too_small_for_the_first_goes_to_the_next_line(
    autojump_clock: MockClock,
) -> None:
    async def small_only(
        runner: FakeRunner, call: RunnerCall, observer: AttemptObserver
    ) -> Outcome:
        observer.committed()
        await trio.sleep(0.001)
        if runner.active or call.model.memory > 128:
            return NotPlaced(ServerBusy())
        return await runner.run(call)

    runner = FakeRunner(script=small_only, seconds=10)
    placer, pool = make(), FakePool([runner])
    async with trio.open_nursery() as nursery:
        await occupy(nursery, placer, pool, make_call("running"))
        await occupy(nursery, placer, pool, make_call("big", memory=1024), make_call("small"))
        await trio.sleep_until(10.1)
        assert runner.order == ["running", "small"]
        nursery.cancel_scope.cancel()


async def test_a_pool_that_gives_up_frees_the_whole_line_at_once(
    autojump_clock: MockClock,
) -> None:
    runner = full()
    pool = FakePool(*[[runner]] * 10, FunctionError(502, "fn was deleted"))
    placer = make()
    ended_at: list[float] = []

    async def place(name: str) -> None:
        with pytest.raises(FunctionError, match="fn was deleted"):
            await placer.place_call(pool, make_call(name))
        ended_at.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(place, f"c{number}")
    assert len(ended_at) == 8
    assert max(ended_at) - min(ended_at) < 0.001


@pytest.mark.parametrize("turn_first", [False, True])
async def test_a_call_that_leaves_the_line_hands_its_turn_on(
    autojump_clock: MockClock, turn_first: bool
) -> None:
    """The turn and the cancellation come in the same moment."""
    runner = FakeRunner(seconds=10)
    placer, pool = make(), FakePool([runner])
    async with trio.open_nursery() as nursery:
        await occupy(nursery, placer, pool, make_call("running"))
        scope = trio.CancelScope()

        async def leaves() -> None:
            with scope:
                await placer.place_call(pool, make_call("leaves"))

        nursery.start_soon(leaves)
        await trio.sleep(0.001)
        await occupy(nursery, placer, pool, make_call("stays"))
        (room,) = placer._waiting_rooms.values()
        runner.slots = 2
        if turn_first:
            room.offer(runner)
            scope.cancel()
        else:
            scope.cancel()
            room.offer(runner)
        await trio.sleep(0.005)
        assert runner.order == ["running", "stays"]


@pytest.mark.parametrize("rounds", range(40))
async def test_cancelled_at_any_point_leaves_nothing_and_stops_nobody(
    autojump_clock: MockClock, rounds: int
) -> None:
    runner = FakeRunner(slots=1, seconds=0.003)
    placer, pool = make(), FakePool([runner])
    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(placer.place_call, pool, make_call(f"c{number}"))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as victims:
                victims.start_soon(placer.place_call, pool, make_call("victim"))
                victims.start_soon(_cancel_after, rounds, scope)
        for number in range(2, 4):
            nursery.start_soon(placer.place_call, pool, make_call(f"c{number}"))
    assert {"c0", "c1", "c2", "c3"} <= set(runner.order)
    assert runner.active == 0
    assert trio.current_time() < 0.3
    assert is_idle(placer)


async def _cancel_after(rounds: int, scope: trio.CancelScope) -> None:
    for _ in range(rounds):
        await trio.sleep(0.0003)
    scope.cancel()


async def test_weakness_02_4_cancel_during_search_is_cancelled(autojump_clock: MockClock) -> None:
    placer = make()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(placer.place_call, FakePool([full()]), make_call())
            await trio.sleep(1)
            scope.cancel()
    assert scope.cancelled_caught
    assert placer._metrics.placer_client_cancelled.value == 1
    assert placer._metrics.placer_timeout.value == 0
    assert is_idle(placer)


async def test_a_deadline_of_the_request_is_told_from_a_cancel(autojump_clock: MockClock) -> None:
    placer = make()
    with trio.move_on_after(1) as scope:
        await placer.place_call(FakePool([full()]), make_call())
    assert scope.cancelled_caught
    assert placer._metrics.placer_client_timeout.value == 1
    assert placer._metrics.placer_client_cancelled.value == 0


async def test_cancelling_a_placed_call_is_an_abort(autojump_clock: MockClock) -> None:
    placer = make()
    with trio.move_on_after(1):
        await placer.place_call(FakePool([FakeRunner(seconds=10)]), make_call())
    assert placer._metrics.placer_placed_abort.value == 1


async def test_weakness_02_5_close_refuses_the_searching_at_once(
    autojump_clock: MockClock,
) -> None:
    runner = FakeRunner(seconds=50)
    placer, pool = make(), FakePool([runner])
    ends: list[BaseException | None] = []
    calls = [make_call("running"), *(make_call(f"c{number}") for number in range(20))]

    async def run() -> None:
        ends.extend(await place_all(placer, pool, calls))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(1)
        placer.close()
        await trio.sleep(0.001)
        assert placer.statistics().calls == 1  # the one that a runner has
    assert ends.count(None) == 1
    assert sum(isinstance(end, ServerBusy) for end in ends) == 20
    assert trio.current_time() == pytest.approx(50, abs=0.1)
    with pytest.raises(ServerBusy):
        await placer.place_call(pool, make_call())


async def test_when_waiting_ends_only_who_has_to_wait_is_refused(autojump_clock: MockClock) -> None:
    """A front end that stops: what it has accepted may still find a runner, at once or never."""
    placer, runner = make(), FakeRunner(seconds=50)
    pool = FakePool([runner])
    ends: list[BaseException | None] = []

    async def run(*names: str) -> None:
        ends.extend(await place_all(placer, pool, [make_call(name) for name in names]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "running", "first", "second")
        await trio.sleep(1)
        placer.stop_waiting()
        await trio.sleep(0.001)
        assert placer.statistics() == PlacerStatistics(calls=1, waiting=0)
        with pytest.raises(ServerBusy):
            await placer.place_call(pool, make_call("refused by the runner"))
        runner.slots = 2
        nursery.start_soon(run, "late")
        await trio.sleep(0.001)
        assert placer.statistics() == PlacerStatistics(calls=2, waiting=0)
    assert len(runner.order) == 2
    assert runner.order[1] == "late"
    assert (ends.count(None), len(ends)) == (2, 4)


async def test_close_ends_a_query_and_an_attempt_that_hang(autojump_clock: MockClock) -> None:
    class HangingPool(FakePool):
        async def runners(self, call: RunnerCall) -> Sequence[Runner]:
            await trio.sleep_forever()
            raise AssertionError

    async def hang(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
        await trio.sleep_forever()
        raise AssertionError

    placer = make()
    ends: list[BaseException | None] = []

    async def place(pool: RunnerPool) -> None:
        ends.extend(await place_all(placer, pool, [make_call()]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(place, HangingPool([]))
        nursery.start_soon(place, FakePool([FakeRunner(script=hang)]))
        await trio.sleep(1)
        placer.close()
    assert trio.current_time() == pytest.approx(1)
    assert [type(error) for error in ends] == [ServerBusy] * 2


def test_calls_of_two_pools_do_not_share_a_room() -> None:
    async def main() -> None:
        config = PlacerConfig(placer_timeout=5)
        placer = NaivePlacer(config, metrics=fresh_metrics(), rng=random.Random(1))
        busy, free = FakePool([full()]), FakePool([FakeRunner(seconds=0)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(place_all, placer, busy, [make_call("a")]))
            await trio.sleep(1)
            with trio.fail_after(0.1):
                await placer.place_call(free, make_call("b"))
        assert is_idle(placer)

    trio.run(main, clock=MockClock(autojump_threshold=0))
