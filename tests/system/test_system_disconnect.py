"""A client that goes away frees what it had, a place or a function, and is reported as that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.cli._process import NodeProcess, ends

from .http import Reply, call, metric, posting, until_metric
from .nodes import (
    FREED,
    LIMIT,
    Runner,
    errors_of,
    lines_of,
    lives,
    open_fleet,
    open_single,
    wait_line,
)

ROOM_FOR_ONE = {"FN_MAX_TOTAL_MEMORY_BYTES": str(24 * 2**20)}

Opened = AbstractAsyncContextManager[tuple[NodeProcess, Runner]]


@asynccontextmanager
async def lb_and_runner(folder: Path) -> AsyncIterator[tuple[NodeProcess, Runner]]:
    async with open_fleet(folder, runners=1) as fleet:
        yield fleet.lb, fleet.runners[0]
        assert await ends(fleet.lb) == 0


@asynccontextmanager
async def single(folder: Path) -> AsyncIterator[tuple[NodeProcess, Runner]]:
    async with open_single(folder) as node:
        yield node.node, node


@pytest.mark.parametrize("opened", [lb_and_runner, single])
@pytest.mark.parametrize("do", ["sleep=30000", "lines=300,every=100"])
async def test_client_that_leaves_ends_the_functions_request(
    folder: Path, opened: Callable[[Path], Opened], do: str
) -> None:
    """Before the response has begun, and after."""
    async with opened(folder) as (front, runner):
        pid = int((await call(front, "pid")).body)
        with trio.fail_after(LIMIT):
            await leave(front, do)
        with trio.fail_after(FREED):
            while lives(pid):  # noqa: ASYNC110  (nothing tells when another's process ends)
                await trio.sleep(0.005)
        with trio.fail_after(LIMIT):
            gone = await wait_line(front, "client cancelled")
        assert gone["status"] == 444
        for node in {front, runner.node}:
            with trio.fail_after(LIMIT):  # each counts at its own time
                await until_metric(node, "fn_canceled", 1)
            assert await metric(node, "fn_canceled") == 1
            assert await metric(node, "fn_errors") == 0
        for line in lines_of(front, "call finished", call_id=gone["call_id"]):
            assert (line["status"], line["code"]) == ("canceled", 444)
        assert (await call(front, content=b"next")).body == b"next"
        assert errors_of(front) == []
        await runner.drain()


@pytest.mark.parametrize("opened", [lb_and_runner, single])
@pytest.mark.parametrize("do", ["sleep=1300;lines=2", "lines=20,every=30"])
async def test_client_that_only_ends_its_side_gets_its_answer(
    folder: Path, opened: Callable[[Path], Opened], do: str
) -> None:
    """After it was asked whether it is there, and in pieces."""
    async with opened(folder) as (front, runner):
        host, _, port = front.ready["http"][0].rpartition(":")
        head = f"POST /invoke/fnt HTTP/1.1\r\nHost: localhost\r\nFnt-Do: {do}\r\n"
        head += "Content-Length: 1\r\n\r\nx"
        with trio.fail_after(LIMIT):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(head.encode())
                await stream.send_eof()
                received = b"".join([bytes(piece) async for piece in stream])
        asked = received.count(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert asked >= (2 if do.startswith("sleep") else 0)
        assert received.count(b"HTTP/1.1 200 OK\r\n") == received.count(b"HTTP/1.1 ") - asked == 1
        assert received.count(b"line ") == (2 if do.startswith("sleep") else 20)
        assert received.endswith(b"0\r\n\r\n")
        assert await metric(front, "fn_canceled") == 0
        await runner.drain()


async def leave(front: NodeProcess, do: str) -> None:
    """Go in the middle of a call: once its function has it, or has begun to answer."""
    async with posting(front, "/invoke/fnt", Fnt_Do=do) as exchange:
        if do.startswith("sleep"):
            await until_metric(front, "fn_running", 1)
        else:
            assert (await exchange.head()).status == 200
            assert await exchange.piece()


async def test_client_that_leaves_the_queue_frees_its_place(folder: Path) -> None:
    """There is one place, for which the next client is refused as long as it is taken."""
    # While it tries the runner once more a call does not wait, so that two that do so at the same
    # time may find the place free.
    lb_env = {"FN_MAX_WAITING": "1", "FN_RETRY_ALL_DELAY": "300", "FN_RETRY_MAX_DELAY": "300"}
    async with (
        open_fleet(folder, runners=1, runner_env=ROOM_FOR_ONE, lb_env=lb_env) as fleet,
        trio.open_nursery() as nursery,
    ):
        lb = fleet.lb
        replies: list[Reply] = []

        async def next_client() -> None:
            replies.append(await call(lb, content=b"next"))

        with trio.fail_after(LIMIT):
            async with posting(lb, "/invoke/fnt", Fnt_Do="sleep=30000"):
                await until_metric(fleet.runners[0].node, "fn_running", 1)
                async with posting(lb, "/invoke/fnt"):
                    await until_metric(lb, "fn_lb_placer_retry_busy_count", 1)
                    assert (await call(lb)).status == 503
                with trio.fail_after(FREED):
                    await until_metric(lb, "fn_canceled", 1)
                nursery.start_soon(next_client)
                await until_metric(lb, "fn_calls", 4)
            while not replies:  # noqa: ASYNC110  (a list)
                await trio.sleep(0.01)
        assert (replies[0].status, replies[0].body) == (200, b"next")
        assert await metric(lb, "fn_lb_placer_turned_away_count") == 1
        assert await metric(lb, "fn_canceled") == 2
        await fleet.drain()
