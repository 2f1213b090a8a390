"""How a status image or its checker fails, and what callers hear of it, on virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hostler.drivers.sim import SimRequest, SimResponse, echo, open_sim_driver
from hostler.protocol import EngagementFailed
from hostler.runner import Hooks, StatusChecks
from hostler.runner.status import MAX_DETAILS
from tests.conftest import Logs

from .runners import CHECKS, SimRunner, open_sim_runner, sleep


async def _refuse(request: SimRequest) -> SimResponse:
    return SimResponse(status=502, body=b"ill")


async def _say_404(request: SimRequest) -> SimResponse:
    return SimResponse(body=b"not here", headers=[("Fn-Http-Status", "404")])


async def _babble(request: SimRequest) -> SimResponse:
    return SimResponse(body=b"x" * (MAX_DETAILS + 1))


@pytest.mark.parametrize(
    ("image", "code", "text"),
    [
        ("refuse", 502, "function failed"),
        ("say_404", 404, ""),
        ("babble", 502, "function response body too large"),
        ("sleep", 504, "Timed out"),
        ("missing", 404, "Failed to pull image 'missing': no such image"),
    ],
)
async def test_how_an_image_fails(
    autojump_clock: object, tmp_path: Path, image: str, code: int, text: str
) -> None:
    handlers = {"refuse": _refuse, "say_404": _say_404, "babble": _babble, "sleep": sleep}
    async with (
        open_sim_driver(handlers) as driver,
        open_sim_runner(driver, tmp_path, checks=StatusChecks(image=image)) as runner,
    ):
        began = trio.current_time()
        status = await runner.client.status()
        assert (status.failed, status.error_code, status.error_text) == (True, code, text)
        assert status.id
        assert trio.current_time() - began <= 5.01


async def test_a_run_that_can_not_begin_ends_after_a_minute(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver() as driver,
        open_sim_runner(driver, tmp_path, checks=CHECKS) as runner,
    ):
        driver.add_image("status", echo, create_time=1000)
        began = trio.current_time()
        status = await runner.client.status()
        assert (status.failed, status.error_code) == (True, 503)
        assert trio.current_time() - began == pytest.approx(60)


async def test_an_internal_failure_is_a_500_and_one_error_log(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    async with (
        open_sim_driver() as driver,
        open_sim_runner(driver, tmp_path, checks=CHECKS) as runner,
    ):
        driver.add_image("status", echo, faults={"create": OSError("engine is down")})
        status = await runner.client.status()
        assert (status.error_code, status.error_text) == (500, "internal server error")
        logs.expect_error("status call failed inside the runner")


async def test_the_end_of_the_runner_ends_a_run(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver() as driver:
        driver.add_image("status", echo, create_time=1000)
        async with (
            trio.open_nursery() as nursery,
            open_sim_runner(driver, tmp_path, checks=CHECKS) as runner,
        ):
            nursery.start_soon(_swallow, runner)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await runner.service.drain(1)
        assert driver.statistics().containers == 0


async def _swallow(runner: SimRunner) -> None:
    with trio.move_on_after(10) as scope:
        status = await runner.client.status()
        assert status.failed
    assert not scope.cancelled_caught


async def test_who_waits_when_the_runner_ends_is_told(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def hang() -> dict[str, str]:
        await trio.sleep_forever()
        return {}

    failures: list[EngagementFailed] = []
    async with open_sim_driver() as driver, trio.open_nursery() as nursery:
        hooks = Hooks(health_checker=hang)
        async with open_sim_runner(driver, tmp_path, hooks=hooks) as runner:

            async def ask() -> None:
                with pytest.raises(EngagementFailed) as caught:
                    await runner.client.status()
                failures.append(caught.value)

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert [failure.status for failure in failures] == [14]


async def test_a_checker_that_returns_no_map_has_failed_and_ends_nothing(
    autojump_clock: object, tmp_path: Path
) -> None:
    answers: list[Any] = [None, {"free": 7}]

    async def check() -> Any:
        return answers.pop(0)

    async with (
        open_sim_driver() as driver,
        open_sim_runner(driver, tmp_path, hooks=Hooks(health_checker=check)) as runner,
    ):
        status = await runner.client.status()
        assert (status.failed, status.error_code) == (True, 500)
        assert "NoneType" in status.error_text
        await trio.sleep(2)
        status = await runner.client.status()
        assert (status.failed, status.custom_status) == (False, {"free": "7"})
