"""What callers are told of containers that end before they are ready, or under a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from hostler.abc import ContainerTask, Cookie, Driver, RunningContainer, RunResult
from hostler.agent._execution import END_WAIT, REASON_WAIT
from hostler.drivers.sim import (
    SimContainer,
    SimDisconnect,
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

from .nodes import open_node, until

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
