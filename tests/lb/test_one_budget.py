"""A client's patience, the function's timeout and the placer's are one budget, kept by everyone:
LB agent, placer, engagement, runner and agent together on virtual time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from hostler import options
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.errors import ServerBusy, ServiceReservationFailure
from hostler.protocol import DEADLINE_STATUS, Data, EngagementFailed, ResultStart
from tests.agent.nodes import call_model, until
from tests.runner.runners import open_sim_runner, try_call

from .stack import Stack, open_stack

FREED = 0.1
"""Seconds within which the end of a call must have freed all that it held."""


async def _endless(request: SimRequest) -> SimResponse:
    await trio.sleep_forever()


def seconds_told(stack: Stack, before: dt.datetime) -> float:
    return (stack.deadlines[-1] - before).total_seconds()


async def test_the_function_is_told_what_is_left_of_its_clients_patience(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_stack(tmp_path) as stack:
        before = dt.datetime.now(dt.UTC)
        with pytest.raises(ServiceReservationFailure):
            await stack.agent.submit(stack.call("impatient", 5))
        assert trio.current_time() == pytest.approx(5, abs=0.1)
        assert seconds_told(stack, before) <= 5 + 2  # whole seconds, and the test's own time
        await until(lambda: stack.runs == 0, seconds=FREED)


async def test_the_functions_timeout_is_the_less_of_the_two(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_stack(tmp_path) as stack:
        before = dt.datetime.now(dt.UTC)
        with pytest.raises(Exception, match="Timed out"):
            await stack.agent.submit(stack.call("patient", 500, timeout=3))
        assert trio.current_time() < 4
        assert seconds_told(stack, before) <= 3 + 2


async def test_waiting_and_running_share_the_budget(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """What a call has waited is not there to run any more."""
    async with open_stack(tmp_path) as stack, trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def run_first() -> None:
            with first:
                await stack.agent.submit(stack.call("first"))

        nursery.start_soon(run_first)
        await until(lambda: stack.runs == 1)
        began = trio.current_time()

        async def run_second() -> None:
            with pytest.raises(ServiceReservationFailure):
                await stack.agent.submit(stack.call("second", 6))

        nursery.start_soon(run_second)
        await until(lambda: stack.placer.statistics().waiting == 1)
        await trio.sleep(4)
        before = dt.datetime.now(dt.UTC)
        first.cancel()
        await until(lambda: len(stack.deadlines) == 2)
        assert seconds_told(stack, before) <= 2 + 2
        await until(lambda: stack.agent.statistics().running == 0)
        assert trio.current_time() - began == pytest.approx(6, abs=0.2)


async def test_a_runner_keeps_the_deadline_of_a_silent_lb(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The LB neither cancels nor leaves: the runner ends the call by itself."""
    async with open_stack(tmp_path) as stack:
        began = trio.current_time()
        async with stack.runner.client.engage(
            try_call("endless"), first=Data(b"", eof=True), deadline=began + 7
        ) as engagement:
            with pytest.raises(EngagementFailed) as caught:
                await engagement.receive()
            assert caught.value.status == DEADLINE_STATUS
            assert trio.current_time() - began == pytest.approx(7, abs=0.01)
            await until(lambda: stack.runs == 0, seconds=FREED)


async def test_a_detached_call_keeps_its_deadline_without_its_lb(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_stack(tmp_path) as stack:
        began = trio.current_time()
        async with stack.runner.client.engage(
            try_call("endless", type="detached"), first=Data(b"", eof=True), deadline=began + 7
        ) as engagement:
            assert isinstance(await engagement.receive(), ResultStart)
        assert stack.runs == 1
        await until(lambda: stack.runs == 0, seconds=60)
        assert trio.current_time() - began == pytest.approx(7, abs=0.1)


async def test_the_lbs_own_limit_on_a_detached_call_is_told_too(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_stack(tmp_path, headroom=1, placer_seconds=2) as stack:
        call = stack.call("detached", kind="detached", timeout=3)
        began = trio.current_time()
        await stack.agent.submit(call)
        assert call.deadline == pytest.approx(began + 2 + 3 + 1)


async def test_a_call_in_a_runners_queue_ends_with_its_deadline(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A runner that lets calls wait, and one that waits for longer than its client."""
    async with (
        open_sim_driver({"endless": _endless}) as driver,
        open_sim_runner(driver, tmp_path, memory=128, nack=False) as runner,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(runner.call, "endless")
        await until(lambda: runner.agent.statistics().running == 1)
        call = runner.agent.get_call(
            options.from_model(call_model("endless")),
            options.with_time_limit(5),
        )
        began = trio.current_time()
        with pytest.raises(ServerBusy):
            await runner.agent.submit(call)
        assert trio.current_time() - began == pytest.approx(5, abs=0.01)
        nursery.cancel_scope.cancel()
