"""The agent with a real engine: who gets the room, and what is in a container of it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import trio

from hostler.agent import ContainerState
from hostler.bodies import BytesBody
from hostler.errors import (
    ServerBusy,
)

from .machine import Machine, do, pid, until, until_state

pytestmark = pytest.mark.docker


ONE: dict[str, Any] = {"memory": 128, "enable_nb_resource_tracker": True}
"""Room for one container, and nobody waits for it."""


async def test_scenario_03_nack_mode_room_for_five(machine: Machine) -> None:
    outcomes: list[str] = []
    async with machine.open(memory=5 * 128, enable_nb_resource_tracker=True) as node:

        async def call() -> None:
            try:
                await do(node, machine, "sleep=3000")
                outcomes.append("served")
            except ServerBusy:
                outcomes.append("busy")

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(call)
    assert outcomes.count("served") == 5
    assert outcomes.count("busy") == 15


async def test_scenario_04_busy_containers_are_not_evicted(machine: Machine) -> None:
    async with machine.open(**ONE) as node, trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(do, node, machine, "hang", fn_id="first"))
        await until_state(node, {ContainerState.BUSY: 1})
        with pytest.raises(ServerBusy):
            await do(node, machine, fn_id="second")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("freeze", "state"), [(-1.0, "idle"), (0.0, "paused")])
async def test_scenario_04_idle_containers_are_evicted_even_if_paused(
    machine: Machine, freeze: float, state: str
) -> None:
    settings = {**ONE, "freeze_idle_msecs": freeze if freeze >= 0 else float("inf")}
    async with machine.open(**settings) as node:
        await do(node, machine, fn_id="first")
        await until_state(node, {ContainerState(state): 1})
        (container,) = machine.containers()
        assert container["State"] == ("paused" if state == "paused" else "running")
        assert (await do(node, machine, "", BytesBody(b"x"), fn_id="second")).body == b"x"
        assert node.agent.statistics().evictions == 1


async def test_scenario_04_initializing_container_is_not_evicted(machine: Machine) -> None:
    async with machine.open(**ONE) as node, trio.open_nursery() as nursery:
        first = functools.partial(do, node, machine, config={"FNT_START": "hang"})
        nursery.start_soon(first)
        await until_state(node, {ContainerState.START: 1})
        with pytest.raises(ServerBusy):
            await do(node, machine, fn_id="second")
        nursery.cancel_scope.cancel()


async def test_a_thaw_is_over_before_the_request_is_written(machine: Machine) -> None:
    async with machine.open(freeze_idle_msecs=0.0) as node:
        first = await pid(node, machine)
        for _ in range(3):
            await until_state(node, {ContainerState.PAUSED: 1})
            assert await pid(node, machine) == first


async def test_kept_containers_are_there_before_the_first_call(machine: Machine) -> None:
    async with machine.open() as node:
        await node.agent.keep_warm(node.call(machine.image), 2).wait_ready()
        assert [c["State"] for c in machine.containers()] == ["running", "running"]
        call = node.call(machine.image)
        await node.agent.submit(call)
        assert call.timings.init_start_ns == 0
        assert node.agent.statistics().launches == 2


async def test_killed_container_that_was_kept_is_replaced(machine: Machine) -> None:
    async with machine.open() as node:
        warm = node.agent.keep_warm(node.call(machine.image), 1)
        await warm.wait_ready()
        (container,) = machine.containers()
        await trio.to_thread.run_sync(machine.engine.kill, container["Id"])
        await until(lambda: container["Id"] not in {c["Id"] for c in machine.containers()})
        await warm.wait_ready()
        assert len(machine.containers()) == 1
