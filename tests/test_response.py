"""`hostler.calls`: a program calls a function and has its whole response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from hostler.abc import CallAgent
from hostler.agent import Agent, Resources, open_agent
from hostler.config import AgentConfig
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver
from hostler.errors import ConfigError, FunctionResponseTooBig, ServerBusy
from hostler.lb import open_lb_agent
from hostler.models import App, Fn
from hostler.pool import WarmPlacer, open_static_pool
from hostler.response import call
from hostler.runner import open_pure_runner

APP = App(id="app1", name="app")
FN = Fn(id="fn1", name="fn", app_id="app1", image="fn", memory=128, timeout=30)
MIB = 1 << 20


class Function:
    def __init__(self) -> None:
        self.waits = trio.Event()
        self.cancelled = trio.Event()
        self.ran: list[bytes] = []

    async def __call__(self, request: SimRequest) -> SimResponse:
        body = await request.read()
        if body == b"wait":
            self.waits.set()
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                self.cancelled.set()
                raise
        self.ran.append(body)
        seen = {name.lower(): value for name, value in request.headers}
        headers = [("X-Got", seen.get("x-name", "-")), ("Content-Type", "application/json")]
        return SimResponse(status=200, headers=headers, body=b'{"got": %d}' % len(body))


@asynccontextmanager
async def open_function(folder: Path) -> AsyncIterator[tuple[Agent, Function]]:
    function = Function()
    async with (
        open_sim_driver({"fn": function}) as driver,
        open_agent(
            driver,
            config=AgentConfig(iofs_path=str(folder)),
            total=Resources(128 * MIB, 1000),
        ) as agent,
    ):
        yield agent, function


async def test_a_response_says_what_came_and_how(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_function(tmp_path) as (agent, _):
        first = await call(agent, APP, FN, "Ada", headers={"X-Name": "x"})
        second = await call(agent, APP, FN, b"")
    assert (first.status, first.json(), first.text) == (200, {"got": 3}, '{"got": 3}')
    assert (first.header("x-got"), first.header("x-none", "?")) == ("x", "?")
    assert (first.cold, second.cold) == (True, False)
    assert first.call_id != second.call_id
    assert (first.runner, first.attempts) == ("", 0)
    assert "Ada" not in repr(first)
    assert "got" not in repr(first)


async def test_a_response_of_a_fleet_names_its_runner(tmp_path: Path) -> None:
    async with (
        open_function(tmp_path) as (agent, _),
        open_pure_runner(agent, "127.0.0.1:0") as runner,
        open_static_pool([runner.address]) as pool,
        open_lb_agent(pool, WarmPlacer()) as lb,
    ):
        first = await call(lb, APP, FN, b"Ada")
        second = await call(lb, APP, FN, b"Ada")
        assert (first.runner, first.attempts) == (runner.address, 1)
        assert (first.cold, second.cold) == (True, False)
        assert first.seconds > 0
        assert second.timings.execution_ns > 0
        assert lb.calls() == agent.calls() == []


async def test_calls_shows_what_waits_and_runs(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_function(tmp_path) as (agent, function), trio.open_nursery() as nursery:
        nursery.start_soon(call, agent, APP, FN, b"wait")
        await function.waits.wait()
        nursery.start_soon(call, agent, APP, FN, b"")
        await trio.testing.wait_all_tasks_blocked()
        running, waiting = agent.calls()
        assert (running.model.status, waiting.model.status) == ("running", "")
        assert running.model.fn_id == "fn1"
        nursery.cancel_scope.cancel()
    assert agent.calls() == []


async def test_a_cancelled_call_ends_in_the_function(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_function(tmp_path) as (agent, function):
        with trio.move_on_after(5) as scope:
            await call(agent, APP, FN, b"wait")
        await function.cancelled.wait()
    assert scope.cancelled_caught


async def test_a_time_limit_is_known_to_the_agent(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_function(tmp_path) as (agent, function), trio.open_nursery() as nursery:
        nursery.start_soon(call, agent, APP, FN, b"wait")
        await function.waits.wait()
        with pytest.raises(ServerBusy):
            await call(agent, APP, FN, b"", time_limit=2)
        nursery.cancel_scope.cancel()
    assert function.ran == []


async def test_a_detached_call_returns_when_its_function_starts(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_function(tmp_path) as (agent, function):
        response = await call(agent, APP, FN, b"later", detached=True)
        assert (response.status, response.body, response.cold) == (202, b"", False)
        assert [each.model.id for each in agent.calls()] in ([response.call_id], [])
    assert function.ran == [b"later"]


async def test_a_response_over_the_limit_is_refused(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_function(tmp_path) as (agent, _):
        with pytest.raises(FunctionResponseTooBig):
            await call(agent, APP, FN, b"", max_response_size=4)
        assert (await call(agent, APP, FN, b"", max_response_size=10)).status == 200


async def test_wrong_arguments_are_named(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_function(tmp_path) as (agent, _):
        with pytest.raises(ConfigError, match="call: fn: takes a Fn, not the text 'fn1'"):
            await call(agent, APP, "fn1")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="call: app: takes an App, not a Fn"):
            await call(agent, FN, FN)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="call: body: takes bytes, text or a Body, not an i"):
            await call(agent, APP, FN, 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="takes a CallAgent, not the class CallAgent: give an"):
        await call(CallAgent, APP, FN)  # type: ignore[arg-type]
