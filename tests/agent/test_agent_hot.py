"""Hot containers on virtual time: reuse, freezing, idling, eviction, launching."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from hostler.agent import ContainerState
from hostler.agent.freezing import FIRST_COST, SHARE
from hostler.bodies import BytesBody
from hostler.drivers.sim import (
    SimContainer,
    echo,
    open_sim_driver,
)
from hostler.errors import (
    ServerBusy,
)

from .functions import sleeper
from .nodes import NACK, open_node, run_all, until


async def test_scenario_03_second_call_gets_its_own_echo_from_the_same_container(
    autojump_clock: object,
    tmp_path: Path,
) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        for text in (b"one", b"two", b""):
            assert (await node.run(body=BytesBody(text))).body == text
        assert driver.statistics().created == 1
        assert node.agent.statistics().completed == 3


async def test_idle_container_freezes_and_thaws_before_the_next_request(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("echo", unfreeze_time=2.0)
        await node.run()
        await trio.sleep(FIRST_COST / SHARE - 0.001)
        assert driver.statistics().frozen == 0
        await trio.sleep(0.002)
        assert driver.statistics().frozen == 1
        assert node.agent.statistics().containers == {ContainerState.PAUSED: 1}
        await node.run()
        kinds = driver.kinds()
        assert kinds[kinds.index("frozen") :][:3] == ["frozen", "thawed", "request"]
        assert driver.statistics().created == 1


async def test_a_frozen_container_that_is_given_back_before_its_thaw_counts_as_paused(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("echo", unfreeze_time=1.0)
        await node.run()
        await trio.sleep(1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await node.run()
        await until(lambda: not node.agent.statistics().running)
        assert node.agent.statistics().canceled == 1
        assert node.agent.statistics().containers == {ContainerState.PAUSED: 1}
        assert "thawed" not in driver.kinds()
        # within the thaw
        with trio.move_on_after(0.5):
            await node.run()
        assert node.agent.statistics().containers == {ContainerState.PAUSED: 1}
        await until(lambda: "thawed" in driver.kinds())
        await until(lambda: node.agent.statistics().containers == {ContainerState.IDLE: 1})


async def test_thawing_is_not_the_functions_time(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("echo", unfreeze_time=4.0)
        await node.run(timeout=1)
        await trio.sleep(1)
        await node.run(timeout=1)


async def test_a_container_that_does_not_thaw_is_replaced_without_harm(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        image = driver.add_image("echo", unfreeze_time=100.0)
        await node.run()
        await trio.sleep(1)
        started = trio.current_time()
        assert (await node.run(body=BytesBody(b"x"))).body == b"x"
        assert trio.current_time() - started == pytest.approx(5)
        assert driver.statistics().created == 2
        image.unfreeze_time = 0


async def test_a_busy_function_is_never_frozen(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path, memory=128) as node:
        driver.add_image("sleep", sleeper)
        assert await run_all(node, 10, "sleep", b"0.3") == [None] * 10
        assert "frozen" not in driver.kinds()


async def test_freeze_at_once_and_never(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver({"echo": echo}) as driver:
        async with open_node(driver, tmp_path, freeze_idle_msecs=0.0) as node:
            await node.run()
            await until(lambda: driver.statistics().frozen == 1)
        async with open_node(driver, tmp_path, freeze_idle_msecs=float("inf")) as node:
            await node.run()
            await trio.sleep(29)
            assert driver.statistics().frozen == 0


async def test_a_frozen_container_idles_out(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        await node.run(idle_timeout=3)
        await trio.sleep(2.9)
        assert driver.statistics().frozen == 1
        await trio.sleep(0.2)
        assert driver.statistics().containers == 0
        node.check_at_rest()


async def test_idle_time_counts_from_the_last_use(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        for _ in range(5):
            await node.run(idle_timeout=3)
            await trio.sleep(2.5)
        assert driver.statistics().created == 1


async def test_weakness_03_2_a_burst_starts_as_many_containers_at_once(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path, memory=6 * 128) as node:
        driver.add_image("sleep", sleeper, init_time=1.0)
        started = trio.current_time()
        assert await run_all(node, 6, "sleep", b"2") == [None] * 6
        assert trio.current_time() - started == pytest.approx(3, abs=0.01)


async def test_launch_concurrency_bounds_creating_and_starting(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver() as driver,
        open_node(driver, tmp_path, launch_concurrency=2) as node,
    ):
        driver.add_image("sleep", sleeper, create_time=1.0)
        started = trio.current_time()
        assert await run_all(node, 6, "sleep", b"10") == [None] * 6
        assert trio.current_time() - started == pytest.approx(13, abs=0.01)


async def test_scenario_03_nack_mode_room_for_five(autojump_clock: object, tmp_path: Path) -> None:
    async with (
        open_sim_driver() as driver,
        open_node(driver, tmp_path, memory=5 * 128, **NACK) as node,
    ):
        driver.add_image("sleep", sleeper)
        outcomes = await run_all(node, 20, "sleep", b"10")
        assert outcomes.count(None) == 5
        assert sum(isinstance(outcome, ServerBusy) for outcome in outcomes) == 15
        assert node.agent.statistics().server_busy == 15


async def test_blocking_mode_serves_all_in_turn(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path, memory=5 * 128) as node:
        driver.add_image("sleep", sleeper)
        assert await run_all(node, 20, "sleep", b"10") == [None] * 20
        assert driver.statistics().created == 5


async def test_weakness_03_8_waiting_for_a_slot_can_be_bounded(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver() as driver,
        open_node(driver, tmp_path, memory=128, slot_wait_msecs=3000) as node,
    ):
        driver.add_image("sleep", sleeper)
        outcomes = await run_all(node, 2, "sleep", b"10")
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "ServerBusy"]


async def test_scenario_04_busy_containers_are_not_evicted(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"echo": echo, "sleep": sleeper}) as driver,
        open_node(driver, tmp_path, memory=128, **NACK) as node,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(node.run, "sleep", BytesBody(b"8"))
        await trio.sleep(3)
        with pytest.raises(ServerBusy):
            await node.run("echo")


@pytest.mark.parametrize("freeze", [50.0, float("inf")])
async def test_scenario_04_idle_containers_are_evicted_even_if_paused(
    autojump_clock: object, tmp_path: Path, freeze: float
) -> None:
    async with (
        open_sim_driver({"one": echo, "two": echo}) as driver,
        open_node(driver, tmp_path, memory=128, freeze_idle_msecs=freeze, **NACK) as node,
    ):
        driver.images["one"].remove_time = 0.5
        await node.run("one")
        await trio.sleep(3)
        await node.run("two", BytesBody(b"x"))
        assert node.agent.statistics().evictions == 1
        assert [c.image.name for c in driver.containers()] == ["two"]


async def test_the_room_of_what_has_stopped_is_free_before_the_rest_of_it_is_removed(
    autojump_clock: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with an engine that removes files for long after it has killed a container."""
    monkeypatch.setattr(SimContainer, "wait_stopped", SimContainer.wait, raising=False)
    async with (
        open_sim_driver({"one": echo, "two": echo}) as driver,
        open_node(driver, tmp_path, memory=128, **NACK) as node,
    ):
        driver.images["one"].remove_time = 5
        await node.run("one")
        began = trio.current_time()
        await node.run("two")
        assert trio.current_time() - began < 1
        assert node.agent.statistics().used.memory == 128 * 2**20
        await trio.sleep(6)
        assert [c.image.name for c in driver.containers()] == ["two"]
        assert node.agent.statistics().used.memory == 128 * 2**20


