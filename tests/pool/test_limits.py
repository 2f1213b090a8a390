"""Who may wait for a runner: bounded lines, deadlines, and the estimate behind both."""

from __future__ import annotations

import itertools
import random
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from hostler.abc import NotPlaced, Outcome, RunnerCall
from hostler.bodies import BytesBody
from hostler.calls import PendingCall
from hostler.config import PlacerConfig
from hostler.errors import ServerBusy
from hostler.pool import NaivePlacer, SweepPlacer

from .fakes import FakePool, FakeRunner, fresh_metrics, full, make_call
from .placers import is_idle


def make(**config: Any) -> SweepPlacer:
    settings = attrs.evolve(PlacerConfig(), **config)
    return NaivePlacer(settings, metrics=fresh_metrics(), rng=random.Random(1))


async def test_one_call_too_many_is_refused_at_once(autojump_clock: MockClock) -> None:
    placer, pool = make(max_waiting=3), FakePool([full()])
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(placer.place_call, pool, make_call(f"c{number}"))
        await trio.sleep(1)
        other = make_call("other", fn_id="fn2")  # the limit is for all lines together
        with trio.fail_after(0.1), pytest.raises(ServerBusy):
            await placer.place_call(pool, other)
        assert placer.statistics().waiting == 3
        nursery.cancel_scope.cancel()
    assert placer._metrics.placer_turned_away.value == 1
    assert is_idle(placer)


