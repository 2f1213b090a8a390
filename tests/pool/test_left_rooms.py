"""The room and the line that all calls have left, and that the next call gets."""

from __future__ import annotations

import gc
import math
import weakref

from trio.testing import MockClock

from hostler.abc import LoadListener
from hostler.pool.waiting_room import MAX_LEFT, CallQueue, RetryBackoff

from .fakes import FakePool, FakeRunner, make_call
from .placers import Steady, is_idle, make, make_room

ADDRESS = "r:1"


def spoil(line: CallQueue) -> None:
    """All that calls of a line can leave behind."""
    line.ahead.learn(FakeRunner(ADDRESS), 2, share=3)
    line.pool_trouble = "no subnet"
    line.ladder.begin(10.0)
    line.ladder.step(11.0)
    line.refuse(12.0, 0.0, spare_warm=False)
    line.ladder.step(14.0)


def test_a_line_that_was_left_is_as_a_new_one() -> None:
    room, fresh = make_room(1.0, 8.0), CallQueue(make_room(), RetryBackoff(1.0, 8.0, Steady()))
    with room.line("a") as left:
        spoil(left)
        room.probe_at = 100.0
    assert room.unused
    assert room.probe_at == -math.inf
    with room.line("a") as line:
        assert line is left
        for one in (line, fresh):
            assert (one.full, one.pool_trouble) == (False, "")
            assert (one.ahead.share(ADDRESS), one.ahead.patience(ADDRESS, 0.1)) == (0, 0)
            assert not one._hopeless
            one.ladder.refuse(14.5)  # nobody has waited yet
            assert one.ladder.next_at == -math.inf
            one.ladder.begin(15.0)
            assert repr(one.ladder) == "<RetryBackoff interval=1.0 width=1 lost=0>"
            assert one.ladder.next_at == 16.0


def test_each_kind_of_call_has_its_own_line_again_whatever_others_do() -> None:
    """A turn that speaks of a line speaks of calls that need the same, now and later."""
    room = make_room(1.0, 8.0)
    with room.line("a"):
        for name in "bcd":
            with room.line(name) as left:
                pass
            with room.line("e"), room.line(name) as line:
                assert line is left


def test_lines_without_a_call_are_bounded() -> None:
    room = make_room(1.0, 8.0)
    kept = []
    for number in range(MAX_LEFT + 10):
        with room.line(number) as line:
            kept.append(weakref.ref(line))
        del line
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
