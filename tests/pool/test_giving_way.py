"""An LB leaves places to others where the runner says so."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from hostler.abc import NotPlaced, Placed
from hostler.errors import ServerBusy
from hostler.pool import CallNeed, LoadTracker, NaivePlacer, StaticPool, SweepPlacer, WarmPlacer
from hostler.pool.waiting_room import QueuedCall, Turn
from hostler.protocol import LEAVE_SECONDS, LoadHint
from hostler.testing import FakeRunner, fake_call

from .fakes import queue_of
from .placers import make_room

FN = CallNeed("fn", memory=100, idle_seconds=30)


def hint(*, leave: bool = False) -> LoadHint:
    return LoadHint(active=3, free_cpus=8, free_memory=1000, leave=leave)


def book_after(outcome: Placed | NotPlaced) -> LoadTracker:
    """Of an LB of which one of two calls at the runner ``a``, which tells its load, has ended."""
    book = LoadTracker()
    book.begin("a", FN, 0)
    book.begin("a", FN, 0)
    book.note("a", hint(), 0)
    book.end("a", FN, outcome, 1)
    return book


def test_what_was_left_to_others_is_not_taken_back_at_once() -> None:
    book = book_after(Placed(load=hint(leave=True)))
    assert book.is_held("a", 1)
    assert book.is_full("a", FN, 1)
    assert not book.has_room("a", FN, 1)
    book.note("a", hint(), 1)
    assert book.is_held("a", 1 + LEAVE_SECONDS / 2)
    later = 1 + LEAVE_SECONDS
    assert not book.is_held("a", later)
    assert not book.is_full("a", FN, later)
    assert book.has_room("a", FN, later)


@pytest.mark.parametrize("outcome", [Placed(load=hint()), NotPlaced(ServerBusy(), load=hint())])
def test_what_was_not_left_to_others_is_for_all(outcome: Placed | NotPlaced) -> None:
    assert not book_after(outcome).is_held("a", 1)


async def test_a_place_that_is_left_is_offered_to_nobody(autojump_clock: MockClock) -> None:
    runner, turns = FakeRunner("a:1"), list[Turn | None]()

    async def wait(number: int) -> None:
        turns.append(await QueuedCall(queue, number, 0.0, 1e9).wait())

    room = make_room()
    with queue_of(room, "fn") as queue:
        queue.backlog.learn(runner, 2)
        queue.backlog.begin(runner.address)
        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
            room.freed(runner, queue, leave=True)
            await trio.testing.wait_all_tasks_blocked()
            assert turns == []
            room.freed(runner, queue)
            await trio.testing.wait_all_tasks_blocked()
            assert turns
            assert all(turn is not None and turn.runner is runner for turn in turns)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("placer_type", [NaivePlacer, WarmPlacer])
@pytest.mark.parametrize("free", [0, 2**40])
async def test_not_even_a_probe_takes_what_is_left_to_others(
    autojump_clock: MockClock, placer_type: type[SweepPlacer], free: int
) -> None:
    placer, runner = placer_type(), FakeRunner("a:1")
    now = trio.current_time()
    placer.loads.note("a:1", LoadHint(free_cpus=8, free_memory=free), now)
    placer.loads.begin("a:1", FN, now)
    left = LoadHint(free_cpus=8, free_memory=free, leave=True)
    placer.loads.end("a:1", FN, Placed(load=left), now)
    await placer.place_call(StaticPool([runner]), fake_call(memory=100))
    [(tried_at, _)] = runner.attempts
    assert now + LEAVE_SECONDS <= tried_at < now + 1
