"""Hot containers on virtual time: reuse, freezing, idling, eviction, launching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.agent import ContainerState
from hostler.bodies import BytesBody
from hostler.drivers.sim import (
    SimContainer,
    SimExit,
    SimHandler,
    SimRequest,
    SimResponse,
    echo,
    open_sim_driver,
)
from hostler.errors import (
    ContainerInitFailed,
    ContainerInitTimeout,
    FunctionResponseError,
    ImagePullTimeout,
    ImageWithVolume,
    ServerBusy,
)

from .nodes import Node, open_node, until

NACK: dict[str, Any] = {"enable_nb_resource_tracker": True}


async def sleeper(request: SimRequest) -> SimResponse:
    """Answer after as many seconds as the body says."""
    body = await request.read()
    await trio.sleep(float(body or b"10"))
    return SimResponse(body=body)


async def run_all(node: Node, count: int, image: str, body: bytes) -> list[Exception | None]:
    """Run ``count`` calls at the same time; their outcomes."""
    outcomes: list[Exception | None] = []

    async def one() -> None:
        try:
            assert (await node.run(image, BytesBody(body))).body == body
        except Exception as error:
            outcomes.append(error)
        else:
            outcomes.append(None)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return outcomes


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
        await trio.sleep(0.049)
        assert driver.statistics().frozen == 0
        await trio.sleep(0.002)
        assert driver.statistics().frozen == 1
        assert node.agent.statistics().containers == {ContainerState.PAUSED: 1}
        await node.run()
        kinds = driver.kinds()
        assert kinds[kinds.index("frozen") :][:3] == ["frozen", "thawed", "request"]
        assert driver.statistics().created == 1


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
        open_node(driver, tmp_path, memory=128, slot_wait=3) as node,
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


async def test_scenario_04_initializing_container_is_not_evicted(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_node(driver, tmp_path, memory=128, **NACK) as node,
        trio.open_nursery() as nursery,
    ):
        driver.add_image("slow", listening="never")

        async def first() -> None:
            with pytest.raises(ContainerInitTimeout):
                await node.run("slow")

        nursery.start_soon(first)
        await trio.sleep(3)
        with pytest.raises(ServerBusy):
            await node.run("echo")


async def test_scenario_04_resources_are_held_during_a_pull(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_node(driver, tmp_path, memory=128, hot_pull_timeout_msecs=5000.0, **NACK) as node,
        trio.open_nursery() as nursery,
    ):
        driver.add_image("hanging", on_machine=False, pull_time=100.0)

        async def first() -> None:
            with pytest.raises(ImagePullTimeout):
                await node.run("hanging")

        nursery.start_soon(first)
        await trio.sleep(3)
        with pytest.raises(ServerBusy):
            await node.run("echo")


@pytest.mark.parametrize("delay", [0.0, 0.2])
async def test_scenario_04_exit_at_start_is_init_failed(
    autojump_clock: object, tmp_path: Path, delay: float
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path, **NACK) as node:
        driver.add_image("bad", exit_on_start=0, init_time=delay)
        with pytest.raises(ContainerInitFailed):
            await node.run("bad")
        await until(lambda: node.agent.statistics().at_rest)


async def test_scenario_03_start_limit(autojump_clock: object, tmp_path: Path) -> None:
    async with (
        open_sim_driver() as driver,
        open_node(driver, tmp_path, hot_start_timeout_msecs=3000.0) as node,
    ):
        driver.add_image("slow", init_time=5.0)
        with pytest.raises(ContainerInitTimeout):
            await node.run("slow")


async def test_image_with_volume_is_the_callers_error(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("volume", volumes=True)
        with pytest.raises(ImageWithVolume):
            await node.run("volume")


async def test_image_that_vanishes_is_a_nack(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        image = driver.add_image("gone", create_time=1.0)

        async def remove(task: object) -> None:
            image.on_machine = False

        image.faults = {"validate": remove}
        with pytest.raises(ServerBusy):
            await node.run("gone")


async def test_internal_launch_trouble_reaches_the_call_as_it_is(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("echo", faults={"start": OSError("engine on fire")})
        with pytest.raises(OSError, match="engine on fire"):
            await node.run()


async def test_scenario_03_failing_launches_never_hit_a_call_that_another_container_serves(
    autojump_clock: object,
    tmp_path: Path,
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        started: list[SimContainer] = []

        async def only_the_first(container: SimContainer) -> None:
            started.append(container)
            if len(started) > 1:
                raise SimExit(1)

        driver.add_image("sleep", sleeper, start_hook=only_the_first)
        await node.run("sleep", BytesBody(b"0"))

        async def client() -> None:
            with trio.move_on_after(1):
                while True:
                    await node.run("sleep", BytesBody(b"0.01"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client)
            nursery.start_soon(client)
        statistics = node.agent.statistics()
        assert statistics.launch_failures >= 1
        assert statistics.errors == 0
        assert statistics.launch_failures <= statistics.calls  # no launching in a loop


async def test_exit_of_an_idle_container_is_noticed_at_once(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        await node.run()
        driver.containers()[0].exit(3)
        await until(lambda: node.agent.statistics().at_rest, seconds=0.1)
        await node.run()
        assert driver.statistics().created == 2


async def test_a_container_outlives_the_call_that_caused_it(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("echo", init_time=2.0)
        with trio.move_on_after(1):
            await node.run()
        started = trio.current_time()
        await node.run()
        assert trio.current_time() - started == pytest.approx(1, abs=0.01)
        assert driver.statistics().created == 1


async def test_weakness_01_4_timings_belong_to_the_call_that_waited(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image(
            "echo",
            on_machine=False,
            validate_time=0.5,
            pull_time=3.0,
            create_time=1.0,
            start_time=1.0,
            init_time=2.0,
        )
        cold, hot = node.call(), node.call()
        await node.agent.submit(cold)
        await node.agent.submit(hot)
        seconds = {
            name: round(getattr(cold.timings, name) / 1e9, 1)
            for name in ("image_pull_wait_ns", "ctr_prep_ns", "ctr_create_ns", "init_start_ns")
        }
        assert seconds == {
            "image_pull_wait_ns": 3.0,
            "ctr_prep_ns": 0.5,
            "ctr_create_ns": 2.0,
            "init_start_ns": 2.0,
        }
        assert cold.timings.scheduler_ns / 1e9 == pytest.approx(8.0, abs=0.1)
        assert hot.timings.image_pull_wait_ns == hot.timings.init_start_ns == 0
        assert hot.timings.scheduler_ns < 1e6


@pytest.mark.parametrize("listening", ["linked", "direct"])
async def test_socket_may_be_linked_or_direct(
    autojump_clock: object, tmp_path: Path, listening: str
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("echo", listening=listening)
        assert (await node.run(body=BytesBody(b"x"))).body == b"x"


async def test_functions_with_different_keys_share_nothing(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        await node.run(config={"A": "1"})
        await node.run(config={"A": "2"})
        assert driver.statistics().created == 2


def one_exit(code: int) -> SimHandler:
    async def handler(request: SimRequest) -> SimResponse:
        raise SimExit(code)

    return handler


@pytest.mark.parametrize("code", [0, 1, 134])
async def test_scenario_04_exit_during_the_request(
    autojump_clock: object, tmp_path: Path, code: int
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("bad", one_exit(code))
        with pytest.raises(FunctionResponseError):
            await node.run("bad")
        await until(lambda: node.agent.statistics().at_rest)


async def test_driver_error_while_freezing_ends_only_the_container(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("echo", faults={"freeze": OSError("no cgroup")})
        await node.run()
        await until(lambda: node.agent.statistics().at_rest)
