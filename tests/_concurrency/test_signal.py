"""What can wait makes way, and not for ever."""

from __future__ import annotations

import trio
import trio.testing

from hostler._concurrency.signal import IdleGate


async def test_nobody_waits_while_nothing_is_under_way() -> None:
    calm = IdleGate()
    with trio.testing.assert_no_checkpoints():
        await calm.wait(trio.current_time())
    with calm.disturbed():
        pass
    with trio.testing.assert_no_checkpoints():
        await calm.wait(trio.current_time() + 1)


async def test_waiting_ends_with_the_last_that_is_under_way(autojump_clock: object) -> None:
    calm = IdleGate()
    began = trio.current_time()

    async def work(seconds: float) -> None:
        with calm.disturbed():
            await trio.sleep(seconds)

    async with trio.open_nursery() as nursery:
        for seconds in (1, 3, 2):
            nursery.start_soon(work, seconds)
        await trio.testing.wait_all_tasks_blocked()
        await calm.wait(began + 10)
        assert trio.current_time() - began == 3


async def test_waiting_ends_in_time(autojump_clock: object) -> None:
    calm = IdleGate()
    began = trio.current_time()
    with calm.disturbed():
        await calm.wait(began + 5)
        assert trio.current_time() - began == 5
        await calm.wait(began + 5)
        assert trio.current_time() - began == 5


async def test_who_begins_anew_is_waited_for(autojump_clock: object) -> None:
    """One follows another without a pause, as in a line for one place."""
    calm = IdleGate()
    began = trio.current_time()

    async def work() -> None:
        for _ in range(3):
            with calm.disturbed():
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        await calm.wait(began + 10)
        assert trio.current_time() - began == 3


async def test_rest_begins_again_with_each_disturbance(autojump_clock: object) -> None:
    calm = IdleGate()
    began = trio.current_time()
    await calm.rest(2)
    assert trio.current_time() - began == 2

    async def work() -> None:
        for _ in range(2):
            await trio.sleep(1)
            with calm.disturbed():
                pass  # over before anybody could see it
        await trio.sleep(1)
        with calm.disturbed():
            await trio.sleep(4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await calm.rest(2)
    assert trio.current_time() - began == 2 + 3 + 4 + 2
