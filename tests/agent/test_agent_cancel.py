"""Cancelling a call at every moment of its life, and the agent in the midst of its work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hostler.abc import Body
from hostler.bodies import BytesBody
from hostler.drivers.sim import SimDriver, SimRequest, SimResponse, open_sim_driver
from hostler.errors import APIError

from .fakes import StreamBody
from .nodes import Node, Recorder, open_node, until

STAGES: dict[str, Any] = {
    "on_machine": False,
    "validate_time": 1.0,
    "pull_time": 1.0,
    "create_time": 1.0,
    "start_time": 1.0,
    "init_time": 1.0,
    "freeze_time": 1.0,
    "unfreeze_time": 1.0,
    "remove_time": 1.0,
}
COLD = 6.0
"""Seconds until a cold call runs: it is validated twice."""


async def slow_echo(request: SimRequest) -> SimResponse:
    body = await request.read()
    await trio.sleep(1)

    async def answer() -> Any:
        yield body
        await trio.sleep(1)
        yield body

    return SimResponse(body=answer())


def add_slow(driver: SimDriver) -> None:
    driver.add_image("slow", slow_echo, **STAGES)


@pytest.mark.parametrize("moment", [step / 2 for step in range(18)])
@pytest.mark.parametrize("body", [BytesBody(b"x"), StreamBody(b"x")])
async def test_a_cancelled_call_leaves_nothing_behind(
    autojump_clock: object, tmp_path: Path, moment: float, body: Body
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        add_slow(driver)
        with trio.move_on_after(moment) as scope:
            await node.run("slow", body)
        statistics = node.agent.statistics()
        assert (statistics.queued, statistics.running) == (0, 0)
        assert statistics.canceled == (1 if scope.cancelled_caught else 0)
        assert statistics.completed == (0 if scope.cancelled_caught else 1)
        # The container is the agent's: it is there for the next call, or on its way out.
        assert (await node.run("slow", BytesBody(b"y"))).body == b"yy"
        await until(lambda: node.agent.statistics().at_rest, seconds=60)
        assert driver.statistics().cookies == driver.statistics().containers == 0


async def test_a_call_cancelled_before_it_runs_does_not_cost_its_container(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("echo", slow_echo)
        await node.run()
        with trio.CancelScope() as scope:
            scope.cancel()
            await node.run()
        assert scope.cancelled_caught
        await node.run()
        assert node.agent.statistics().launches == 1


@pytest.mark.parametrize("moment", [step / 4 for step in range(10)])
async def test_a_call_cancelled_during_a_thaw_does_no_harm(
    autojump_clock: object, tmp_path: Path, moment: float
) -> None:
    async with (
        open_sim_driver() as driver,
        open_node(driver, tmp_path, freeze_idle_msecs=500.0) as node,
    ):
        add_slow(driver)
        await node.run("slow", BytesBody(b"x"))
        await trio.sleep(0.5 + moment)
        with trio.move_on_after(0.3):
            await node.run("slow", BytesBody(b"y"))
        assert (await node.run("slow", BytesBody(b"z"))).body == b"zz"


@pytest.mark.parametrize("moment", [step / 2 for step in range(18)])
async def test_an_agent_cancelled_at_any_time_leaves_nothing_behind(
    autojump_clock: object, tmp_path: Path, moment: float
) -> None:
    node: Node | None = None
    async with open_sim_driver() as driver:
        add_slow(driver)
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.move_on_after(moment):
            async with open_node(driver, tmp_path, memory=256) as node, trio.open_nursery() as own:
                for _ in range(3):  # the third one waits for room
                    own.start_soon(node.run, "slow", BytesBody(b"x"))
                await trio.sleep_forever()
        if node is not None:
            node.check_at_rest()
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == before)
        assert driver.statistics().cookies == driver.statistics().containers == 0


@pytest.mark.parametrize("moment", [step / 2 + 0.25 for step in range(18)])
async def test_a_container_that_dies_at_any_time_leaves_nothing_behind(
    autojump_clock: object, tmp_path: Path, moment: float
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        add_slow(driver)

        async def kill() -> None:
            await trio.sleep(moment)
            for container in driver.containers():
                container.exit(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            outcome = 200
            try:
                await node.run("slow", BytesBody(b"x"))
            except APIError as error:
                outcome = error.code
        assert outcome == (502 if 5 <= moment < 8 else 200)
        await until(lambda: node.agent.statistics().at_rest, seconds=60)


async def test_the_slot_of_a_call_cancelled_while_waiting_goes_to_the_next_one(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path, memory=128) as node:
        driver.add_image("slow", slow_echo)
        done: list[Recorder] = []

        async def run() -> None:
            done.append(await node.run("slow", BytesBody(b"x")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await until(lambda: node.agent.statistics().running == 1)
            with trio.move_on_after(1):
                await node.run("slow", BytesBody(b"never"))
            nursery.start_soon(run)
        assert [recorder.body for recorder in done] == [b"xx", b"xx"]
        assert driver.statistics().created == 1
