"""Who is inside of a gate, and who waits until nobody is."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from hostler._concurrency.gate import Gate, GateClosed


async def test_all_who_wait_learn_that_it_is_empty(autojump_clock: MockClock) -> None:
    """A runner object, which has one, may be closed by several tasks at a time."""
    gate, visitor = Gate(), trio.CancelScope()
    gate.admit(visitor)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(gate.wait_empty)
                await wait_all_tasks_blocked()
            gate.close()
            gate.leave(visitor)
    assert repr(gate) == "<Gate closed inside=0>"
    with pytest.raises(GateClosed):
        gate.admit(visitor)


async def test_who_waits_goes_on_waiting_if_somebody_enters_again(
    autojump_clock: MockClock,
) -> None:
    gate, first, second = Gate(), trio.CancelScope(), trio.CancelScope()
    gate.admit(first)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.wait_empty)
        await wait_all_tasks_blocked()
        gate.leave(first)
        gate.admit(second)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        gate.leave(second)
