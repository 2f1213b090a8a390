"""What attempts that were cancelled say of a runner."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from hostler.abc import Outcome, RunnerCall
from hostler.config import PoolConfig
from hostler.pool.health import HealthTracker, JudgedRunner
from hostler.protocol import AttemptObserver

from .fakes import FakeRunner, HealthChanges, Script, make_call


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


@pytest.mark.parametrize(
    ("script", "seconds", "ejected"),
    [
        (hang, 1, True),
        (hang_in_a_nursery, 1, True),
        (hang_in_a_nursery, 0.1, False),  # the client was in a hurry
        (take_and_hang, 1, False),  # the function may be slow
    ],
)
async def test_a_runner_that_does_not_take_calls_is_ejected(
    autojump_clock: MockClock, script: Script, seconds: float, ejected: bool
) -> None:
    changes = HealthChanges()
    board = HealthTracker(PoolConfig(eject_failures=1), changes)
    runner = JudgedRunner(FakeRunner(script=script), board)
    board.join(runner)
    board.join("another")
    with trio.move_on_after(seconds):
        await runner.try_exec(make_call())
    assert [change.key is runner for change in changes] == [True] * ejected
    assert board.share(runner, trio.current_time()) == int(not ejected)
