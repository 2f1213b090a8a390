"""How many containers calls of short and of long functions have launched, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler._launch_policy import MAX_PRICE
from hostler.agent import ContainerState
from hostler.bodies import BytesBody
from hostler.drivers.sim import SimDriver, SimRequest, SimResponse, open_sim_driver
from hostler.errors import ServerBusy

from .functions import sleeper
from .nodes import NACK, Node, open_node, run_all

START = 0.4


@asynccontextmanager
async def warmed(
    tmp_path: Path, *, first: bytes = b"0.01", start: float = START, **settings: Any
) -> AsyncIterator[tuple[SimDriver, Node]]:
    """A node that knows how long a start and a run take, by a first call (b"" = by none)."""
    async with open_sim_driver() as driver, open_node(driver, tmp_path, **settings) as node:
        driver.add_image("sleeper", sleeper, create_time=start)
        if first:
            await node.run("sleeper", BytesBody(first))
        yield driver, node


async def clients(node: Node, count: int, seconds: float, body: bytes) -> list[float]:
    """That many clients, each with one call after the other; how long each call took."""
    took: list[float] = []

    async def client() -> None:
        while True:
            began = trio.current_time()
            await node.run("sleeper", BytesBody(body))
            took.append(trio.current_time() - began)

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(client)
    return took


@pytest.mark.parametrize("settings", [{}, NACK])
async def test_calls_that_are_served_sooner_by_the_busy_container_launch_none(
    autojump_clock: object, tmp_path: Path, settings: dict[str, Any]
) -> None:
    async with warmed(tmp_path, **settings) as (driver, node):
        began = trio.current_time()
        assert await run_all(node, 20, "sleeper", b"0.01") == [None] * 20
        assert trio.current_time() - began == pytest.approx(20 * 0.01)
        assert driver.statistics().created == 1


async def test_of_those_that_it_can_not_serve_in_time_four_have_launches_at_once(
    autojump_clock: object, tmp_path: Path
) -> None:
    settings = {"memory": 8192, "launch_concurrency": 50}
    async with warmed(tmp_path, first=b"0.1", **settings) as (driver, node):
        # Within three quarters of a launch it serves 3: one runs at once, 3 wait, 16 do not. More
        # than four are only launched once it has shown that these help.
        began = trio.current_time()
        assert await run_all(node, 20, "sleeper", b"0.1") == [None] * 20
        assert driver.statistics().created == 1 + 4
        assert trio.current_time() - began == pytest.approx(START + 0.4)


async def test_long_functions_scale_out_at_once(autojump_clock: object, tmp_path: Path) -> None:
    async with warmed(tmp_path, first=b"5", memory=8192) as (driver, node):
        began = trio.current_time()
        assert await run_all(node, 8, "sleeper", b"5") == [None] * 8
        assert driver.statistics().created == 8
        assert trio.current_time() - began == pytest.approx(START + 5)


async def test_launches_whose_turn_comes_when_nobody_needs_them_are_dropped(
    autojump_clock: object, tmp_path: Path
) -> None:
    settings = {"memory": 8192, "launch_concurrency": 4}
    async with warmed(tmp_path, first=b"", **settings) as (driver, node):
        assert await run_all(node, 40, "sleeper", b"0.01") == [None] * 40
        # Nothing was known of the first ones, so 40 launches stood in line. When four were over
        # the next four had their turn, and only then a call was over, too.
        await trio.sleep(START)
        assert driver.statistics().created == 8
        statistics = node.agent.statistics()
        assert (statistics.launches, statistics.launch_failures) == (8, 0)


async def test_who_has_waited_as_long_as_a_launch_takes_has_one(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with warmed(tmp_path) as (driver, node), trio.open_nursery() as nursery:
        nursery.start_soon(node.run, "sleeper", BytesBody(b"20"))
        await trio.sleep(0.001)
        began = trio.current_time()
        await node.run("sleeper", BytesBody(b"0.01"))  # it was to be served by the other one
        assert trio.current_time() - began == pytest.approx(2 * START + 0.01)
        assert driver.statistics().created == 2


async def test_a_slow_start_is_not_waited_for_for_long(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with warmed(tmp_path, start=30) as (_, node), trio.open_nursery() as nursery:
        nursery.start_soon(node.run, "sleeper", BytesBody(b"20"))
        nursery.start_soon(node.run, "sleeper", BytesBody(b"20"))
        await trio.sleep(MAX_PRICE - 0.001)
        assert node.agent.statistics().used.memory == 128 * 2**20
        await trio.sleep(0.002)
        assert node.agent.statistics().used.memory == 2 * 128 * 2**20


async def test_the_end_of_the_container_that_was_waited_for_launches_another(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with warmed(tmp_path) as (driver, node):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_all, node, 1, "sleeper", b"20")
            await trio.sleep(0.001)
            nursery.start_soon(run_all, node, 1, "sleeper", b"0.01")
            await trio.sleep(0.001)
            assert node.agent.statistics().queued == 1
            driver.containers()[0].exit(1)
            await trio.sleep(START + 0.1)
            nursery.cancel_scope.cancel()
        assert driver.statistics().created == 2
        assert node.agent.statistics().completed == 2


async def test_clients_that_always_wait_get_more_containers(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with warmed(tmp_path, memory=8192) as (driver, node):
        took = await clients(node, 16, 6, b"0.01")
        # One would have been enough to serve each of them sooner than a new one.
        assert driver.statistics().created == 16
        assert took[-100:] == pytest.approx([0.01] * 100)


async def test_more_containers_are_launched_only_while_that_helps(
    autojump_clock: object, tmp_path: Path
) -> None:
    """All containers share one CPU: twice as many calls at once take twice as long each."""
    cpu = trio.CapacityLimiter(1)

    async def busy(request: SimRequest) -> SimResponse:
        body = await request.read()
        async with cpu:
            await trio.sleep(float(body))
        return SimResponse(body=body)

    async with open_sim_driver() as driver, open_node(driver, tmp_path, memory=8192) as node:
        driver.add_image("sleeper", busy, create_time=START)
        await node.run("sleeper", BytesBody(b"0.002"))
        took = await clients(node, 64, 10, b"0.002")
        assert 2 <= driver.statistics().created <= 4
        assert len(took) == pytest.approx(10 / 0.002, rel=0.01)


async def test_without_room_for_a_launch_a_call_is_refused_as_ever(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with warmed(tmp_path, memory=128, **NACK) as (_, node):
        outcomes = await run_all(node, 3, "sleeper", b"0.01")
        assert sorted(map(str, outcomes)) == ["None", str(ServerBusy()), str(ServerBusy())]


async def test_a_caller_that_leaves_leaves_nothing_behind(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with warmed(tmp_path) as (_, node), trio.open_nursery() as nursery:
        nursery.start_soon(run_all, node, 1, "sleeper", b"1")
        await trio.sleep(0.001)
        for seconds in (0.1, START - 0.001, START + 0.1):
            with trio.move_on_after(seconds):
                await node.run("sleeper", BytesBody(b"0.01"))
        assert node.agent.statistics().queued == 0


@pytest.mark.parametrize("patience", [3.0, 10.0, 30.0])
async def test_clients_that_leave_are_not_served_in_vain(
    autojump_clock: object, tmp_path: Path, patience: float
) -> None:
    """An agent that no load balancer is before: two containers serve 20 calls a second, 80 come."""
    async with warmed(tmp_path, first=b"0.1", memory=256) as (_, node):
        served: list[float] = []
        refused: list[ServerBusy] = []
        left = 0

        async def client() -> None:
            nonlocal left
            began = trio.current_time()
            with trio.move_on_after(patience) as scope:
                try:
                    await node.run("sleeper", BytesBody(b"0.1"))
                except ServerBusy as error:
                    refused.append(error)
                else:
                    served.append(trio.current_time() - began)
            left += scope.cancelled_caught

        async with trio.open_nursery() as nursery:
            for _ in range(2400):
                nursery.start_soon(client)
                await trio.sleep(1 / 80)
        assert len(served) > 0.93 * 30 * 20
        assert left < 0.05 * 2400
        assert len(refused) > 2400 / 2
        assert all(error.retry_after for error in refused)
        assert max(served) < min(patience, 11.0)


async def start_one_more(node: Node, body: bytes) -> None:
    """A call for which a load balancer wants one more container."""
    call = node.call("sleeper", BytesBody(body))
    call.launch, call.client = True, "lb"
    await node.agent.submit(call)


async def test_each_call_for_which_a_balancer_wants_one_more_starts_one(
    autojump_clock: object, tmp_path: Path
) -> None:
    """Also if one is on its way that is for no call in particular any more."""
    async with warmed(tmp_path) as (driver, node):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run, "sleeper", BytesBody(b"0.05"))
            await trio.sleep(0.01)
            nursery.start_soon(start_one_more, node, b"1")  # gets the container of the first
            await trio.sleep(0.1)
            containers = node.agent.statistics().containers
            assert containers == {ContainerState.BUSY: 1, ContainerState.START: 1}
            nursery.start_soon(start_one_more, node, b"1")
        assert driver.statistics().created == 3