async def test_weakness_03_5_the_least_recently_used_is_evicted(
    autojump_clock: object, tmp_path: Path
) -> None:
    images = dict.fromkeys(("a", "b", "c", "d"), echo)
    async with open_sim_driver(images) as driver, open_node(driver, tmp_path, memory=384) as node:
        for name in ("a", "b", "c", "a"):
            await node.run(name)
            await trio.sleep(0.01)
        await node.run("d")
        assert sorted(c.image.name for c in driver.containers()) == ["a", "c", "d"]


async def test_weakness_03_3_one_eviction_frees_one_room(
    autojump_clock: object, tmp_path: Path
) -> None:
    """While the evicted container is being removed nobody else is evicted or refused."""
    async with (
        open_sim_driver({"a": echo, "b": echo, "c": echo}) as driver,
        open_node(driver, tmp_path, memory=256, **NACK) as node,
    ):
        for image in driver.images.values():
            image.remove_time = 2
        await node.run("a")
        await node.run("b")
        await node.run("c")
        assert node.agent.statistics().evictions == 1


async def test_a_call_waits_for_a_container_that_becomes_idle_and_is_evicted(
    autojump_clock: object,
    tmp_path: Path,
) -> None:
    async with (
        open_sim_driver({"echo": echo, "sleep": sleeper}) as driver,
        open_node(driver, tmp_path, memory=128) as node,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(node.run, "sleep", BytesBody(b"8"))
        await trio.sleep(1)
        started = trio.current_time()
        await node.run("echo")
        assert trio.current_time() - started == pytest.approx(7, abs=0.01)
