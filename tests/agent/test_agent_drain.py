"""How an agent ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from hostler import options
from hostler._concurrency.alarm import SharedTimer
from hostler.agent import ContainerState, Resources, open_agent
from hostler.bodies import BytesBody
from hostler.config import AgentConfig
from hostler.drivers.sim import (
    SimRequest,
    SimResponse,
    echo,
    open_sim_driver,
)
from hostler.errors import (
    APIError,
    ServerBusy,
)
from tests.conftest import Logs

from .functions import hang
from .nodes import MIB, Node, call_model, open_node, until


async def test_drain_refuses_who_waits_and_lets_the_running_finish(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def slow(request: SimRequest) -> SimResponse:
        await trio.sleep(5)
        return SimResponse()

    outcomes: dict[str, BaseException | None] = {}
    async with open_sim_driver({"slow": slow}) as driver, trio.open_nursery() as nursery:
        async with open_node(driver, tmp_path, memory=128) as node:

            async def run(name: str) -> None:
                outcomes[name] = None
                try:
                    await node.run("slow")
                except Exception as error:
                    outcomes[name] = error

            nursery.start_soon(run, "running")
            await until(lambda: node.agent.statistics().running == 1)
            nursery.start_soon(run, "waiting")
            await until(lambda: node.agent.statistics().queued == 1)
            started = trio.current_time()
        assert trio.current_time() - started == pytest.approx(5, abs=0.1)
        assert isinstance(outcomes["waiting"], ServerBusy)
        assert outcomes["running"] is None
        with pytest.raises(ServerBusy):
            await node.run("slow")


async def test_a_drain_that_has_begun_runs_what_has_room_and_refuses_who_would_wait(
    autojump_clock: object, tmp_path: Path
) -> None:
    """As a front end does it: requests that it has accepted get their calls."""

    async def slow(request: SimRequest) -> SimResponse:
        await trio.sleep(5)
        return SimResponse()

    async def refused(node: Node) -> None:
        with pytest.raises(ServerBusy):
            await node.run("slow")

    async with open_sim_driver({"slow": slow, "echo": echo}) as driver:
        async with trio.open_nursery() as nursery, open_node(driver, tmp_path, memory=256) as node:
            await node.run("echo")
            nursery.start_soon(node.run, "slow")
            await until(lambda: node.agent.statistics().running == 1)
            launches = node.agent.statistics().launches
            node.agent.begin_drain()
            await node.run("echo")  # its container was kept
            assert node.agent.statistics().launches == launches
            nursery.start_soon(node.run, "slow")  # in the place of the idle one
            await until(lambda: node.agent.statistics().running == 2)
            nursery.start_soon(refused, node)
            await until(lambda: node.agent.statistics().server_busy == 1)
        statistics = node.agent.statistics()
        assert (statistics.completed, statistics.canceled) == (4, 0)
        assert statistics.at_rest


async def test_the_begin_of_a_drain_refuses_who_waits_for_room(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def refused(node: Node) -> None:
        with pytest.raises(ServerBusy):
            await node.run("hang")

    async with (
        open_sim_driver({"hang": hang}) as driver,
        open_node(driver, tmp_path, memory=128) as node,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(node.run, "hang")
        await until(lambda: node.agent.statistics().running == 1)
        nursery.start_soon(refused, node)
        await until(lambda: node.agent.statistics().waiting_for_room == 1)
        node.agent.begin_drain()
        await until(lambda: node.agent.statistics().server_busy == 1)
        statistics = node.agent.statistics()
        assert (statistics.running, statistics.waiting_for_room) == (1, 0)
        nursery.cancel_scope.cancel()


async def test_drain_ends_what_is_left_after_the_grace(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"hang": hang}) as driver, trio.open_nursery() as nursery:
        async with open_node(driver, tmp_path, drain_grace_msecs=3000.0) as node:

            async def run() -> None:
                with pytest.raises(APIError, match="closed during the call") as caught:
                    await node.run("hang")
                assert caught.value.code == 500

            nursery.start_soon(run)
            await until(lambda: node.agent.statistics().running == 1)
            started = trio.current_time()
        assert trio.current_time() - started == pytest.approx(3, abs=0.1)


async def test_weakness_03_1_closing_under_a_running_call_is_idle(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"hang": hang}) as driver,
        trio.open_nursery() as nursery,
        open_node(driver, tmp_path) as node,
    ):

        async def run() -> None:
            with trio.move_on_after(10):
                await node.run("hang")

        nursery.start_soon(run)
        await until(lambda: node.agent.statistics().running == 1)
        node.agent.close_admission()
        await trio.testing.wait_all_tasks_blocked()  # never returns if somebody spins
        assert node.agent.statistics().running == 1


async def test_an_exception_leaves_the_block_as_it_is(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as driver:
        with pytest.raises(ValueError, match="from the block"):  # noqa: PT012
            async with open_agent(
                driver,
                config=AgentConfig(iofs_path=str(tmp_path)),
                total=Resources(1024 * MIB, 1000),
            ) as agent:
                await agent.submit(agent.get_call(options.from_model(call_model())))
                raise ValueError("from the block")
        assert agent.statistics().at_rest
        assert os.listdir(tmp_path) == []


async def test_that_of_a_task_of_the_agent_leaves_it_beside_the_block_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: SharedTimer) -> None:
        raise KeyError

    async def run() -> None:
        async with open_sim_driver() as driver, open_node(driver, tmp_path):
            try:
                await trio.sleep_forever()
            finally:
                raise Mine

    class Mine(Exception):
        pass

    monkeypatch.setattr(SharedTimer, "watch", fail)
    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(KeyError, depth=1)
    assert caught.group_contains(Mine, depth=1)


async def test_removal_that_hangs_does_not_hang_the_agent(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    async with open_sim_driver({"echo": echo}) as driver:
        driver.images["echo"].remove_time = 1000
        async with open_node(driver, tmp_path) as node:
            await node.run()
        logs.expect_error("removal takes too long")


async def test_agent_describes_itself(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        await node.run(body=BytesBody(b"x"))
        assert node.agent.statistics().containers == {ContainerState.IDLE: 1}
        assert node.agent.statistics().used == Resources(128 * MIB, 0)
        assert "running=0" in repr(node.agent)
