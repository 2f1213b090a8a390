"""What callers are told of containers that end before they are ready, or under a call."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from hostler.abc import Body, ContainerTask, Cookie, Driver, RunningContainer, RunResult
from hostler.agent import Resources
from hostler.agent.dispatch import END_WAIT, REASON_WAIT
from hostler.bodies import BytesBody
from hostler.drivers.sim import (
    SimContainer,
    SimDisconnect,
    SimDriver,
    SimExit,
    SimHandler,
    SimRequest,
    SimResponse,
    open_sim_driver,
)
from hostler.errors import (
    APIError,
    ContainerInitFailed,
    ContainerOutOfMemory,
    FunctionResponseError,
    ServerBusy,
)
from hostler.http1.client import KEEP_ALIVE

from .fakes import StreamBody
from .nodes import Node, Recorder, open_node, until

NACK: dict[str, Any] = {"enable_nb_resource_tracker": True}


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (RunResult("success"), "exited with code 0"),
        (RunResult("error", 3), "exited with code 3"),
        (RunResult("error", 128), "exited with code 128"),
        (RunResult("error", 137), "was killed by signal 9"),
        (RunResult("error", 255), "exited with code 255"),
        (RunResult("error"), ""),
    ],
)
def test_an_exit_code_is_told_as_what_it_means(result: RunResult, reason: str) -> None:
    assert result.reason == reason


@pytest.mark.parametrize(
    ("delay", "code", "reason"),
    [
        (0.0, 0, "exited with code 0"),
        (0.2, 3, "exited with code 3"),
        (0.2, 137, "was killed by signal 9"),
    ],
)
async def test_scenario_04_exit_at_start_is_init_failed(
    autojump_clock: object, tmp_path: Path, delay: float, code: int, reason: str
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path, **NACK) as node:
        driver.add_image("bad", exit_on_start=code, init_time=delay)
        with pytest.raises(ContainerInitFailed) as caught:
            await node.run("bad")
        assert (caught.value.code, caught.value.blame) == (502, "user")
        assert str(caught.value) == f"{ContainerInitFailed()}: the container {reason}"
        await until(lambda: node.agent.statistics().at_rest)


async def test_out_of_memory_before_it_is_ready_says_so(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def eat(container: SimContainer) -> None:
        raise SimExit(137, out_of_memory=True)

    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("big", start_hook=eat)
        with pytest.raises(ContainerOutOfMemory) as caught:
            await node.run("big")
        assert (caught.value.code, caught.value.blame) == (502, "user")


async def hang_once(request: SimRequest) -> SimResponse:
    await trio.sleep(1)
    raise SimDisconnect


@attrs.define
class Forgetful(Driver):
    """Loses its containers a second after their start, and can't tell how they ended."""

    inner: Driver

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        cookie = await self.inner.create_cookie(task)
        run = cookie.run

        async def run_and_lose() -> RunningContainer:
            await run()
            return Lost()

        cookie.run = run_and_lose  # type: ignore[method-assign]
        return cookie


class Lost(RunningContainer):
    async def wait(self) -> RunResult:
        await trio.sleep(1)
        raise EngineGone


class EngineGone(Exception):
    pass


async def test_nobody_is_blamed_for_a_container_that_the_driver_has_lost(
    autojump_clock: object, tmp_path: Path
) -> None:
    """One that was not ready may be had elsewhere; the call that it served is broken."""
    async with (
        open_sim_driver() as driver,
        open_node(Forgetful(driver), tmp_path, **NACK) as node,
    ):
        driver.add_image("slow", init_time=5)
        with pytest.raises(ServerBusy):
            await node.run("slow")
        driver.add_image("lost", hang_once)
        with pytest.raises(APIError) as caught:
            await node.run("lost")
        assert (caught.value.code, caught.value.blame) == (502, "service")
        assert str(caught.value) == str(FunctionResponseError())


@attrs.define
class Slow(Driver):
    """Tells ``seconds`` late how a container has ended."""

    inner: Driver
    seconds: float

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        cookie = await self.inner.create_cookie(task)
        run = cookie.run

        async def run_slowly() -> RunningContainer:
            return SlowlyTold(await run(), self.seconds)

        cookie.run = run_slowly  # type: ignore[method-assign]
        return cookie


@attrs.define
class SlowlyTold(RunningContainer):
    inner: RunningContainer
    seconds: float

    async def wait(self) -> RunResult:
        result = await self.inner.wait()
        await trio.sleep(self.seconds)
        return result


async def exit_with_3(request: SimRequest) -> SimResponse:
    raise SimExit(3)


