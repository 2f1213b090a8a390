"""What a client that does not take its response holds up: its call, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from hostler.agent import ContainerState
from hostler.drivers.sim import SimDriver, SimRequest, SimResponse, echo, open_sim_driver
from hostler.errors import CallTimeout

from ..conftest import Logs
from .fakes import StuckWriter
from .nodes import Node, open_node, until

PIECE = bytes(64 * 1024)


async def big(request: SimRequest) -> SimResponse:
    return SimResponse(body=PIECE)


def kill(driver: SimDriver) -> None:
    for container in driver.containers():
        container.exit(137)


async def start_stuck(node: Node, nursery: trio.Nursery, seconds: int = 300) -> StuckWriter:
    """A call whose function has sent all and whose client takes nothing."""
    writer = StuckWriter()

    async def run() -> None:
        with pytest.raises(CallTimeout):
            await node.agent.submit(node.call("big", writer=writer, timeout=seconds))

    nursery.start_soon(run)
    await writer.stuck.wait()
    return writer


async def test_the_room_of_a_dead_container_is_free_at_once(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    async with (
        open_sim_driver({"big": big, "echo": echo}) as driver,
        open_node(driver, tmp_path, memory=128) as node,
    ):
        descriptors = len(os.listdir("/proc/self/fd"))
        async with trio.open_nursery() as nursery:
            await start_stuck(node, nursery)
            begun = trio.current_time()
            kill(driver)
            await until(lambda: not node.agent.statistics().used)
            await node.run(idle_timeout=1)  # needs the whole machine
            assert trio.current_time() - begun < 1
            await until(lambda: driver.statistics().cookies == 0)
            await trio.sleep(100)
            statistics = node.agent.statistics()
            assert (statistics.running, statistics.leaving) == (1, 1)
            assert not statistics.used
        # the call's time is up
        await until(lambda: node.agent.statistics().at_rest)
        assert trio.current_time() - begun == pytest.approx(300, abs=1)
        assert len(os.listdir("/proc/self/fd")) <= descriptors
        assert [e for e in logs if e["log_level"] in ("warning", "error")] == []


async def test_what_the_function_had_sent_is_still_delivered(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"big": big}) as driver, open_node(driver, tmp_path) as node:
        writer = StuckWriter()
        async with trio.open_nursery() as nursery:
            call = node.call("big", writer=writer, timeout=300)
            nursery.start_soon(node.agent.submit, call)
            await writer.stuck.wait()
            kill(driver)
            await trio.sleep(60)
            writer.go_on.set()
        assert writer.body == PIECE
        await until(lambda: node.agent.statistics().at_rest)


async def test_a_kept_container_is_replaced_while_the_dead_ones_call_goes_on(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"big": big}) as driver,
        open_node(driver, tmp_path, memory=128) as node,
    ):
        hold = node.agent.keep_warm(node.call("big"), 1)
        await hold.wait_ready()
        async with trio.open_nursery() as nursery:
            await start_stuck(node, nursery, seconds=60)
            kill(driver)
            await until(lambda: ContainerState.IDLE in node.agent.statistics().containers)
            assert node.agent.statistics().running == 1
        hold.release()


async def test_an_agent_that_closes_does_not_wait_for_the_client(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"big": big}) as driver:
        begun = trio.current_time()
        with trio.move_on_after(5):
            async with open_node(driver, tmp_path) as node, trio.open_nursery() as nursery:
                await start_stuck(node, nursery)
                kill(driver)
                await trio.sleep_forever()
        assert trio.current_time() - begun < 6
        node.check_at_rest()
