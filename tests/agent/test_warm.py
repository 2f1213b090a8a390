"""Containers that are kept ready ahead of calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from hostler.abc import ContainerTask
from hostler.agent import ContainerState
from hostler.agent.template import MAX_MIN_WARM, MIN_WARM_ANNOTATION, min_warm
from hostler.agent.warm import FIRST_PAUSE, LINGER
from hostler.bodies import BytesBody
from hostler.drivers.sim import SimDriver, SimRequest, SimResponse, echo, open_sim_driver
from hostler.errors import ServerBusy

from .nodes import Node, open_node, until

SLOW_START: dict[str, Any] = {"create_time": 0.5, "start_time": 1.0, "init_time": 0.5}


def idle(node: Node) -> int:
    return node.agent.statistics().containers.get(ContainerState.IDLE, 0)


def annotated(value: object) -> dict[str, msgspec.Raw]:
    return {MIN_WARM_ANNOTATION: msgspec.Raw(msgspec.json.encode(value))}


async def hold(request: SimRequest) -> SimResponse:
    await request.read()
    await trio.sleep(5)
    return SimResponse()


async def test_the_first_call_finds_a_container(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("echo", **SLOW_START)
        warm = node.agent.keep_warm(node.call(), 2)
        await warm.wait_ready()
        assert trio.current_time() > 0
        assert (idle(node), node.agent.statistics().used.memory) == (2, 2 * 128 * 2**20)
        assert repr(warm) == "<WarmHold 2 of 2>"
        began = trio.current_time()
        call = node.call(body=BytesBody(b"x"))
        await node.agent.submit(call)
        assert trio.current_time() - began < 0.001
        assert call.timings.init_start_ns == 0
        assert driver.statistics().created == 2


async def test_kept_containers_neither_freeze_nor_retire_until_released(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        warm = node.agent.keep_warm(node.call(), 2)
        await trio.sleep(600)
        assert idle(node) == 2
        assert "frozen" not in driver.kinds()
        warm.release()
        warm.release()
        await until(lambda: node.agent.statistics().at_rest, seconds=31)
        assert driver.statistics().created == 2


async def test_what_goes_beyond_is_frozen_and_retired(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("hold", hold)
        node.agent.keep_warm(node.call("hold"), 1)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(node.run, "hold")
        await trio.sleep(6)
        assert node.agent.statistics().containers == {
            ContainerState.IDLE: 1,
            ContainerState.PAUSED: 2,
        }
        # The one that is kept is the one that the next call takes.
        await node.run("hold")
        assert "thawed" not in driver.kinds()
        await trio.sleep(60)
        assert node.agent.statistics().containers == {ContainerState.IDLE: 1}


async def test_a_frozen_container_thaws_when_it_is_to_be_kept(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        await node.run()
        await trio.sleep(6)
        assert driver.statistics().frozen == 1
        node.agent.keep_warm(node.call(), 1)
        await trio.sleep(60)
        assert node.agent.statistics().containers == {ContainerState.IDLE: 1}
        assert driver.statistics().frozen == 0
        assert driver.statistics().created == 1


async def test_who_dies_is_replaced_more_and_more_slowly(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        warm = node.agent.keep_warm(node.call(), 1)
        pauses = []
        for _ in range(4):
            await warm.wait_ready()
            died = trio.current_time()
            driver.containers()[0].exit(1)
            await until(lambda: not driver.containers())
            with trio.fail_after(60):
                await warm.wait_ready()
            pauses.append(trio.current_time() - died)
        assert pauses == pytest.approx([FIRST_PAUSE * 2**n for n in range(4)], abs=0.05)


async def test_a_function_that_cannot_start_does_not_keep_the_machine_busy(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("bad", exit_on_start=1)
        warm = node.agent.keep_warm(node.call("bad"), 1)
        with trio.move_on_after(300) as scope:
            await warm.wait_ready()
        assert scope.cancelled_caught
        assert 5 < driver.statistics().created < 15
        warm.release()
        await until(lambda: node.agent.statistics().at_rest)


async def test_they_take_only_room_that_nobody_wants(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_node(driver, tmp_path, memory=2 * 128) as node,
    ):
        driver.add_image("hold", hold)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(node.run, "hold")
            await trio.sleep(1)
            warm = node.agent.keep_warm(node.call("echo"), 1)
            await trio.sleep(1)
            assert node.agent.statistics().evictions == 0
            assert driver.statistics().created == 2
        # Room becomes free when the containers of the others idle out; that is an event.
        with trio.fail_after(31):
            await warm.wait_ready()


async def test_they_are_evicted_last_and_come_back(autojump_clock: object, tmp_path: Path) -> None:
    images = dict.fromkeys(("kept", "used", "new"), echo)
    async with (
        open_sim_driver(images) as driver,
        open_node(driver, tmp_path, memory=2 * 128) as node,
    ):
        await node.agent.keep_warm(node.call("kept"), 1).wait_ready()
        await trio.sleep(1)
        await node.run("used")
        await node.run("new")  # "used" was used later than "kept", and yet it has to go

        def images_alive() -> list[str]:
            return sorted(container.image.name for container in driver.containers())

        assert images_alive() == ["kept", "new"]
        await node.run("new", memory=256, config={"BIG": "1"})
        assert images_alive() == ["new"]
        await until(lambda: images_alive() == ["kept"], seconds=60)


async def test_two_holds_want_the_most_of_theirs(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        more = node.agent.keep_warm(node.call(), 3)
        node.agent.keep_warm(node.call(), 1)
        await trio.sleep(40)
        assert idle(node) == 3
        more.release()
        await trio.sleep(40)
        assert idle(node) == 1
        assert driver.statistics().created == 3


async def test_the_annotation_keeps_them_from_the_first_call_on(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        await node.run(annotations=annotated(2))
        await trio.sleep(600)
        assert idle(node) == 2
        assert driver.statistics().created == 2
        await trio.sleep(LINGER)
        node.check_at_rest()


async def test_a_callers_token_is_not_used_ahead_of_other_calls(
    autojump_clock: object, tmp_path: Path
) -> None:
    seen: list[str] = []

    class Spy(SimDriver):
        async def create_cookie(self, task: ContainerTask) -> Any:
            seen.append(task.registry_token)
            assert task.extensions == {"tenant": "blue"}
            return await super().create_cookie(task)

    async with trio.open_nursery() as nursery:
        driver = Spy(nursery)
        driver.add_image("echo")
        async with open_node(driver, tmp_path) as node:
            call = node.call(annotations=annotated(2))
            call.extensions |= {"FN_REGISTRY_TOKEN": "secret", "tenant": "blue"}
            await node.agent.submit(call)
            await trio.sleep(1)
        assert sorted(seen) == ["", "secret"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("value", "count"),
    [(3, 3), (0, 0), (-1, 0), (10**9, MAX_MIN_WARM), ("2", 0), (None, 0), ([1], 0), (1.5, 0)],
)
def test_the_annotations_values(value: object, count: int) -> None:
    assert min_warm(annotated(value)) == count
    assert min_warm({}) == 0


async def test_bad_arguments_and_closing(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        with pytest.raises(ValueError, match="at least 1"):
            node.agent.keep_warm(node.call(), 0)
        call = node.call()
        await node.agent.keep_warm(node.call(), 2).wait_ready()
        node.agent.close_admission()
        with pytest.raises(ServerBusy):
            node.agent.keep_warm(call)
        await until(lambda: node.agent.statistics().at_rest)
        assert driver.statistics().created == 2
