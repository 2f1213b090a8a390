"""What idle containers are worth: how long, and for whom they are kept."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from hostler.agent.resources import (
    MAX_SECONDS,
    NoResources,
    Protected,
    Resources,
    ResourceTracker,
    worth_seconds,
)
from hostler.bodies import BytesBody
from hostler.drivers.sim import SimDriver, open_sim_driver
from hostler.errors import ServerBusy

from .fakes import Idle, IdleOnes
from .functions import sleeper
from .nodes import MIB, Node, open_node


@pytest.mark.parametrize(
    ("start", "run", "seconds"), [(0.5, 0.1, 2.5), (0.5, 5, 0.05), (2, 4, 1), (1, 1e-6, 10)]
)
def test_what_is_short_beside_its_start_is_kept_for_long(
    start: float, run: float, seconds: float
) -> None:
    assert worth_seconds(start, run) == pytest.approx(seconds)
    assert worth_seconds(start, run) <= MAX_SECONDS


def test_nothing_is_worth_keeping_of_which_nothing_is_known() -> None:
    assert worth_seconds(1.0, 0.0) == 0


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 20)), max_size=50),
)
def test_the_sum_is_that_of_those_whose_time_is_not_over(
    steps: list[tuple[int, int, int]],
) -> None:
    """Against a look at each: containers come, go, come back, and the time passes."""
    room, now = Protected(), 0
    known: dict[int, tuple[int, int]] = {}
    for owner, elapsed, seconds in steps:
        now += elapsed
        if known.pop(owner, None) is not None:
            room.remove(owner)
        elif seconds:
            room.add(owner, Resources(owner + 1, 10), now + seconds, now)
            known[owner] = owner + 1, now + seconds
        alive = [memory for memory, until in known.values() if until > now]
        assert room.total(now) == Resources(sum(alive), 10 * len(alive))


def test_who_comes_and_goes_often_is_remembered_once() -> None:
    """As hot containers do, also where nobody ever asks for the total."""
    room = Protected()
    for number in range(10_000):
        now, owner = number / 100, number % 3
        room.remove(owner)
        room.add(owner, Resources(1, 1), now + 2.5, now)
        assert len(room) <= 3
    assert room.total(200) == Resources()
    assert not len(room)


async def test_a_call_that_spares_containers_is_refused_what_another_gets(
    autojump_clock: object,
) -> None:
    candidates = IdleOnes()
    idle = candidates.all
    room = ResourceTracker(Resources(10), candidates, may_wait=False)
    idle.append(Idle(await room.acquire(Resources(8), "a")))
    passing = await room.acquire(Resources(2), "long")
    passing.taken(worth_seconds=0.1)
    now = trio.current_time()
    idle[0].token.became_idle(now, now + 3)
    assert (room.reclaimable, room.protected(trio.current_time())) == (Resources(8), Resources(8))
    with pytest.raises(NoResources):
        await room.acquire(Resources(1), "b", spare_warm=True)
    assert not idle[0].evicted
    passing.taken(worth_seconds=math.inf)  # there is nothing to wait for
    assert room.protected(trio.current_time()) == Resources()
    assert room.in_reach(Resources(1), "b", spare_warm=True)
    passing.taken(worth_seconds=0.1)
    assert not room.in_reach(Resources(1), "b", spare_warm=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.acquire, Resources(1), "b")
        await trio.testing.wait_all_tasks_blocked()
        assert idle[0].evicted
        assert room.protected(trio.current_time()) == Resources()
        idle[0].token.release()


async def test_where_calls_wait_a_sparing_one_does_not_wait_for_that(
    autojump_clock: object,
) -> None:
    candidates = IdleOnes()
    idle = candidates.all
    room = ResourceTracker(Resources(10), candidates)
    idle.append(Idle(await room.acquire(Resources(10), "a")))
    now = trio.current_time()
    idle[0].token.became_idle(now, now + 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: room.acquire(Resources(1), "b", spare_warm=True))
        await trio.testing.wait_all_tasks_blocked()
        assert idle[0].evicted
        idle[0].token.release()


async def test_an_agent_spares_short_functions_for_a_while(
    autojump_clock: object, tmp_path: Path
) -> None:
    """One place has a container of a function that runs for a tenth of its start's time, the other
    one of a function that runs for long."""
    async with (
        open_sim_driver() as driver,
        open_node(driver, tmp_path, memory=256, enable_nb_resource_tracker=True) as node,
        trio.open_nursery() as nursery,
    ):
        driver.add_image("sleeper", sleeper, start_time=0.5)
        await node.agent.submit(node.call("sleeper", BytesBody(b"20"), fn_id="long"))
        nursery.start_soon(node.agent.submit, node.call("sleeper", BytesBody(b"20"), fn_id="long"))
        await node.agent.submit(node.call("sleeper", BytesBody(b"0.05")))
        told = node.agent.load()
        assert told.protected_memory == told.reclaimable_memory == 128 * MIB
        sparing = node.call("sleeper", BytesBody(b"0"), fn_id="other")
        sparing.spare_warm = True
        with pytest.raises(ServerBusy):
            await node.agent.submit(sparing)
        await node.agent.submit(node.call("sleeper", BytesBody(b"0.05")))
        assert node.agent.statistics().evictions == 0
        await trio.sleep(MAX_SECONDS)
        assert node.agent.load().protected_memory == 0
        sparing = node.call("sleeper", BytesBody(b"0"), fn_id="other")
        sparing.spare_warm = True
        await node.agent.submit(sparing)
        assert node.agent.statistics().evictions == 1


@asynccontextmanager
async def open_places(folder: Path, places: int) -> AsyncIterator[tuple[SimDriver, Node]]:
    """An agent with room for so many containers of ``sleeper``, which start in half a second."""
    async with (
        open_sim_driver() as driver,
        open_node(driver, folder, memory=places * 128, enable_nb_resource_tracker=True) as node,
    ):
        driver.add_image("sleeper", sleeper, start_time=0.5)
        yield driver, node


async def test_what_a_balancer_calls_surplus_is_evicted_first(
    autojump_clock: object, tmp_path: Path
) -> None:
    """Two of four containers of a function, rather than the one of another function that has stood
    idle for longer, and has had fewer calls. Then they count as evicted, and the rest is kept."""
    async with open_places(tmp_path, 5) as (driver, node):
        submit = node.agent.submit

        async def call(fn_id: str, seconds: str = "0.05", *, surplus: bool = False) -> None:
            call = node.call("sleeper", BytesBody(seconds.encode()), fn_id=fn_id)
            call.launch, call.surplus, call.client = fn_id == "crowd", surplus, "lb"
            await submit(call)

        async def crowd(*, surplus: int = 0) -> None:
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(partial(call, "crowd", "1", surplus=number < surplus))

        await call("seldom")
        await crowd()
        await crowd(surplus=2)
        created = driver.statistics().created
        for other in ("other-1", "other-2"):
            await call(other)
        await call("seldom")
        assert node.agent.statistics().evictions == 2
        assert driver.statistics().created == created + 2
        await call("crowd")
        await call("other-1")
        assert driver.statistics().created == created + 2
        await call("other-3")  # nobody is surplus any more: seldom is worth the least
        await call("crowd")
        assert driver.statistics().created == created + 3


async def test_a_container_that_a_balancer_starts_after_all_is_no_surplus(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_places(tmp_path, 3) as (driver, node):

        async def call(fn_id: str, **said: bool) -> None:
            call = node.call("sleeper", BytesBody(b"1"), fn_id=fn_id)
            call.launch, call.surplus = said.get("launch", False), said.get("surplus", False)
            call.client = "lb"
            await node.agent.submit(call)

        await call("seldom")
        await call("crowd", surplus=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "crowd")
            await trio.sleep(0.1)
            nursery.start_soon(partial(call, "crowd", launch=True))
        await call("other")
        created = driver.statistics().created
        await call("crowd")
        assert driver.statistics().created == created


async def test_what_a_crowd_has_left_gives_way_to_what_is_called_now(
    autojump_clock: object, tmp_path: Path
) -> None:
    """However often its containers were used before, and nobody has called them surplus."""
    async with open_places(tmp_path, 5) as (driver, node):

        async def call(fn_id: str) -> None:
            await node.agent.submit(node.call("sleeper", BytesBody(b"1"), fn_id=fn_id))

        for _ in range(40):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(call, "crowd")
        others = ("other-1", "other-2", "other-3")
        for _ in range(5):  # 20 s, in which each of them is called again and again
            for other in others:
                await call(other)
        created = driver.statistics().created
        for other in others:
            await call(other)
        assert driver.statistics().created == created
