"""When a second runner is asked: the estimate, the budget, the race, and the placer's policy."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from hostler.abc import NotPlaced, Outcome, Placed, Runner
from hostler.config import PlacerConfig
from hostler.errors import FunctionFailed, ServerBusy
from hostler.pool import SweepPlacer
from hostler.pool.attempts import (
    BURST,
    MAX_KEYS,
    MIN_SAMPLES,
    WINDOW,
    Hedging,
    Placement,
    RecentQuantile,
    Sweep,
)
from hostler.pool.placer import need_of
from hostler.protocol import UNOBSERVED, AttemptObserver
from hostler.testing import NACK, FakeAttempt, FakePool, FakeRunner, fake_call

from .fakes import fresh_metrics, queue_of
from .placers import is_idle, make_room

# --- the estimate and the budget ---


@given(st.lists(st.floats(0, 100), min_size=1, max_size=3 * WINDOW), st.floats(0, 1))
def test_the_quantile_is_that_of_the_latest_samples(samples: list[float], q: float) -> None:
    quantile = RecentQuantile()
    for sample in samples:
        quantile.add(sample)
    recent = sorted(samples[-WINDOW:])
    value = quantile.value(q)
    assert value in recent
    assert sum(sample <= value for sample in recent) >= q * len(recent) - 1e-9
    assert sum(sample < value for sample in recent) <= math.ceil(q * len(recent))


def test_few_samples_or_a_quantile_of_0_mean_no_hedge() -> None:
    for quantile, samples, delay in ((0.5, MIN_SAMPLES - 1, None), (0.0, 50, None), (0.5, 50, 3)):
        hedging = Hedging(quantile, 5)
        for _ in range(samples):
            hedging.took("key", 3)
        assert hedging.begin("key") == delay
        assert hedging.begin("other") is None


@given(st.lists(st.booleans(), max_size=400), st.integers(0, 100))
def test_the_share_of_hedges_is_bounded(spends: list[bool], percent: int) -> None:
    hedging = Hedging(0.5, percent)
    begun = hedged = 0
    for spend in spends:
        if spend:
            hedged += hedging.spend()
        else:
            hedging.begin("key")
            begun += 1
    assert hedged <= begun * percent / 100 + 1e-6
    assert hedged <= BURST or begun


def test_only_so_many_functions_are_remembered() -> None:
    hedging = Hedging(0.5, 5)
    for key in range(MAX_KEYS + 10):
        for _ in range(MIN_SAMPLES):
            hedging.took(key, 1)
        hedging.took(0, 1)
    assert hedging.begin(0) == 1
    assert hedging.begin(1) is None
    assert hedging.begin(MAX_KEYS + 9) == 1


class InOrder(SweepPlacer):
    """Tries the runners as the pool lists them."""

    def order(self, call: object, runners: Any) -> Any:
        return runners


def make(**config: Any) -> tuple[InOrder, Any]:
    metrics = fresh_metrics()
    settings = PlacerConfig(**{"hedge_percent": 100, **config})
    return InOrder(settings, metrics=metrics), metrics


def teach(placer: SweepPlacer, seconds: float) -> None:
    """Let it know how long reservations for a `fake_call` take."""
    for _ in range(WINDOW):
        placer._hedging.took(need_of(fake_call()).key, seconds)
        placer._hedging.begin("")


def slow(address: str, seconds: float, **more: Any) -> FakeRunner:
    attempt = FakeAttempt(reserve_time=seconds, run_time=5)
    return FakeRunner(address, otherwise=attempt, reserves=True, **more)


# --- the race ---


async def race(one: FakeRunner, two: Runner) -> tuple[float, Outcome]:
    """The second runner is asked after a second. Returns how long the race takes, and its end."""
    placer, _ = make()
    teach(placer, 1.0)
    call = fake_call()
    room = make_room()
    placement = Placement(FakePool([one, two]), call, need_of(call), room, 60.0)
    began = trio.current_time()
    outcome = await placer._attempter.attempt(placement, one, began, Sweep(iter([two])))
    return trio.current_time() - began, outcome


BUSY = NotPlaced(ServerBusy(), retry_after=7)
BUSIER = NotPlaced(ServerBusy(), retry_after=9)


@pytest.mark.parametrize(
    ("one", "two", "asked", "won", "cancelled", "end"),
    [
        ((0.5, None), (9, None), "a", "a", "", (10.5, Placed())),
        ((5, None), (9, None), "ab", "a", "b", (15, Placed())),
        ((5, None), (2, None), "ab", "b", "a", (13, Placed())),
        ((0.5, BUSY), (9, None), "a", "", "", (0.5, BUSY)),
        ((5, BUSY), (9, None), "ab", "b", "", (20, Placed())),
        ((5, BUSY), (1, BUSIER), "ab", "", "", (5, BUSY)),
        ((3, BUSIER), (4, BUSY), "ab", "", "", (5, BUSY)),
    ],
)
async def test_the_first_slot_wins_and_the_others_are_given_back(
    autojump_clock: MockClock,
    one: tuple[float, Outcome | None],
    two: tuple[float, Outcome | None],
    asked: str,
    won: str,
    cancelled: str,
    end: tuple[float, Outcome],
) -> None:
    runners = [
        FakeRunner(
            name,
            otherwise=FakeAttempt(outcome=outcome or Placed(), reserve_time=seconds, run_time=10),
            reserves=True,
        )
        for name, (seconds, outcome) in (("a", one), ("b", two))
    ]
    seconds, outcome = await race(*runners)
    assert [runner.address for runner in runners if runner.attempts] == [*asked]
    assert [runner.address for runner in runners if runner.commits] == [*won]
    assert [runner.address for runner in runners if runner.cancelled] == [*cancelled]
    assert not any(runner.held for runner in runners)
    assert seconds == pytest.approx(end[0])
    assert outcome == end[1]
    if isinstance(outcome, NotPlaced) and isinstance(end[1], NotPlaced):
        assert outcome.retry_after == end[1].retry_after


async def test_two_slots_in_the_same_moment_give_one_winner(autojump_clock: MockClock) -> None:
    for _ in range(20):
        runners = slow("a", 2), slow("b", 1)
        await race(*runners)
        assert sum(len(runner.commits) for runner in runners) == 1


async def test_a_bug_in_a_runner_is_raised_as_it_is(autojump_clock: MockClock) -> None:
    class Buggy(FakeRunner):
        async def try_reserve(self, call: Any, observer: AttemptObserver = UNOBSERVED) -> Outcome:
            await trio.lowlevel.checkpoint()
            raise KeyError(self.address)

    other = slow("b", 30)
    with pytest.raises(KeyError):
        await race(Buggy("a", reserves=True), other)
    with pytest.raises(KeyError):
        await race(other, Buggy("a", reserves=True))
    assert (other.cancelled, other.held) == (1, 0)


# --- the placer ---


async def test_a_slow_runner_loses_to_the_next_that_reserves(autojump_clock: MockClock) -> None:
    placer, metrics = make()
    teach(placer, 1.0)
    stuck, plain, good = slow("stuck", 30), FakeRunner("plain"), slow("good", 0.5)
    began = trio.current_time()
    await placer.place_call(FakePool([stuck, plain, good]), fake_call())
    assert trio.current_time() - began == pytest.approx(6.5)
    assert (stuck.commits, plain.attempts, len(good.commits)) == ([], [], 1)
    assert (stuck.cancelled, stuck.held) == (1, 0)
    counts = [metrics.hedges, metrics.hedges_won, metrics.reservations]
    counts += [metrics.reservations_committed, metrics.reservations_abandoned]
    assert [count.value for count in counts] == [1, 1, 2, 1, 1]
    assert metrics.placer_placed_ok.value == 1
    assert is_idle(placer)


async def test_the_run_of_the_second_does_not_count_as_time_for_a_slot(
    autojump_clock: MockClock,
) -> None:
    placer, _ = make(hedge_quantile=1.0)
    teach(placer, 1.0)
    call = fake_call()
    await placer.place_call(FakePool([slow("stuck", 30), slow("good", 0.5)]), call)
    assert placer._hedging.begin(need_of(call).key) == pytest.approx(1.5)


async def test_both_runners_of_a_race_count_for_the_line(autojump_clock: MockClock) -> None:
    placer, _ = make()
    teach(placer, 1.0)
    pool = FakePool([slow("stuck", 30), slow("good", 0.5)])
    call = fake_call()
    with queue_of(placer._open_waiting_room(pool), need_of(call).key) as queue:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(placer.place_call, pool, call)
            await trio.sleep(6.3)
            assert [queue.backlog.in_flight(name) for name in ("stuck", "good")] == [1, 1]
        assert [queue.backlog.in_flight(name) for name in ("stuck", "good")] == [0, 0]


async def test_runners_that_the_hedge_passed_over_come_next(autojump_clock: MockClock) -> None:
    placer, _ = make()
    teach(placer, 1.0)
    late_nack = FakeAttempt(outcome=NotPlaced(ServerBusy()), reserve_time=2)
    stuck = FakeRunner("stuck", otherwise=late_nack, reserves=True)
    busy = FakeRunner("busy", otherwise=late_nack, reserves=True)
    plain = FakeRunner("plain")
    await placer.place_call(FakePool([stuck, plain, busy]), fake_call())
    assert [len(runner.attempts) for runner in (stuck, plain, busy)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"hedge_quantile": 0.0}, "hedging is off"),
        ({"hedge_percent": 0}, "there is no budget"),
        ({"reserve": False}, "reserving is off"),
    ],
)
async def test_no_hedge_when(autojump_clock: MockClock, config: dict[str, Any], why: str) -> None:
    placer, metrics = make(**config)
    teach(placer, 1.0)
    first, other = slow("first", 3), slow("other", 0)
    await placer.place_call(FakePool([first, other]), fake_call())
    assert (len(first.commits), other.attempts) == (1, []), why
    assert metrics.reservations.value == (0 if why == "reserving is off" else 1)


async def test_a_hot_container_is_not_reserved(autojump_clock: MockClock) -> None:
    """It costs no round trip: once a call has ended there, the next goes there whole."""
    placer, metrics = make()
    runner = slow("one", 3)
    pool = FakePool([runner])
    began = trio.current_time()
    await placer.place_call(pool, fake_call(idle_timeout=30))
    assert trio.current_time() - began == pytest.approx(8)
    await placer.place_call(pool, fake_call(idle_timeout=30))
    assert trio.current_time() - began == pytest.approx(13)
    assert metrics.reservations.value == 1


async def test_a_runner_that_never_has_a_slot_loses_the_call_in_time(
    autojump_clock: MockClock,
) -> None:
    placer, metrics = make(reserve_timeout=20.0)
    stuck, good = slow("stuck", 10_000), slow("good", 1)
    began = trio.current_time()
    await placer.place_call(FakePool([stuck, good]), fake_call())
    assert trio.current_time() - began == pytest.approx(26)
    assert metrics.reservations_abandoned.value == 1
    assert stuck.held == 0


async def test_the_last_runner_is_not_given_up(autojump_clock: MockClock) -> None:
    """Calls may stand in line there: another try would be at the end of it."""
    placer, metrics = make(reserve_timeout=20.0)
    began = trio.current_time()
    await placer.place_call(FakePool([slow("a", 10_000), slow("b", 100)]), fake_call())
    assert trio.current_time() - began == pytest.approx(125)
    assert metrics.reservations.value == 2


async def test_the_time_to_reach_a_runner_stays_short(autojump_clock: MockClock) -> None:
    placer, metrics = make(attempt_timeout=2.0)
    vanished = FakeRunner("vanished", otherwise=FakeAttempt(connect_time=10_000), reserves=True)
    began = trio.current_time()
    await placer.place_call(FakePool([vanished, slow("good", 0)]), fake_call())
    assert trio.current_time() - began == pytest.approx(7)
    assert (metrics.reservations.value, metrics.reservations_abandoned.value) == (1, 0)


async def test_a_failure_before_the_commit_is_the_end_of_the_call_and_of_the_race(
    autojump_clock: MockClock,
) -> None:
    class Failing(FakeRunner):
        async def try_reserve(self, call: Any, observer: AttemptObserver = UNOBSERVED) -> Outcome:
            observer.asked()
            await trio.sleep(3)
            return Placed(FunctionFailed())

    placer, metrics = make()
    teach(placer, 1.0)
    other = slow("other", 30)
    with pytest.raises(FunctionFailed):
        await placer.place_call(FakePool([Failing("bad", reserves=True), other]), fake_call())
    assert (other.commits, other.cancelled, other.held) == ([], 1, 0)
    assert metrics.placer_placed_error.value == 1


async def test_while_calls_wait_no_second_slot_is_taken(autojump_clock: MockClock) -> None:
    placer, metrics = make()
    teach(placer, 1.0)
    full = FakeRunner("full", otherwise=NACK)
    pool = FakePool([slow("slow", 3, capacity=1), full, slow("spare", 30, capacity=0)])
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(placer.place_call, pool, fake_call())
    assert metrics.hedges.value == 0
    assert metrics.placer_placed_ok.value == 3


@pytest.mark.parametrize("moment", [0.5, 1.5, 2.5, 4.0])
async def test_a_client_that_leaves_frees_all_slots_at_once(
    autojump_clock: MockClock, moment: float
) -> None:
    """Before the hedge, during the race, and when one has won."""
    placer, _ = make()
    teach(placer, 1.0)
    runners = [slow("a", 9), slow("b", 2)]
    with trio.move_on_after(moment) as scope:
        await placer.place_call(FakePool(runners), fake_call())
    assert scope.cancelled_caught
    assert not any(runner.held or runner.running for runner in runners)
    assert sum(len(runner.commits) for runner in runners) == (1 if moment > 3 else 0)
    assert is_idle(placer)


async def test_closing_the_placer_refuses_a_reservation_and_not_a_committed_call(
    autojump_clock: MockClock,
) -> None:
    for moment, commits in ((1.0, 0), (3.0, 1)):
        placer, _ = make()
        runner = slow("a", 2)
        refused = False
        async with trio.open_nursery() as nursery:

            async def place(placer: InOrder = placer, runner: FakeRunner = runner) -> None:
                nonlocal refused
                try:
                    await placer.place_call(FakePool([runner]), fake_call())
                except ServerBusy:
                    refused = True

            nursery.start_soon(place)
            await trio.sleep(moment)
            placer.close()
        assert (len(runner.commits), refused, runner.held) == (commits, not commits, 0)
