"""The freeze policy: how long containers idle before they are frozen, and how often that is."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from hostler.agent import ContainerState
from hostler.agent.freezing import (
    BURST,
    FIRST_COST,
    LAUNCHES_FIRST,
    LONGEST_GRACE,
    SHARE,
    Freezer,
    freeze_grace,
    pause_rate,
)
from hostler.agent.slots import ReuseGap
from hostler.drivers.sim import SimDriver, SimRequest, SimResponse, echo, open_sim_driver

from .nodes import Node, open_node, until

FOREVER = math.inf


@pytest.mark.parametrize(
    ("minimum", "cost", "gap", "grace"),
    [
        (0.05, 0.0, 0.0, 0.05),  # costs nothing, nothing known: as configured
        (0.05, 0.04, 0.0, 0.8),  # no more than 1/20 of the time
        (0.05, 0.001, 0.3, 0.6),  # a call every 300 ms finds it running
        (0.05, 0.04, 0.1, 0.8),
        (0.05, 9.0, 0.0, LONGEST_GRACE),  # an engine that crawls
        (2.0, 0.04, 0.3, 2.0),  # configured to wait longer
        (60.0, 0.04, 0.3, 60.0),
        (0.0, 0.04, 0.3, 0.0),  # configured: at once
        (FOREVER, 0.04, 0.3, FOREVER),  # configured: never
    ],
)
def test_grace(minimum: float, cost: float, gap: float, grace: float) -> None:
    assert freeze_grace(minimum, cost=cost, gap=gap) == pytest.approx(grace)


@pytest.mark.parametrize(
    ("cost", "cpus", "rate"),
    [(0.05, 2, 2.0), (0.05, 16, 16.0), (10.0, 2, 1.0), (0.0, 1, 100.0), (1e-9, 1, 100.0)],
)
def test_rate(cost: float, cpus: int, rate: float) -> None:
    assert pause_rate(cost, cpus) == pytest.approx(rate)


@given(st.floats(0.001, 10), st.floats(0, 100, allow_nan=False), st.floats(0, 100, allow_nan=False))
def test_the_grace_has_bounds(minimum: float, cost: float, gap: float) -> None:
    grace = freeze_grace(minimum, cost=cost, gap=gap)
    assert minimum <= grace <= max(minimum, LONGEST_GRACE)


def test_gaps_fade_and_the_longest_recent_one_counts() -> None:
    gap = ReuseGap()
    assert gap.value(100.0) == 0
    gap.note(0.3, 100.0)
    gap.note(0.1, 100.1)
    assert gap.value(100.1) == pytest.approx(0.3, rel=0.01)
    assert gap.value(130.0) == pytest.approx(0.15)
    gap.note(0.2, 131.0)
    assert gap.value(131.0) == 0.2
    gap.note(60.0, 200.0)  # nobody waits that long
    assert gap.value(200.0) < 0.2


@attrs.frozen
class Wanted:
    """A container that may be paused, or not any more."""

    wanted: bool = True

    def may_freeze(self) -> bool:
        return self.wanted


async def test_permits_are_given_in_order_and_at_the_rate(autojump_clock: object) -> None:
    freezer = Freezer(0.05, cpus=2)
    rate = pause_rate(FIRST_COST, 2)
    record: list[tuple[int, float]] = []
    begun = trio.current_time()

    async def ask(number: int) -> None:
        assert await freezer.turn(Wanted())
        record.append((number, trio.current_time() - begun))

    async with trio.open_nursery() as nursery:
        for number in range(BURST + 5):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
    assert [number for number, _ in record] == list(range(BURST + 5))
    assert [time for _, time in record[:BURST]] == pytest.approx([0.0] * BURST)
    assert [time for _, time in record[BURST:]] == pytest.approx([n / rate for n in range(1, 6)])


async def test_who_needs_no_permit_any_more_takes_none(autojump_clock: object) -> None:
    freezer = Freezer(0.05, cpus=2)
    for _ in range(BURST):
        assert await freezer.turn(Wanted())
    assert not await freezer.turn(Wanted(wanted=False))
    begun = trio.current_time()
    assert await freezer.turn(Wanted())
    assert trio.current_time() - begun == pytest.approx(1 / pause_rate(FIRST_COST, 2))


async def test_launches_come_first_but_not_for_ever(autojump_clock: object) -> None:
    freezer = Freezer(0.05, cpus=2)
    begun = trio.current_time()
    asked: list[float] = []

    async def ask() -> None:
        assert await freezer.turn(Wanted())
        asked.append(trio.current_time() - begun)

    async with trio.open_nursery() as nursery:
        with freezer.launches.disturbed():
            nursery.start_soon(ask)
            await trio.sleep(1)
            assert asked == []
        await trio.testing.wait_all_tasks_blocked()
        assert asked == [1]
        with freezer.launches.disturbed():
            for _ in range(3):
                nursery.start_soon(ask)
                await trio.sleep(1)
            await trio.sleep(10)
    assert asked[1:] == [LAUNCHES_FIRST + number for number in (1, 2, 3)]


async def test_pausing_at_once_waits_for_no_launch(autojump_clock: object) -> None:
    freezer = Freezer(0.0)
    begun = trio.current_time()
    with freezer.launches.disturbed():
        assert await freezer.turn(Wanted())
    assert trio.current_time() == begun


async def work(request: SimRequest) -> SimResponse:
    """Hold the container for a while that differs from call to call."""
    body = await request.read()
    await trio.sleep(0.001 * (1 + int(request.header("x-number") or 0) % 7))
    return SimResponse(body=body)


async def load(node: Node, clients: int, seconds: float) -> int:
    """Closed loops of ``clients`` for ``seconds``; the number of calls that were answered."""
    answered = 0
    end = trio.current_time() + seconds

    async def client(number: int) -> None:
        nonlocal answered
        while trio.current_time() < end:
            number += 1
            await node.run("work", headers={"X-Number": [str(number)]})
            answered += 1

    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(client, number)
    return answered


ENGINE: dict[str, Any] = {"freeze_time": 0.02, "unfreeze_time": 0.02, "start_time": 0.15}


async def run_load(folder: Path, clients: int, freeze: float) -> tuple[int, SimDriver]:
    async with (
        open_sim_driver() as driver,
        open_node(driver, folder, memory=16 * 128, freeze_idle_msecs=freeze) as node,
    ):
        driver.add_image("work", work, **ENGINE)
        return await load(node, clients, 1.2), driver


@pytest.mark.parametrize("clients", [3, 10])
async def test_under_load_freezing_costs_next_to_nothing(
    autojump_clock: object, tmp_path: Path, clients: int
) -> None:
    never, _ = await run_load(tmp_path, clients, FOREVER)
    default, driver = await run_load(tmp_path, clients, 50.0)
    assert never > 100
    assert default >= 0.95 * never
    assert driver.kinds().count("thawed") <= 1


@pytest.mark.parametrize("period", [0.3, 1.0, 2.0])
async def test_a_call_now_and_then_pays_no_thaw(
    autojump_clock: object, tmp_path: Path, period: float
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("work", work, **ENGINE)
        for _ in range(30):
            await node.run("work")
            await trio.sleep(period)
        # Only the first gaps can't be foretold.
        assert driver.kinds().count("thawed") <= 1
        assert (driver.kinds().count("thawed") == 0) is (period < FIRST_COST / SHARE)
        await trio.sleep(LONGEST_GRACE)
        assert node.agent.statistics().containers == {ContainerState.PAUSED: 1}
        statistics = node.agent.statistics()
        assert statistics.freezes == statistics.thaws + 1 == driver.kinds().count("frozen")


async def test_what_is_not_needed_is_frozen_beside_what_is(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("work", work, **ENGINE)
        await load(node, 6, 0.5)
        containers = node.agent.statistics().containers
        await load(node, 1, 2.0)  # one of them is enough for that
        paused = node.agent.statistics().containers.get(ContainerState.PAUSED, 0)
        assert paused == sum(containers.values()) - 1


async def test_the_measured_cost_governs_the_grace(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("work", work, freeze_time=0.1, unfreeze_time=0.1)
        for _ in range(20):
            await node.run("work")
            await trio.sleep(6.0)
        await node.run("work")
        await trio.sleep(0.19 / SHARE)
        assert driver.statistics().frozen == 0
        await trio.sleep(0.02 / SHARE)
        assert driver.statistics().frozen == 1


async def test_many_idle_functions_are_frozen_at_the_bounded_rate(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_node(driver, tmp_path, memory=128 * 128) as node,
    ):
        driver.images["echo"].freeze_time = 0.4  # cost rises, so the rate falls to the least
        for number in range(40):
            await node.run(fn_id=f"fn-{number}", idle_timeout=300)
        begun = trio.current_time()
        await until(lambda: driver.statistics().frozen == 40, seconds=60)
        took = trio.current_time() - begun
        assert 5 < took < 40


@pytest.mark.parametrize(("start", "gone"), [(0.1, 2.0), (3.0, 4.0), (60.0, 2.0 + LAUNCHES_FIRST)])
async def test_containers_are_not_removed_while_others_are_launched(
    autojump_clock: object, tmp_path: Path, start: float, gone: float
) -> None:
    """They idle for 2 seconds; after one a launch begins that takes ``start``."""
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        driver.add_image("slow", echo, start_time=start)
        await node.run(idle_timeout=2)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            await trio.sleep(1)
            nursery.start_soon(partial(node.run, "slow", timeout=100, idle_timeout=100))
            await until(lambda: "removed" in driver.kinds())
            assert trio.current_time() - began == pytest.approx(gone, abs=0.05)
            nursery.cancel_scope.cancel()


async def test_a_container_serves_until_launches_let_it_go(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        driver.add_image("slow", echo, start_time=4)
        await node.run(idle_timeout=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(node.run, "slow", idle_timeout=100))
            await trio.sleep(3)
            before = trio.current_time()
            await node.run(idle_timeout=2)  # frozen long since, and beyond its time
            assert trio.current_time() - before < 0.1
            assert driver.kinds().count("created") == 2
            await until(lambda: "removed" in driver.kinds())
            assert trio.current_time() - before == pytest.approx(2, abs=0.1)


async def test_what_changes_meanwhile_does_not_hasten_its_removal(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        driver.add_image("slow", echo, start_time=4)
        await node.run(idle_timeout=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(node.run, "slow", idle_timeout=100))
            await trio.sleep(2.5)
            (queue,) = (queue for queue in node.agent._launcher.queues if queue.idle_count)
            queue.keep(1)
            queue.keep(0)
            await trio.sleep(1.4)
            assert "removed" not in driver.kinds()
            await until(lambda: "removed" in driver.kinds(), seconds=0.2)
