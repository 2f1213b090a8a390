"""The timer that calls share."""

from __future__ import annotations

import math

import attrs
import trio
import trio.testing

from hostler._concurrency.alarm import SharedTimer


@attrs.define(eq=False)
class Call:
    deadline: float
    expired: list[float] = attrs.Factory(list)

    def expire(self) -> None:
        self.expired.append(trio.current_time())


async def test_calls_expire_in_time(autojump_clock: trio.testing.MockClock) -> None:
    running: list[Call] = []
    deadlines = SharedTimer(lambda: running)

    def begin(deadline: float) -> Call:
        call = Call(deadline)
        running.append(call)
        deadlines.add(deadline)
        return call

    async with trio.open_nursery() as nursery:
        early = begin(1)
        nursery.start_soon(deadlines.watch)
        later, done, never = begin(20), begin(5), begin(math.inf)
        await trio.sleep(2)
        assert early.expired == [1]
        running.remove(early)
        running.remove(done)
        between = begin(8)
        await trio.sleep(28)
        assert (between.expired[0], later.expired) == (8, [20])
        assert not done.expired
        assert not never.expired
        nursery.cancel_scope.cancel()


async def test_no_timer_is_set_while_nothing_has_a_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    deadlines = SharedTimer(list)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.watch)
        deadlines.add(math.inf)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
        deadlines.add(7)
        await trio.sleep(10)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
        nursery.cancel_scope.cancel()
