"""Startup actions."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from hostler import options
from hostler.abc import CallListener, CallRequest
from hostler.agent import Agent, ContainerState, Resources, keep_declared_warm, open_agent
from hostler.calls import PendingCall
from hostler.config import AgentConfig
from hostler.drivers.sim import SimDriver, echo, open_sim_driver
from hostler.functions import FunctionTable
from hostler.models import App, Fn
from tests.conftest import Logs

from .nodes import MIB, call_model, until

TOTAL = Resources(512 * MIB, 1000)


async def test_startup_actions_run_in_order_before_the_block(
    autojump_clock: object, tmp_path: Path
) -> None:
    record: list[str] = []

    class Recording(CallListener):
        async def after_call(self, call: PendingCall) -> None:
            record.append(call.model.status)

    async def warm_up(agent: Agent) -> None:
        call = agent.get_call(options.from_model(call_model()))
        await agent.keep_warm(call).wait_ready()
        record.append("warm")

    async def listen(agent: Agent) -> None:
        agent.add_listener(Recording())
        record.append("listening")

    config = AgentConfig(iofs_path=str(tmp_path))
    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_agent(driver, config=config, startup=[warm_up, listen], total=TOTAL) as agent,
    ):
        assert record == ["warm", "listening"]
        await agent.submit(agent.get_call(options.from_model(call_model())))
        assert record[2:] == ["success"]
        assert driver.statistics().created == 1


async def test_room_grows_once_what_dead_runners_left_is_gone(
    autojump_clock: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cleaning(SimDriver):
        async def wait_clean(self) -> None:
            await trio.sleep(5)

    totals = [TOTAL, Resources(768 * MIB, 1000)]
    monkeypatch.setattr("hostler.agent.agent.machine_resources", lambda _: totals.pop(0))
    config = AgentConfig(iofs_path=str(tmp_path))
    async with (
        open_sim_driver() as driver,
        open_agent(Cleaning(driver.nursery), config=config) as agent,
    ):
        await trio.sleep(4)
        assert agent.statistics().total == TOTAL
        await trio.sleep(2)
        assert agent.statistics().total == Resources(768 * MIB, 1000)


async def test_startup_action_that_fails_ends_the_start(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def fail(agent: Agent) -> None:
        agent.keep_warm(agent.get_call(options.from_model(call_model())))
        raise ValueError("not today")

    config = AgentConfig(iofs_path=str(tmp_path))
    async with open_sim_driver({"echo": echo}) as driver:
        with pytest.raises(ValueError, match="not today"):
            async with open_agent(driver, config=config, startup=[fail], total=TOTAL):
                raise AssertionError("opened")
        assert driver.statistics().cookies == 0


async def test_declared_functions_are_ready_before_their_first_calls(
    autojump_clock: object, tmp_path: Path, logs: Logs
) -> None:
    wants = {"hostler/min-warm": msgspec.Raw(b"2")}
    app = App(id="a", name="app")
    kept = Fn(id="kept", name="kept", app_id="a", image="echo", annotations=wants)
    plain = Fn(id="plain", name="plain", app_id="a", image="echo")
    big = Fn(id="big", name="big", app_id="a", image="echo", memory=4096, annotations=wants)
    table = FunctionTable.of([app], [kept, plain, big])
    config = AgentConfig(iofs_path=str(tmp_path))
    startup = [keep_declared_warm(table)]
    async with (
        open_sim_driver({"echo": echo}) as driver,
        open_agent(driver, config=config, startup=startup, total=TOTAL) as agent,
    ):
        await until(lambda: agent.statistics().containers == {ContainerState.IDLE: 2})
        (line,) = logs.with_event("can't keep a function ready")
        assert line["fn_id"] == "big"
        request = CallRequest(method="GET", url="/other", headers={})
        await agent.submit(agent.get_call(options.from_http_fn_request(app, kept, request)))
        await trio.sleep(4000)  # longer than an annotation alone is heeded
        assert agent.statistics().containers == {ContainerState.IDLE: 2}
        assert driver.statistics().created == 2
