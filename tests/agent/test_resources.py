"""The room: order, exactness, eviction, NACK."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from hostler.agent.resources import NoResources, Resources, ResourceToken, ResourceTracker

from .fakes import Idle, IdleOnes


async def nothing_within_a_second(room: ResourceTracker, amount: int) -> bool:
    with trio.move_on_after(1):
        await room.acquire(Resources(amount), "key")
        return False
    return True


async def test_scenario_06_full_room_waits_and_ends_at_zero(autojump_clock: object) -> None:
    room = ResourceTracker(Resources(10, 10), IdleOnes())
    token = await room.acquire(Resources(10, 10), "a")
    assert await nothing_within_a_second(room, 1)
    token.release()
    second = await room.acquire(Resources(10, 10), "a")
    assert await nothing_within_a_second(room, 10)
    second.release()
    second.release()
    assert room.used == Resources()
    assert room.waiting == 0


async def test_nobody_overtakes(autojump_clock: object) -> None:
    room, record = ResourceTracker(Resources(10), IdleOnes()), []

    async def want(name: str, amount: int) -> None:
        await room.acquire(Resources(amount), name)
        record.append(name)

    token = await room.acquire(Resources(5), "first")
    await room.acquire(Resources(3), "second")
    async with trio.open_nursery() as nursery:
        for name, amount in (("big", 7), ("small", 2)):
            nursery.start_soon(want, name, amount)
            await trio.testing.wait_all_tasks_blocked()
        assert record == []
        token.release()
        await trio.testing.wait_all_tasks_blocked()
        assert record == ["big"]  # though the small one would have fitted before
        nursery.cancel_scope.cancel()
    assert room.used == Resources(10)


async def test_leaving_the_line_lets_the_next_one_in(autojump_clock: object) -> None:
    room = ResourceTracker(Resources(10), IdleOnes())
    await room.acquire(Resources(5), "held")
    big = trio.CancelScope()

    async def want_too_much() -> None:
        with big:
            await room.acquire(Resources(10), "big")

    got = trio.Event()

    async def want_little() -> None:
        await room.acquire(Resources(5), "little")
        got.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want_too_much)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(want_little)
        await trio.testing.wait_all_tasks_blocked()
        assert not got.is_set()
        big.cancel()
    assert got.is_set()
    assert room.used == Resources(10)


async def test_nack_mode_refuses_at_once() -> None:
    room = ResourceTracker(Resources(10), IdleOnes(), may_wait=False)
    await room.acquire(Resources(10), "a")
    with pytest.raises(NoResources):
        await room.acquire(Resources(1), "b")
    assert (room.used, room.waiting) == (Resources(10), 0)


async def test_weakness_03_18_more_than_everything_is_never_possible() -> None:
    room = ResourceTracker(Resources(2**34), IdleOnes())
    assert not room.possible(Resources(2**44 * 2**20))
    with pytest.raises(NoResources):
        await room.acquire(Resources(2**64 * 2**20), "huge")


async def test_weakness_03_3_eviction_is_over_when_the_resources_are_free() -> None:
    candidates = IdleOnes()
    idle = candidates.all
    room = ResourceTracker(Resources(10), candidates, may_wait=False)
    idle += [Idle(await room.acquire(Resources(5), "a")) for _ in range(2)]
    tokens: list[ResourceToken] = []

    async def want() -> None:
        tokens.append(await room.acquire(Resources(5), "b"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want)
        await trio.testing.wait_all_tasks_blocked()
        assert [i.evicted for i in idle] == [True, False]
        # Who comes now does not profit from the first eviction, which is for the one before.
        nursery.start_soon(want)
        await trio.testing.wait_all_tasks_blocked()
        assert [i.evicted for i in idle] == [True, True]
        assert tokens == []
        with pytest.raises(NoResources):
            await room.acquire(Resources(1), "c")
        for container in idle:
            container.token.release()
    assert len(tokens) == 2
    assert (room.used, room.evictions) == (Resources(10), 2)


async def test_who_waits_evicts_what_becomes_idle_later() -> None:
    candidates = IdleOnes()
    idle = candidates.all
    room = ResourceTracker(Resources(10), candidates)
    token = await room.acquire(Resources(10), "busy")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.acquire, Resources(10), "b")
        await trio.testing.wait_all_tasks_blocked()
        idle.append(Idle(token))
        room.settle()
        assert idle[0].evicted
        token.release()
    assert room.used == Resources(10)


@given(st.lists(st.tuples(st.integers(1, 10), st.booleans()), max_size=30))
def test_the_account_is_exact_after_any_history(history: list[tuple[int, bool]]) -> None:
    async def run() -> None:
        room, held = ResourceTracker(Resources(20), IdleOnes(), may_wait=False), []
        for amount, leave_first in history:
            try:
                held.append(await room.acquire(Resources(amount), "k"))
            except NoResources:
                assert room.used.memory + amount > 20
                token = held.pop(0)
                if leave_first:
                    token.leave()
                token.release()
            assert room.used == sum((token.size for token in held), Resources())
        for token in held:
            token.leave()
            token.release()
        assert room.used == Resources()
        assert "waiting=0" in repr(room)

    trio.run(run)


async def test_room_for_what_is_launched_ahead_of_calls() -> None:
    room = ResourceTracker(Resources(100), IdleOnes())
    first = room.try_acquire(Resources(60))
    assert first is not None
    assert room.try_acquire(Resources(60)) is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.acquire, Resources(60), "key")
        await trio.testing.wait_all_tasks_blocked()
        # It would fit, but somebody stands in line.
        assert room.try_acquire(Resources(10)) is None
        assert room.try_acquire(Resources()) is not None
        first.release()
        await trio.testing.wait_all_tasks_blocked()
        assert room.used == Resources(60)
    assert room.try_acquire(Resources(40)) is not None
