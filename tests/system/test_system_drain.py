"""Nodes that are told to stop finish what runs; streams reach the client as they are written."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import pytest
import trio

from tests.cli._process import ends

from .http import Reply, call, metric, posting, until_metric
from .load import Load
from .nodes import (
    LIMIT,
    Fleet,
    Runner,
    errors_of,
    open_fleet,
    open_lb,
    open_runner,
    open_single,
)

CALLS = 40
FNS = {"fnt": {"memory": 1, "timeout": LIMIT}}


@attrs.define
class Calls:
    """Calls that are all under way at once, and end when there is a file ``gate``."""

    fleet: Fleet
    gate: Path
    replies: list[Reply] = attrs.Factory(list)

    async def run(self, number: int) -> None:
        body = b"call %d" % number
        reply = await call(self.fleet.lb, f"until={self.gate}", body)
        assert (reply.status, reply.body) == (200, body)
        self.replies.append(reply)

    async def until_running(self) -> None:
        """Until functions work on all of them."""
        nodes = [runner.node for runner in self.fleet.runners]
        while sum([await metric(node, "fn_running") for node in nodes]) < CALLS:
            pass


@pytest.mark.parametrize("stopped", ["lb", "runner"])
async def test_stopping_under_load_fails_nothing_that_runs(folder: Path, stopped: str) -> None:
    async with open_fleet(folder, functions=FNS) as fleet:
        first = fleet.runners[0]
        node = fleet.lb if stopped == "lb" else first.node
        calls = Calls(fleet, folder / "gate")
        with trio.fail_after(LIMIT * 2):
            async with trio.open_nursery() as nursery:
                for number in range(CALLS):
                    nursery.start_soon(calls.run, number)
                await calls.until_running()
                node.process.send_signal(signal.SIGTERM)
                await node.wait_line("lb agent drains" if stopped == "lb" else "runner drains")
                calls.gate.touch()
            assert len(calls.replies) == CALLS
            assert await node.process.wait() == 0, node.log.decode()
        assert errors_of(node) == []
        if stopped == "lb":
            await first.drain()
        else:
            assert first.functions() == []
            assert (await call(fleet.lb, content=b"later")).body == b"later"
            assert await ends(fleet.lb) == 0
            assert errors_of(fleet.lb) == []
        await fleet.runners[1].drain()


async def test_stopping_a_runner_under_steady_load_fails_no_call(folder: Path) -> None:
    """Calls keep coming, however long others take."""
    async with open_fleet(folder, functions=FNS) as fleet:
        first, second = fleet.runners
        load = Load(fleet.lb, "sleep=50")
        with trio.fail_after(LIMIT * 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.run_rate, 100)
                await until_metric(first.node, "fn_calls", 20)
                await load.until_answers(50)
                await first.drain()
                await load.until_answers(100)
                load.stop.set()
        assert load.failed() == []
        assert await ends(fleet.lb) == 0
        assert errors_of(fleet.lb) == []
        await second.drain()


async def test_runner_ends_within_its_grace_though_a_call_hangs(folder: Path) -> None:
    async with open_fleet(folder, runners=1, runner_env={"FN_DRAIN_GRACE_MSECS": "200"}) as fleet:
        runner = fleet.runners[0]
        replies: list[Reply] = []

        async def hang() -> None:
            replies.append(await call(fleet.lb, "hang"))

        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hang)
                await until_metric(runner.node, "fn_running", 1)
                await runner.drain()
        assert [reply.status for reply in replies] == [500]
        assert replies[0].json() == {"message": "internal server error"}


@pytest.mark.parametrize("kind", ["lb", "serve"])
async def test_clients_of_calls_that_outlast_the_grace_get_an_answer(
    folder: Path, kind: str
) -> None:
    async with AsyncExitStack() as stack:
        if kind == "serve":
            single = await stack.enter_async_context(open_single(folder, "--grace", "0.2"))
            node, runner = single.node, single
        else:
            runner = await stack.enter_async_context(open_runner(folder))
            node = await stack.enter_async_context(
                open_lb(folder, [runner.address], "--grace", "0.2")
            )
        replies: list[Reply] = []

        async def hang() -> None:
            replies.append(await call(node, "hang"))

        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(hang)
                await until_metric(node, "fn_running", 3)
                assert await ends(node) == 0
        assert [reply.status for reply in replies] == [500] * 3  # they ran: no 503
        if kind == "lb":
            await runner.drain()


async def first_line(front: Fleet | Runner) -> None:
    """It arrives although the second one will not be written for a long time."""
    node = front.lb if isinstance(front, Fleet) else front.node
    async with posting(node, "/invoke/fnt", Fnt_Do="lines=2,every=60000") as exchange:
        with trio.fail_after(LIMIT):
            assert (await exchange.head()).status == 200
            assert await exchange.piece() == b"line 1\n"


async def test_first_line_arrives_before_the_second_is_written(folder: Path) -> None:
    async with open_fleet(folder, runners=1) as fleet:
        await first_line(fleet)
        await fleet.drain()
    async with open_single(folder) as single:
        await first_line(single)
        await single.drain()
