"""The status tracker on virtual time: image, checker, barrier, cache, single flight, counters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from hostler.drivers.sim import SimDriver, SimRequest, SimResponse, echo, open_sim_driver
from hostler.errors import APIError
from hostler.protocol import RunnerStatus
from hostler.runner import Hooks, StatusChecks
from hostler.runner.status import MAX_RESULTS, RUNS_AT_ONCE

from .runners import CHECKS, open_sim_runner, sleep


def _created(driver: SimDriver) -> int:
    return driver.statistics().created


async def test_scenario_07_no_image_gives_counters_and_no_call(
    autojump_clock: object, tmp_path: Path
) -> None:
    hooks = Hooks(kdumps_on_disk=lambda: 3)
    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_sim_runner(driver, tmp_path, hooks=hooks) as runner,
    ):
        await runner.call()
        assert await runner.client.status() == RunnerStatus(
            requests_received=1, requests_handled=1, kdumps_on_disk=3, reservations=True
        )
        assert runner.agent.statistics().calls == 1
        assert runner.registry.get_sample_value("fn_status_call") is None


async def test_scenario_07_the_image_is_run_and_echoes_the_payload(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver() as driver,
        open_sim_runner(driver, tmp_path, checks=CHECKS) as runner,
    ):
        driver.add_image("status", echo, create_time=0.25, init_time=0.5)
        status = await runner.client.status('{"a":[1,null]}')
        assert status.details == '{"a":[1,null]}'
        assert (status.failed, status.error_code, status.cached) == (False, 0, False)
        assert status.id
        assert status.created_at
        assert status.started_at
        assert status.completed_at
        assert status.scheduler_ns >= 750_000_000
        assert status.ctr_create_ns >= 250_000_000
        assert status.init_start_ns >= 500_000_000
        assert status.ctr_prep_ns > 0
        assert (await runner.client.status()).details == "{}"
        (task, _) = [container.task for container in driver.containers()]
        assert (task.memory, task.cpus, task.disable_net) == (0, 0, False)
        assert (task.env["FN_FORMAT"], task.fn_id) == ("http-stream", "")


async def test_a_result_is_cached_by_its_payload_for_a_second_and_a_half(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"status": echo}) as driver,
        open_sim_runner(driver, tmp_path, checks=CHECKS) as runner,
    ):
        first = await runner.client.status('{"a":1,"b":2}')
        again = await runner.client.status('{"b": 2, "a": 1}')
        other = await runner.client.status('{"a":2}')
        assert (first.id, first.cached) == (again.id, not again.cached)
        assert other.id != first.id
        assert (other.details, other.cached) == ('{"a":2}', False)
        await trio.sleep(1.49)
        assert (await runner.client.status('{"a":2}')).id == other.id
        await trio.sleep(0.02)
        fresh = await runner.client.status('{"a":2}')
        assert fresh.id not in (first.id, other.id)
        assert not fresh.cached
        assert _created(driver) == 3  # never a container of an earlier run
        cached = {"cached": "true", "success": "true", "network": "true"}
        assert runner.value("fn_status_call", **cached) == 2
        assert runner.value("fn_status_call", **(cached | {"cached": "false"})) == 3


async def test_scenario_07_many_at_once_share_one_run(
    autojump_clock: object, tmp_path: Path
) -> None:
    found: list[RunnerStatus] = []
    async with (
        open_sim_driver() as driver,
        open_sim_runner(driver, tmp_path, checks=CHECKS) as runner,
    ):
        driver.add_image("status", echo, create_time=1)

        async def ask() -> None:
            found.append(await runner.client.status())

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(ask)
        assert len({status.id for status in found}) == 1
        assert [status.cached for status in found].count(False) == 1
        await trio.sleep(2)
        assert (await runner.client.status()).id != found[0].id


async def test_a_run_survives_the_client_that_caused_it(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver() as driver,
        open_sim_runner(driver, tmp_path, checks=CHECKS) as runner,
    ):
        driver.add_image("status", echo, create_time=2)
        with trio.move_on_after(1) as gone:
            await runner.client.status()
        assert gone.cancelled_caught
        began = trio.current_time()
        status = await runner.client.status()
        assert trio.current_time() - began == pytest.approx(1)
        assert not status.failed
        assert _created(driver) == 1
        error = {"cached": "error", "success": "error", "network": "error"}
        assert runner.value("fn_status_call", **error) == 1


async def test_scenario_07_a_failing_checker_spares_the_image(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def ill() -> dict[str, str]:
        raise APIError(450, "no disk")

    async with (
        open_sim_driver({"status": echo}) as driver,
        open_sim_runner(driver, tmp_path, checks=CHECKS, hooks=Hooks(health_checker=ill)) as runner,
    ):
        status = await runner.client.status()
        assert (status.failed, status.error_code, status.error_text) == (True, 450, "no disk")
        assert _created(driver) == 0
        failed = {"cached": "false", "success": "false", "network": "true"}
        assert runner.value("fn_status_call", **failed) == 1


@pytest.mark.parametrize("image", ["status", ""])
async def test_scenario_07_the_checkers_map_is_the_custom_status(
    autojump_clock: object, tmp_path: Path, image: str
) -> None:
    asked: list[float] = []

    async def well() -> dict[str, str]:
        asked.append(trio.current_time())
        await trio.sleep(1)
        return {"disk": "ok"}

    async with (
        open_sim_driver({"status": echo}) as driver,
        open_sim_runner(
            driver,
            tmp_path,
            checks=StatusChecks(image=image),
            hooks=Hooks(health_checker=well),
        ) as runner,
    ):
        status = await runner.client.status()
        assert status.custom_status == {"disk": "ok"}
        assert not status.failed
        assert _created(driver) == bool(image)
        assert (await runner.client.status()).cached
        assert len(asked) == 1


async def test_scenario_07_without_the_barrier_file_the_network_is_off(
    autojump_clock: object, tmp_path: Path
) -> None:
    barrier = tmp_path / "network-is-up"
    checks = StatusChecks(image="status", barrier=str(barrier))
    async with (
        open_sim_driver({"status": echo}) as driver,
        open_sim_runner(driver, tmp_path, checks=checks) as runner,
    ):
        status = await runner.client.status()
        assert (status.is_network_disabled, status.failed) == (True, False)
        assert driver.containers()[0].task.disable_net
        barrier.touch()
        assert (await runner.client.status()).is_network_disabled  # cached
        await trio.sleep(1.5)
        assert not (await runner.client.status()).is_network_disabled
        assert not driver.containers()[-1].task.disable_net


async def test_a_barrier_without_an_image_is_reported(
    autojump_clock: object, tmp_path: Path
) -> None:
    checks = StatusChecks(barrier=str(tmp_path / "missing"))
    async with (
        open_sim_driver() as driver,
        open_sim_runner(driver, tmp_path, checks=checks) as runner,
    ):
        assert (await runner.client.status()).is_network_disabled


async def test_status_calls_neither_wait_for_room_nor_are_evicted(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"status": echo, "sleep": sleep, "echo": echo}) as driver,
        open_sim_runner(driver, tmp_path, memory=128, nack=False, checks=CHECKS) as runner,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(runner.call, "sleep")  # takes all memory
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(runner.call, "echo")  # waits for memory
        await trio.testing.wait_all_tasks_blocked(0.01)
        began = trio.current_time()
        status = await runner.client.status()
        assert not status.failed
        assert trio.current_time() - began < 1
        assert (status.active, status.requests_received, status.requests_handled) == (2, 2, 0)
        assert runner.agent.statistics().evictions == 0
        nursery.cancel_scope.cancel()


async def test_scenario_07_calls_must_not_name_the_status_image(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver({"status": echo}) as driver,
        open_sim_runner(driver, tmp_path, checks=CHECKS) as runner,
    ):
        outcome = await runner.call("status")
        assert (outcome.error_code, outcome.error_text) == (400, "Invalid Fn image")


async def test_a_nack_is_received_and_not_handled(autojump_clock: object, tmp_path: Path) -> None:
    async with (
        open_sim_driver({"echo": echo, "sleep": sleep}) as driver,
        open_sim_runner(driver, tmp_path, memory=128) as runner,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(runner.call, "sleep")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await runner.call()).error_code == 503
        status = await runner.client.status()
        assert (status.active, status.requests_received, status.requests_handled) == (1, 2, 0)
        nursery.cancel_scope.cancel()


async def test_few_payloads_are_checked_at_a_time(autojump_clock: object, tmp_path: Path) -> None:
    under_way: list[int] = [0]

    async def check() -> dict[str, str]:
        under_way.append(under_way[-1] + 1)
        await trio.sleep(1)
        under_way.append(under_way[-1] - 1)
        return {}

    async with (
        open_sim_driver() as driver,
        open_sim_runner(driver, tmp_path, hooks=Hooks(health_checker=check)) as runner,
        trio.open_nursery() as nursery,
    ):
        for number in range(3 * RUNS_AT_ONCE):
            nursery.start_soon(runner.client.status, json.dumps({"n": number}))
    assert max(under_way) == RUNS_AT_ONCE


async def test_kept_results_are_bounded(autojump_clock: object, tmp_path: Path) -> None:
    async def well() -> dict[str, str]:
        return {}

    async with (
        open_sim_driver() as driver,
        open_sim_runner(driver, tmp_path, hooks=Hooks(health_checker=well)) as runner,
    ):
        for number in range(3 * MAX_RESULTS):
            await runner.client.status(json.dumps({"n": number}))
        assert len(runner.service._tracker._runs) <= MAX_RESULTS + 1
        await trio.sleep(1.5)
        await runner.client.status()
        assert len(runner.service._tracker._runs) == 1


async def test_overlapping_calls_are_all_handled(autojump_clock: object, tmp_path: Path) -> None:
    async def slow(request: SimRequest) -> SimResponse:
        await trio.sleep(5)
        return SimResponse()

    async with (
        open_sim_driver({"slow": slow}) as driver,
        open_sim_runner(driver, tmp_path) as runner,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(runner.call, "slow")
            with trio.move_on_after(1):  # a fourth, whose client goes away
                await runner.call("slow")
        status = await runner.client.status()
        assert (status.active, status.requests_received, status.requests_handled) == (0, 4, 4)
