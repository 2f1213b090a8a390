"""Launches that fail, and containers that die, on virtual time."""

from __future__ import annotations

import gc
import os
import subprocess
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry

from hostler.agent import Agent
from hostler.bodies import BytesBody
from hostler.calls import PendingCall
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
    APIError,
    ContainerInitTimeout,
    FunctionResponseError,
    HostlerError,
    ImagePullTimeout,
    ImageWithVolume,
    ServerBusy,
)
from hostler.metrics import AgentMetrics, ContainerLabels, ReadyOutcome
from tests.conftest import Logs

from .functions import sleeper
from .nodes import open_node, until

NACK: dict[str, Any] = {"enable_nb_resource_tracker": True}


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


async def test_a_place_for_sockets_that_is_lost_is_told_of_by_name(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    """For callers it is an internal error, as in Fn, and not one after which to come again."""
    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_node(driver, tmp_path, **NACK) as node,
    ):
        os.rename(tmp_path, f"{tmp_path}.away")
        with pytest.raises(HostlerError) as caught:
            await node.run("echo")
        os.rename(f"{tmp_path}.away", tmp_path)
        assert not isinstance(caught.value, APIError)
        (line,) = logs.with_event("launch failed")
        assert f"no socket directory can be made in {tmp_path}: " in line["reason"]
        assert "No such file" in line["reason"]
        assert (await node.run("echo", BytesBody(b"x"))).body == b"x"


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for three files."""
    options = "size=1m,nr_inodes=4,mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", tmp_path], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_a_place_for_sockets_without_inodes_sends_the_call_elsewhere(
    few_inodes: Path, logs: Logs
) -> None:
    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_node(driver, few_inodes, **NACK) as node,
    ):
        names = [few_inodes / str(number) for number in range(3)]
        for name in names:
            name.touch()
        with pytest.raises(ServerBusy):
            await node.run("echo")
        (line,) = logs.with_event("no room for a container")
        assert "No space left on device" in line["reason"]
        for name in names:
            name.unlink()
        assert (await node.run("echo", BytesBody(b"x"))).body == b"x"
    assert logs.errors() == []


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


STAGES: dict[str, Any] = {
    "on_machine": False,
    "validate_time": 0.5,
    "pull_time": 3.0,
    "create_time": 1.0,
    "start_time": 1.0,
    "init_time": 2.0,
}
TIMES = [3.0, 0.5, 2.0, 2.0]


def stage_times(call: PendingCall) -> list[float]:
    """Seconds of pull, preparation, creation with start, and initialization."""
    times = call.timings
    stages = (
        times.image_pull_wait_ns,
        times.ctr_prep_ns,
        times.ctr_create_ns,
        times.init_start_ns,
    )
    return [round(stage / 1e9, 1) for stage in stages]


async def test_times_of_a_container_that_was_launched_for_another_call(
    autojump_clock: object, tmp_path: Path
) -> None:
    """Its first caller has left; the next one waits for the rest, and is told of the launch."""
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("echo", **STAGES)
        with trio.move_on_after(5.0):
            await node.run()
        call = node.call()
        await node.agent.submit(call)
        assert driver.statistics().created == 1
        assert stage_times(call) == TIMES
        assert call.timings.scheduler_ns / 1e9 == pytest.approx(3.0, abs=0.1)


async def test_times_of_a_container_that_is_launched_ahead_of_calls(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("echo", **STAGES)
        node.agent.keep_warm(node.call())
        waiting, later = node.call(), node.call()
        await node.agent.submit(waiting)
        await node.agent.submit(later)
        assert driver.statistics().created == 1
        assert stage_times(waiting) == TIMES
        assert stage_times(later) == [0, 0, 0, 0]


async def test_times_of_calls_that_share_a_pull(autojump_clock: object, tmp_path: Path) -> None:
    """Each call has the times of the container that it got; the execution is its own."""
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("sleep", sleeper, **STAGES)
        calls = [node.call("sleep", BytesBody(body)) for body in (b"1", b"2", b"3")]
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(node.agent.submit, call)
        assert [stage_times(call) for call in calls] == [TIMES] * 3
        seconds = [round(call.timings.execution_ns / 1e9, 1) for call in calls]
        assert seconds == [1.0, 2.0, 3.0]


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


async def test_weakness_03_10_nothing_of_a_call_is_kept_when_it_is_over(
    autojump_clock: object, tmp_path: Path
) -> None:
    """Nor are its times changed by launches for others."""
    async with open_sim_driver({"sleep": sleeper}) as driver, open_node(driver, tmp_path) as node:
        image = driver.images["sleep"]
        image.create_time = 1.0
        first = node.call("sleep", BytesBody(b"1"))
        await node.agent.submit(first)
        assert first.timings.ctr_create_ns == 10**9
        image.create_time = 5.0
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(node.run, "sleep", BytesBody(b"10"))
        assert (driver.statistics().created, first.timings.ctr_create_ns) == (2, 10**9)
        kept = weakref.ref(first)
        del first
        gc.collect()
        assert kept() is None
        assert driver.statistics().containers == 2


class _ClosesAgent(AgentMetrics):
    """Closes the agent in the moment in which a container's socket is ready."""

    agent: Agent

    def observe_ready(
        self, outcome: ReadyOutcome, labels: ContainerLabels, duration_ns: int
    ) -> None:
        super().observe_ready(outcome, labels, duration_ns)
        self.agent.close_admission()


async def test_a_container_that_leaves_as_it_becomes_ready_is_not_counted(tmp_path: Path) -> None:
    metrics = _ClosesAgent(CollectorRegistry())
    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_node(driver, tmp_path, metrics=metrics) as node,
    ):
        metrics.agent = node.agent
        with pytest.raises(ServerBusy):
            await node.run()
        await until(lambda: node.agent.statistics().at_rest)
