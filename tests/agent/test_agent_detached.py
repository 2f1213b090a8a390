"""Detached calls of an agent that is embedded in a program, or that a full node has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from hostler import options
from hostler.abc import CallListener
from hostler.agent import Agent, Resources, open_agent
from hostler.bodies import BytesBody, ReplayBody
from hostler.calls import PendingCall
from hostler.config import AgentConfig
from hostler.drivers.sim import SimExit, SimRequest, SimResponse, open_sim_driver
from hostler.errors import APIError, RequestTooBig, ServerBusy
from hostler.front import ASGIApp, invoke_app
from hostler.functions import FunctionTable
from hostler.models import App, Fn
from tests.conftest import Logs
from tests.front._asgi_client import AsgiRequest

from .nodes import MIB, call_model

APP = App(id="app1", name="app")
TABLE = FunctionTable.of([APP], [Fn(id="fn1", name="fn", app_id="app1", image="work", memory=128)])


class Work:
    """A function that waits until it may go on."""

    def __init__(self) -> None:
        self.go_on = trio.Event()
        self.seen: list[bytes] = []
        self.fails: Exception | None = None

    async def __call__(self, request: SimRequest) -> SimResponse:
        await self.go_on.wait()
        self.seen.append(await request.read())
        if self.fails is not None:
            raise self.fails
        return SimResponse(body=b"done")


@asynccontextmanager
async def open_work(
    folder: Path, work: Work, *listeners: CallListener, memory: int = 1024, grace: float = 5
) -> AsyncIterator[tuple[Agent, ASGIApp]]:
    async with (
        open_sim_driver({"work": work}) as driver,
        open_agent(
            driver,
            config=AgentConfig(iofs_path=str(folder)),
            listeners=listeners,
            total=Resources(memory * MIB, 1000),
            max_detached_body=100,
            grace=grace,
        ) as agent,
    ):
        yield agent, invoke_app(agent, TABLE)


def detached(body: bytes = b"") -> AsgiRequest:
    headers = [("fn-invoke-type", "detached"), ("content-length", str(len(body)))]
    return AsgiRequest(headers=headers).body(body)


async def test_weakness_05_10_it_is_answered_when_the_function_starts(tmp_path: Path) -> None:
    work = Work()
    async with open_work(tmp_path, work) as (agent, app):
        request = await detached(b"body").run(app)
        assert (request.status, request.content) == (202, b"")
        assert agent.statistics().running == 1
        work.go_on.set()
    assert work.seen == [b"body"]


async def test_it_survives_its_client_once_it_is_answered(tmp_path: Path) -> None:
    work = Work()
    async with open_work(tmp_path, work) as (agent, app):
        with trio.CancelScope() as scope:
            await detached(b"body").run(app)
            scope.cancel()
        assert agent.statistics().running == 1
        work.go_on.set()
    assert work.seen == [b"body"]


async def test_it_waits_for_its_slot_and_is_cancelled_with_its_client_until_then(
    tmp_path: Path,
) -> None:
    work = Work()
    async with open_work(tmp_path, work, memory=128) as (agent, app):
        await detached(b"first").run(app)
        second = detached(b"second")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.run, app)
            while not agent.statistics().queued:
                await trio.testing.wait_all_tasks_blocked()
            assert second.sent == []
            second.disconnect()
        assert agent.statistics().queued == 0
        work.go_on.set()
    assert work.seen == [b"first"]


class Veto(CallListener):
    async def before_call(self, call: PendingCall) -> None:
        raise APIError(402, "pay first")


async def test_what_a_listener_says_before_is_the_clients(tmp_path: Path) -> None:
    work = Work()
    async with open_work(tmp_path, work, Veto()) as (_, app):
        request = await detached().run(app)
        assert (request.status, request.content) == (402, b'{"message":"pay first"}\n')


async def test_a_later_error_is_only_logged(tmp_path: Path, logs: Logs) -> None:
    work = Work()
    work.fails = SimExit(3)
    work.go_on.set()
    async with open_work(tmp_path, work) as (_, app):
        assert (await detached().run(app)).status == 202
    assert len(logs.with_event("detached call failed")) == 1


async def test_its_body_has_to_fit(tmp_path: Path) -> None:
    work = Work()
    async with open_work(tmp_path, work) as (agent, app):
        assert (await detached(b"x" * 101).run(app)).status == 413
        source, sink = trio.testing.memory_stream_one_way_pair()
        call = agent.get_call(
            options.from_model(call_model("work", type="detached"), ReplayBody(sink))
        )
        await source.send_all(b"x" * 101)
        with pytest.raises(RequestTooBig):
            await agent.submit(call)


async def test_its_grace_is_bounded(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, logs: Logs
) -> None:
    work = Work()
    async with open_work(tmp_path, work) as (_, app):
        assert (await detached().run(app)).status == 202
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(5, abs=0.1)
    assert logs.with_event("agent cancels what is left")


async def test_a_closed_agent_refuses_it(tmp_path: Path) -> None:
    work = Work()
    async with open_work(tmp_path, work) as (agent, _):
        call = agent.get_call(options.from_model(call_model("work", type="detached"), BytesBody()))
    with pytest.raises(ServerBusy):
        await agent.submit(call)
