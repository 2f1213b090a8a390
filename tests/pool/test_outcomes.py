"""What attempts that ran into a time limit say about a runner."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from hostler.abc import NotPlaced, Outcome, Placed, Runner, RunnerCall
from hostler.config import PlacerConfig, PoolConfig
from hostler.errors import AttemptTimedOut, ServerBusy, ServiceReservationFailure
from hostler.pool import NaivePlacer
from hostler.pool.health import HealthTracker
from hostler.protocol import AttemptObserver

from .fakes import FakePool, FakeRunner, HealthChanges, Script, fresh_metrics, make_call


async def hang(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
    await trio.sleep_forever()
    raise AssertionError


async def hang_in_a_nursery(
    runner: FakeRunner, call: RunnerCall, observer: AttemptObserver
) -> Outcome:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
    raise AssertionError


async def take_and_hang(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
    observer.committed()
    return await hang_in_a_nursery(runner, call, observer)


async def ask_and_hang(runner: FakeRunner, call: RunnerCall, observer: AttemptObserver) -> Outcome:
    observer.asked()
    return await hang(runner, call, observer)


class JudgedPool(FakePool):
    """Passes all outcomes to ``board``, and keeps them."""

    def __init__(self, board: HealthTracker, runner: Runner) -> None:
        super().__init__([runner])
        self.board = board
        self.told: list[tuple[Outcome, float]] = []

    def note_outcome(
        self, runner: Runner, call: RunnerCall, outcome: Outcome, seconds: float
    ) -> None:
        self.told.append((outcome, seconds))
        self.board.note_outcome(runner, call, outcome, seconds, trio.current_time())


@pytest.mark.parametrize(
    ("script", "seconds", "ejected"),
    [
        (hang, 1, True),
        (hang_in_a_nursery, 1, True),
        (hang_in_a_nursery, 0.1, False),  # the client was in a hurry
        (take_and_hang, 1, False),  # the function may be slow
        (ask_and_hang, 1, False),  # the runner may have to pull an image
    ],
)
@pytest.mark.parametrize("limit", ["attempt", "call", "caller"])
async def test_a_runner_that_does_not_take_calls_is_ejected(
    autojump_clock: MockClock, script: Script, seconds: float, ejected: bool, limit: str
) -> None:
    changes = HealthChanges()
    board = HealthTracker(PoolConfig(eject_failures=1), changes)
    runner = FakeRunner(script=script)
    board.join(runner)
    board.join("another")
    pool, call = JudgedPool(board, runner), make_call()
    attempt_timeout = seconds if limit == "attempt" else 10.0
    placer = NaivePlacer(PlacerConfig(attempt_timeout=attempt_timeout), metrics=fresh_metrics())
    until = trio.current_time() + seconds
    if limit != "attempt":
        call.deadline = until
    scope = trio.CancelScope(deadline=until + (0 if limit == "caller" else 0.005))
    with scope, suppress(ServerBusy, ServiceReservationFailure):
        await placer.place_call(pool, call)
    assert [change.key is runner for change in changes] == [True] * ejected
    assert board.share(runner, trio.current_time()) == int(not ejected)


async def test_a_pool_is_told_each_outcome_once(autojump_clock: MockClock) -> None:
    board = HealthTracker(PoolConfig(), HealthChanges())
    runner = FakeRunner(seconds=2, latency=0.5, slots=0)
    pool = JudgedPool(board, runner)
    placer = NaivePlacer(metrics=fresh_metrics())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(placer.place_call, pool, make_call())
        await trio.sleep(0.4)
        runner.slots = 1
    (refusal, soon), (end, later) = pool.told
    assert isinstance(refusal, NotPlaced)
    assert not isinstance(refusal.reason, AttemptTimedOut)
    assert (soon, later) == pytest.approx((0.5, 2.25))
    assert end == Placed()
