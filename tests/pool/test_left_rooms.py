"""The room and the line that all calls have left, and that the next call gets."""

from __future__ import annotations

import gc
import math
import weakref

from trio.testing import MockClock

from hostler.abc import LoadListener
from hostler.pool.waiting_room import MAX_LEFT, CallQueue, RetryBackoff

from .fakes import FakePool, FakeRunner, make_call, queue_of
from .placers import Steady, is_idle, make, make_room

ADDRESS = "r:1"


def spoil(queue: CallQueue) -> None:
    """All that calls of a line can leave behind."""
    queue.backlog.learn(FakeRunner(ADDRESS), 2, share=3)
    queue.pool_trouble = "no subnet"
    queue.backoff.begin(10.0)
    queue.backoff.step(11.0)
    queue.refuse(12.0, 0.0, spare_warm=False)
    queue.backoff.step(14.0)


def test_a_line_that_was_left_is_as_a_new_one() -> None:
    room, fresh = make_room(1.0, 8.0), CallQueue(make_room(), RetryBackoff(1.0, 8.0, Steady()))
    with queue_of(room, "a") as left:
        spoil(left)
        room.probe_at = 100.0
    assert repr(room) == "<WaitingRoom waiting=0 queues=0>"
    assert room.probe_at == -math.inf
    with queue_of(room, "a") as queue:
        assert queue is left
        for one in (queue, fresh):
            assert (one.full, one.pool_trouble) == (False, "")
            assert (one.backlog.share(ADDRESS), one.backlog.max_wait(ADDRESS, 0.1)) == (0, 0)
            assert not one._hopeless
            one.backoff.refuse(14.5)  # nobody has waited yet
            assert one.backoff.next_at == -math.inf
            one.backoff.begin(15.0)
            assert repr(one.backoff) == "<RetryBackoff interval=1.0 width=1 lost=0>"
            assert one.backoff.next_at == 16.0


def test_each_kind_of_call_has_its_own_line_again_whatever_others_do() -> None:
    """A turn that speaks of a line speaks of calls that need the same, now and later."""
    room = make_room(1.0, 8.0)
    with queue_of(room, "a"):
        for name in "bcd":
            with queue_of(room, name) as left:
                pass
            with queue_of(room, "e"), queue_of(room, name) as queue:
                assert queue is left


def test_lines_without_a_call_are_bounded() -> None:
    room = make_room(1.0, 8.0)
    kept = []
    for number in range(MAX_LEFT + 10):
        with queue_of(room, number) as queue:
            kept.append(weakref.ref(queue))
        del queue
    gc.collect()
    assert [ref() is None for ref in kept] == [True] * 10 + [False] * MAX_LEFT


class ListenedPool(FakePool):
    listeners = 0

    def add_load_listener(self, listener: LoadListener) -> None:
        self.listeners += 1


async def test_a_call_after_another_finds_its_room_and_that_of_another_pool_is_let_go(
    autojump_clock: MockClock,
) -> None:
    placer = make()
    one, other = ListenedPool([FakeRunner()]), ListenedPool([FakeRunner()])
    for _ in range(3):
        await placer.place_call(one, make_call())
    assert one.listeners == 1
    assert is_idle(placer)
    gone = weakref.ref(one)
    await placer.place_call(other, make_call())
    assert other.listeners == 1
    assert is_idle(placer)
    del one
    gc.collect()
    assert gone() is None