@pytest.mark.parametrize(
    ("handler", "told_after", "text", "seconds"),
    [
        (exit_with_3, 0.0, ": the container exited with code 3", 0.0),
        (exit_with_3, END_WAIT / 2, ": the container exited with code 3", END_WAIT / 2),
        (exit_with_3, 9999.0, "", REASON_WAIT + END_WAIT),
        (hang_once, 9999.0, "", 1 + REASON_WAIT),  # somebody listens
    ],
)
async def test_a_call_waits_for_an_engine_that_is_slow_to_tell_how_its_container_ended(
    autojump_clock: object,
    tmp_path: Path,
    handler: SimHandler,
    told_after: float,
    text: str,
    seconds: float,
) -> None:
    async with (
        open_sim_driver() as driver,
        open_node(Slow(driver, told_after), tmp_path, **NACK) as node,
    ):
        driver.add_image("fails", handler)
        began = trio.current_time()
        with pytest.raises(FunctionResponseError) as caught:
            await node.run("fails", timeout=60)
        assert str(caught.value) == f"{FunctionResponseError()}{text}"
        assert trio.current_time() - began == pytest.approx(seconds, abs=0.1)


async def wait_and_echo(request: SimRequest) -> SimResponse:
    body = await request.read()
    await trio.sleep(1)
    return SimResponse(body=body)


async def have_idle(node: Node, driver: SimDriver, count: int) -> None:
    """So many containers of one function idle."""
    driver.add_image("echo", wait_and_echo, init_time=4)
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(node.run)
    assert len(driver.containers()) == count


async def kill_all(driver: SimDriver) -> None:
    """Kill the containers, as of which the driver does not tell before long."""
    killed = driver.containers()
    for container in killed:
        container.kill()
    for container in killed:
        await container.wait()


@pytest.mark.parametrize("body", [BytesBody(b"x"), BytesBody(b"x" * 2**20), StreamBody(b"x")])
@pytest.mark.parametrize(("idle", "seconds"), [(1, 0.0), (3, 0.0), (1, 2 * KEEP_ALIVE)])
async def test_a_call_whose_container_was_killed_while_it_idled_gets_another_one(
    autojump_clock: object, tmp_path: Path, body: Body, idle: int, seconds: float
) -> None:
    """And the metrics show that it waits for one. Its connection may be of no use any more."""
    async with (
        open_sim_driver() as driver,
        open_node(Slow(driver, 9999.0), tmp_path, freeze_idle_msecs=math.inf, **NACK) as node,
        trio.open_nursery() as nursery,
    ):
        await have_idle(node, driver, idle)
        await trio.sleep(seconds)
        await kill_all(driver)
        recorder = Recorder()
        nursery.start_soon(node.agent.submit, node.call(body=body, writer=recorder))
        await trio.sleep(3)
        statistics = node.agent.statistics()
        assert (statistics.queued, statistics.running) == (1, 0)
        await until(lambda: node.agent.statistics().running == 1)
        await until(lambda: node.agent.statistics().completed == idle + 1)
        assert recorder.body in (b"x", b"x" * 2**20)
        statistics = node.agent.statistics()
        assert (statistics.errors, statistics.launches) == (0, idle + 1)


async def test_a_reserved_call_whose_container_was_killed_gets_another_one(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver() as driver,
        open_node(Slow(driver, 9999.0), tmp_path, **NACK) as node,
    ):
        await have_idle(node, driver, 1)
        call = node.call(body=BytesBody(b"x"))
        first = driver.containers()

        async def commit() -> None:
            if driver.containers() == first:
                await kill_all(driver)

        call.on_slot = commit
        await node.agent.submit(call)
        assert call.model.status == "success"


async def test_a_call_whose_container_was_killed_is_refused_where_no_other_one_has_room(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver() as driver,
        open_node(Slow(driver, 9999.0), tmp_path, memory=256, **NACK) as node,
        trio.open_nursery() as nursery,
    ):
        await have_idle(node, driver, 1)
        await kill_all(driver)
        driver.images["echo"].faults = {"create": ServerBusy()}
        with pytest.raises(ServerBusy):
            await node.run()
        statistics = node.agent.statistics()
        assert (statistics.server_busy, statistics.errors) == (1, 0)
        await until(lambda: node.agent.statistics().used == Resources())
        nursery.cancel_scope.cancel()


async def test_a_function_that_ends_as_soon_as_it_is_ready_is_not_started_again_and_again(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path, **NACK) as node:
        driver.add_image("ends", wait_and_echo)

        async def end() -> None:
            while True:
                await until(lambda: bool(driver.containers()), seconds=99)
                container = driver.containers()[0]
                path = f"{container.task.iofs_agent_path}/lsnr.sock"
                await until(partial(os.path.lexists, path))
                container.exit(3)
                await container.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            with pytest.raises(APIError) as caught:
                await node.run("ends")
            nursery.cancel_scope.cancel()
        assert caught.value.code == 502
        assert node.agent.statistics().launches == 1


async def test_what_the_function_may_have_read_is_not_sent_to_another_one(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path, **NACK) as node:
        await have_idle(node, driver, 1)
        driver.images["echo"].handler = exit_with_3
        with pytest.raises(FunctionResponseError):
            await node.run()
        assert driver.statistics().requests == 2
