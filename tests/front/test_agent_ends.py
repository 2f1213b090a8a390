"""A program that ends its agent before its server: its clients get answers all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from hostler.agent import Resources, open_agent
from hostler.calls import PendingCall
from hostler.config import AgentConfig
from hostler.drivers.sim import open_sim_driver
from hostler.errors import ServerBusy
from hostler.front import invoke_app
from tests.agent.functions import hang
from tests.conftest import Logs
from tests.lb.bench import open_bench
from tests.pool.fakes import FakeRunner

from ._agent import TABLE, ScriptedAgent
from ._sockets import Answer, Client, open_front, until


def message_of(answer: Answer) -> str:
    return str(json.loads(answer.body)["message"])


async def test_the_calls_of_a_load_balancer(logs: Logs) -> None:
    """One that runs may have had effects, so its error is none after which to try again."""
    # Refuses at once: an attempt that was under way at the end would be another case.
    runner = FakeRunner(seconds=9999, slots=1, latency=0)
    app, ready = None, trio.Event()
    ending = trio.Event()
    refused: Callable[[], float | None]

    async def have_agent() -> None:
        nonlocal app, refused
        async with open_bench(runner, grace=0.1, placer_seconds=99) as bench:
            app = invoke_app(bench.agent, TABLE)
            refused = partial(bench.sample, "fn_lb_placer_retry_busy_count")
            ready.set()
            await ending.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(have_agent)
        await ready.wait()
        async with open_front(app=app) as front:
            runs, waits = await front.connect(), await front.connect()
            request = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
            await runs.send(request)
            await until(lambda: runner.active == 1)
            await waits.send(request)
            await until(lambda: bool(refused()))
            ending.set()
            answer = await waits.answer()
            assert (answer.status, answer.headers["retry-after"]) == (503, "15")
            answer = await runs.answer()
            assert answer.status == 500
            assert message_of(answer) == (
                "Unable to service the request for the reservation period"
            )
            assert answer.headers["connection"] == "close"
            assert await runs.closed_by_server()
            assert (await (await front.connect()).post()).status == 503
    assert logs.with_event("client cancelled") == []


async def test_the_calls_of_a_node(tmp_path: Path) -> None:
    ready, ending = trio.Event(), trio.Event()
    app = agent = None

    async def have_agent() -> None:
        nonlocal app, agent
        async with (
            open_sim_driver({"echo:1": hang}) as driver,
            open_agent(
                driver,
                config=AgentConfig(iofs_path=str(tmp_path)),
                total=Resources(2**30, 4000),
                grace=0,
            ) as agent,
        ):
            app = invoke_app(agent, TABLE)
            ready.set()
            await ending.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(have_agent)
        await ready.wait()
        async with open_front(app=app) as front:
            client = await front.connect()
            await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            await until(lambda: agent is not None and agent.statistics().running == 1)
            ending.set()
            answer = await client.answer()
            assert (answer.status, message_of(answer)) == (
                500,
                "The runner was closed during the call",
            )
            assert (await client.post()).status == 503


async def answer_at_the_end(call: PendingCall) -> None:
    """The agent ends when there is nothing left that it could end."""
    await call.writer.start(200, [("Content-Length", "1")])
    await call.writer.write(b"x")
    assert call.scope is not None
    call.scope.cancel()


async def test_an_answer_that_tells_of_no_end_leaves_its_connection_usable() -> None:
    agent = ScriptedAgent(answer_at_the_end)
    async with open_front(agent) as front:
        client = await front.connect()
        for _ in range(3):
            answer = await client.post()
            assert answer.status == 200
            assert "connection" not in answer.headers
        # Such, too, as came before it was answered.
        await client.send(2 * b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        assert len({id(call.scope) for call in agent.submitted}) == 5


async def test_a_drain_ends_such_a_connection_as_any_other() -> None:
    async with open_front(ScriptedAgent(answer_at_the_end)) as front:
        client = await front.connect()
        assert (await client.post()).status == 200
        front.shutdown.set()
        assert await client.closed_by_server()
        await front.done.wait()


@pytest.mark.parametrize(
    ("never_placed", "error", "status"),
    [(True, None, 503), (False, ServerBusy(), 503), (False, None, 500)],
)
async def test_a_call_that_no_runner_had_may_be_tried_again(
    never_placed: bool, error: Exception | None, status: int
) -> None:
    """If the agent, of whatever kind, says so: it may know nothing of runners."""

    async def handler(call: PendingCall) -> None:
        call.never_placed = never_placed
        assert call.scope is not None
        call.scope.cancel()
        if error is not None:
            raise error
        await trio.sleep_forever()

    async with open_front(ScriptedAgent(handler)) as front:
        client = await front.connect()
        answer = await client.post()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert await client.closed_by_server()


async def test_an_internal_error_at_the_end_is_logged_once(logs: Logs) -> None:
    async def handler(call: PendingCall) -> None:
        assert call.scope is not None
        call.scope.cancel()
        raise ZeroDivisionError

    async with open_front(ScriptedAgent(handler)) as front:
        answer = await (await front.connect()).post()
        assert (answer.status, message_of(answer)) == (500, "internal server error")
    assert isinstance(logs.expect_error("internal error in a call")["exc_info"], ZeroDivisionError)
    assert logs.errors() == []


async def test_a_response_that_is_too_short_at_the_end_is_no_internal_error(logs: Logs) -> None:
    async def handler(call: PendingCall) -> None:
        await call.writer.start(200, [("Content-Length", "2")])
        await call.writer.write(b"x")
        assert call.scope is not None
        call.scope.cancel()

    agent = ScriptedAgent(handler)
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await agent.left.wait()
        await front.wait_connections(0)
    (line,) = logs.with_event("response broken off")
    assert line["reason"] == "the body is too short"


@pytest.mark.parametrize("takes", [True, False])
async def test_a_response_that_has_begun_is_broken_off(takes: bool, logs: Logs) -> None:
    """Within a second, whether or not its client takes anything."""

    async def handler(call: PendingCall) -> None:
        call.runner_address = "runner:1"
        await call.writer.start(200, [("Content-Length", "100000000")])
        if takes:
            await call.writer.write(b"x")
        else:
            with trio.move_on_after(0.1):
                for _ in range(1000):
                    await call.writer.write(b"x" * 100_000)
        assert call.scope is not None
        call.scope.cancel()
        await trio.sleep_forever()

    async with open_front(ScriptedAgent(handler)) as front:
        client: Client = await front.connect()
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await front.agent.entered.wait()
        await front.wait_connections(0)
    (line,) = logs.with_event("response broken off")
    assert line["status"] == 500