async def test_who_tries_a_runner_has_not_left_a_place_for_another(
    autojump_clock: MockClock,
) -> None:
    """It may come back: then there would be one too many."""
    trying = trio.Event()
    tries = itertools.count()

    async def refuse_slowly(runner: FakeRunner, call: RunnerCall, commit: object) -> Outcome:
        if next(tries):  # after the first it is a probe
            trying.set()
            await trio.sleep(0.5)
        return NotPlaced(ServerBusy())

    placer, pool = make(max_waiting=1), FakePool([FakeRunner(script=refuse_slowly)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(placer.place_call, pool, make_call("a"))
        await trying.wait()
        assert placer.statistics().waiting == 0
        with trio.fail_after(0.6), pytest.raises(ServerBusy):
            await placer.place_call(pool, make_call("b", fn_id="fn2"))
        nursery.cancel_scope.cancel()
    assert placer._metrics.placer_turned_away.value == 1
    assert is_idle(placer)


async def test_bodies_of_waiting_calls_are_bounded(autojump_clock: MockClock) -> None:
    placer, pool = make(max_waiting_bytes=100), FakePool([full()])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(placer.place_call, pool, make_call("a", body=BytesBody(b"x" * 60)))
        await trio.sleep(1)
        with trio.fail_after(0.1), pytest.raises(ServerBusy):
            await placer.place_call(pool, make_call("b", body=BytesBody(b"x" * 41)))
        nursery.start_soon(placer.place_call, pool, make_call("c", body=BytesBody(b"x" * 40)))
        await trio.sleep(1)
        assert placer.statistics().waiting == 2
        (room,) = placer._waiting_rooms.values()
        assert room.held_bytes == 100
        nursery.cancel_scope.cancel()
    assert is_idle(placer)


async def test_who_would_be_served_too_late_is_refused_at_once(autojump_clock: MockClock) -> None:
    """20 calls a second can be served, 80 come, and each client has 30 s of patience."""
    placer = make()
    runner = FakeRunner(slots=2, seconds=0.1, latency=0.0002)
    pool = FakePool([runner])
    served: list[float] = []
    refused: list[tuple[float, float]] = []
    attempts: list[int] = []

    async def client(number: int) -> None:
        call = make_call(f"c{number}")
        started = trio.current_time()
        call.deadline = started + 30
        try:
            await placer.place_call(pool, call)
        except ServerBusy as error:
            refused.append((trio.current_time() - started, error.retry_after or 0.0))
        else:
            served.append(trio.current_time() - started)
            attempts.append(call.attempts)

    async with trio.open_nursery() as nursery:
        for number in range(1600):
            nursery.start_soon(client, number)
            await trio.sleep(1 / 80)
    assert len(served) >= 970
    assert len(served) + len(refused) == 1600
    assert max(after for after, _ in refused) < 0.01
    assert min(advice for _, advice in refused) > 25
    assert max(served) <= 30
    assert sorted(attempts)[len(attempts) * 99 // 100] <= 3


@pytest.mark.parametrize("clients", [8, 64])
async def test_clients_in_a_loop_are_served_in_turn(
    autojump_clock: MockClock, clients: int
) -> None:
    placer = make()
    runner = FakeRunner(slots=2, seconds=0.1, latency=0.0002)
    pool = FakePool([runner])
    times: list[float] = []

    async def client(name: int) -> None:
        for number in range(10_000):
            started = trio.current_time()
            await placer.place_call(pool, make_call(f"c{name}.{number}"))
            if started > 5:
                times.append(trio.current_time() - started)

    async with trio.open_nursery() as nursery:
        for name in range(clients):
            nursery.start_soon(client, name)
        await trio.sleep(25)
        nursery.cancel_scope.cancel()
    times.sort()
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    assert p99 <= 1.3 * p50
    assert len(runner.order) >= 19.6 * 25


async def test_a_deadline_ends_the_wait(autojump_clock: MockClock) -> None:
    placer, call = make(), make_call()
    call.deadline = 2.0
    with pytest.raises(ServerBusy):
        await placer.place_call(FakePool([full()]), call)
    assert trio.current_time() == pytest.approx(2)


async def test_no_runner_takes_a_call_that_it_would_have_to_cut(
    autojump_clock: MockClock,
) -> None:
    placer, runner = make(), FakeRunner(seconds=2)
    pool = FakePool([runner])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(placer.place_call, pool, make_call("first"))
        await trio.sleep(1)
        nursery.start_soon(placer.place_call, pool, make_call("second"))
        await trio.sleep(1.5)  # "first" has told how long such calls take
        call = make_call("late")
        call.deadline = trio.current_time() + 2.9
        with pytest.raises(ServerBusy):
            await placer.place_call(pool, call)
    assert runner.order == ["first", "second"]


async def test_a_line_that_does_not_move_refuses_nobody_by_guess(autojump_clock: MockClock) -> None:
    placer, pool = make(), FakePool([full()])
    async with trio.open_nursery() as nursery:
        for number in range(50):
            call = make_call(f"c{number}")
            call.deadline = 10
            nursery.start_soon(partial(_refused_at, placer, pool), call)
        await trio.sleep(9.9)
        assert placer.statistics().waiting == 50


async def _refused_at(placer: SweepPlacer, pool: FakePool, call: PendingCall) -> None:
    with pytest.raises(ServerBusy):
        await placer.place_call(pool, call)
    assert trio.current_time() == pytest.approx(10)


@pytest.mark.parametrize("patience", [3.0, 10.0, 30.0])
async def test_clients_that_do_not_say_how_long_they_wait_are_not_served_in_vain(
    autojump_clock: MockClock, patience: float
) -> None:
    """20 calls a second can be served, 80 come. What clients bear is learned from those who leave;
    until then, and of very patient ones, none waits for longer than 10 s. A line in which all have
    waited for as long as clients do does not stay so."""
    placer = make()
    pool = FakePool([FakeRunner(slots=2, seconds=0.1, latency=0.0002)])
    served: list[float] = []
    refused: list[ServerBusy] = []
    left: list[float] = []

    async def client(number: int) -> None:
        started = trio.current_time()
        with trio.move_on_after(patience) as scope:
            try:
                await placer.place_call(pool, make_call(f"c{number}"))
            except ServerBusy as error:
                refused.append(error)
            else:
                served.append(trio.current_time() - started)
        if scope.cancelled_caught:
            left.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(2400):
            nursery.start_soon(client, number)
            await trio.sleep(1 / 80)
    seconds = 2400 / 80
    assert len(served) > 0.95 * 20 * seconds
    assert len(left) < 0.05 * 2400
    assert sum(at > began + 10 for at in left) < 0.02 * 2400
    assert all(error.retry_after for error in refused)
    assert max(served) < min(patience, 11.0)


async def test_clients_that_leave_for_other_reasons_bind_nobody(autojump_clock: MockClock) -> None:
    """Of 16 clients in a loop one leaves after a moment, again and again, and comes back later."""
    placer = make()
    pool = FakePool([FakeRunner(slots=2, seconds=0.1, latency=0.0002)])
    served = 0

    async def client() -> None:
        nonlocal served
        while True:
            await placer.place_call(pool, make_call("patient"))
            served += 1

    async def hurried() -> None:
        while True:
            with trio.move_on_after(0.3):
                await placer.place_call(pool, make_call("hurried"))
            await trio.sleep(2)

    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(15):
                nursery.start_soon(client)
            nursery.start_soon(hurried)
    assert served > 0.95 * 60 * 20
