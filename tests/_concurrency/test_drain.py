"""One time budget for the drain of all parts of a node, not one for each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hostler import DrainBudget, open_agent, options
from hostler.agent import Resources
from hostler.bodies import BytesBody
from hostler.config import AgentConfig
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.errors import APIError
from hostler.protocol import EngagementFailed, LogReady, LogStart
from tests.agent.nodes import MIB, call_model, until
from tests.conftest import Logs
from tests.lb.bench import acknowledging, open_bench
from tests.pool.fakes import make_call
from tests.runner.collectors import make_logs
from tests.runner.runners import SimRunner, open_sim_runner


async def test_it_begins_with_the_first_question(autojump_clock: trio.testing.MockClock) -> None:
    grace = DrainBudget(5)
    await trio.sleep(100)
    assert repr(grace) == "<DrainBudget of 5 s>"
    assert grace.deadline() == trio.current_time() + 5
    await trio.sleep(3)
    assert grace.deadline() == trio.current_time() + 2
    assert "until" in repr(grace)
    assert DrainBudget.of(grace) is grace
    assert DrainBudget.of(math.inf).deadline() == math.inf


@pytest.mark.parametrize(
    ("seconds", "calls", "total"),
    [(0, 0, 5), (2, 2, 5), (10, 7.5, 10), (30, 25, 30), (math.inf, math.inf, math.inf)],
)
async def test_one_for_all_keeps_some_of_it_for_the_removal_of_containers(
    autojump_clock: object, seconds: float, calls: float, total: float
) -> None:
    grace, now = DrainBudget.for_all(seconds), trio.current_time()
    assert (grace.deadline(), grace.end()) == (now + calls, now + total)


async def test_a_drain_with_hanging_calls_and_removals_ends_within_what_was_asked(
    autojump_clock: object, tmp_path: Path
) -> None:
    """A removal that is under way when it begins, and those of idle and of busy containers."""
    grace = DrainBudget.for_all(10)
    async with open_sim_driver({"hang": hang}) as driver, trio.open_nursery() as nursery:
        driver.add_image("echo", remove_time=1000)
        driver.images["hang"].remove_time = 1000
        async with open_agent(
            driver,
            config=AgentConfig(iofs_path=str(tmp_path)),
            total=Resources(1024 * MIB, 1000),
            grace=grace,
        ) as agent:

            async def submit() -> None:
                with pytest.raises(APIError, match="closed during the call"):
                    await agent.submit(agent.get_call(options.from_model(call_model("hang"))))

            echo = agent.get_call(options.from_model(call_model("echo", idle_timeout=1)))
            await agent.submit(echo)
            await until(lambda: agent.statistics().leaving == 1)
            await agent.submit(agent.get_call(options.from_model(call_model("echo"))))
            nursery.start_soon(submit)
            await until(lambda: agent.statistics().running == 1)
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(8.75, abs=0.1)


async def hang(request: SimRequest) -> SimResponse:
    await trio.sleep_forever()
    raise AssertionError


async def test_detached_calls_and_the_agents_others_share_it(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    """As in ``hostler serve``."""
    grace = DrainBudget(5)
    async with open_sim_driver({"hang": hang}) as driver, trio.open_nursery() as nursery:
        async with open_agent(
            driver,
            config=AgentConfig(iofs_path=str(tmp_path)),
            total=Resources(1024 * MIB, 1000),
            grace=grace,
        ) as agent:

            async def submit() -> None:
                with pytest.raises(APIError, match="closed during the call"):
                    await agent.submit(agent.get_call(options.from_model(call_model("hang"))))

            nursery.start_soon(submit)
            detached = call_model("hang", type="detached")
            await agent.submit(agent.get_call(options.from_model(detached, BytesBody())))
            await until(lambda: agent.statistics().running == 2)
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)
    assert len(logs.with_event("agent cancels what is left")) == 1


async def _call(runner: SimRunner, model: dict[str, Any]) -> None:
    with pytest.raises(EngagementFailed):
        await runner.call("hang", **model)


async def test_a_runners_protocol_and_its_agent_share_it(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    grace = DrainBudget(5)
    async with open_sim_driver({"hang": hang}) as driver, trio.open_nursery() as nursery:
        async with open_sim_runner(driver, tmp_path, grace=grace) as runner:

            async def submit() -> None:
                """A call of the embedding program, of which the protocol does not know."""
                call = runner.agent.get_call(options.from_model(call_model("hang")))
                with pytest.raises(APIError, match="closed during the call"):
                    await runner.agent.submit(call)

            nursery.start_soon(submit)
            nursery.start_soon(_call, runner, {})
            await until(lambda: runner.agent.statistics().running == 2)
            began = trio.current_time()
            await runner.service.drain(grace)
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)
    assert len(logs.with_event("runner cancels what is left")) == 1


async def test_log_collectors_have_what_is_left_of_it(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def talk(request: SimRequest) -> SimResponse:
        request.container.output(b"line\n")
        return SimResponse()

    grace = DrainBudget(3)
    async with (
        open_sim_driver({"talk": talk}) as driver,
        open_sim_runner(driver, tmp_path, logs=make_logs()) as runner,
        runner.client.stream_logs() as collector,
    ):
        await collector.send(LogStart())
        await collector.send(LogReady())
        await runner.call("talk")
        assert await collector.receive() is not None  # and no ack
        began = trio.current_time()
        await runner.service.drain(grace)
        assert trio.current_time() - began == pytest.approx(3, abs=0.1)


async def test_an_lb_has_what_its_front_end_left_of_it(autojump_clock: object) -> None:
    grace = DrainBudget(7)
    async with open_bench(acknowledging(9999), grace=grace) as bench:
        await bench.agent.submit(make_call(kind="detached"))
        began = trio.current_time()
        grace.deadline()  # the front end drains first
        await trio.sleep(3)
    assert trio.current_time() - began == pytest.approx(7, abs=0.1)
    assert bench.runner.active == 0


async def test_a_budget_that_has_run_out_is_no_trouble_if_nothing_is_left(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    grace = DrainBudget(0)
    grace.deadline()
    async with open_sim_driver() as driver:
        async with open_sim_runner(driver, tmp_path, grace=grace) as runner:
            await runner.service.drain(grace)
        async with open_bench(acknowledging(1), grace=grace):
            pass
    assert logs.with_event("cancels what is left") == []
