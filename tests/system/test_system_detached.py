"""A detached call that was answered 202 runs, whatever becomes of its load balancer then."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from .http import call
from .nodes import LIMIT, open_lb, open_runner, open_single

LARGEST = 5 * 1024 * 1024
"""FN_MAX_DETACHED_BODY of these nodes, under FN_MAX_REQUEST_SIZE."""
SIZES = (0, 1, 10_000, 200_000, 4_000_000, LARGEST)
ENV = {"FN_MAX_DETACHED_BODY": str(LARGEST)}


def body_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("streamed", [False, True], ids=["shared", "own-stream"])
@pytest.mark.parametrize("size", SIZES)
async def test_an_acknowledged_call_survives_the_kill_of_its_lb(
    folder: Path, size: int, streamed: bool
) -> None:
    """With its whole body, though the function reads it only later."""
    target, body = folder / "written", body_of(size)
    lb_env = {**ENV, "FN_MULTIPLEX_LIMIT": "0" if streamed else "32768"}
    async with (
        open_runner(folder, env=ENV) as runner,
        open_lb(folder, [runner.address], env=lb_env) as lb,
    ):
        with trio.fail_after(LIMIT):
            order = f"readdelay=300;write={target}"
            reply = await call(lb, order, body, Fn_Invoke_Type="detached")
            lb.process.kill()
            assert reply.status == 202
            await lb.process.wait()
            await runner.drain()  # which waits for the call
        assert target.read_bytes() == body


@pytest.mark.parametrize("node", ["lb", "runner", "serve"])
async def test_a_body_over_the_limit_is_refused_by_each_node(folder: Path, node: str) -> None:
    """By the runner, too: a load balancer of Fn's has no limit."""
    target, body = folder / "written", body_of(LARGEST + 1)
    order = f"write={target}"
    with trio.fail_after(LIMIT):
        if node == "serve":
            async with open_single(folder, env=ENV) as single:
                reply = await call(single.node, order, body, Fn_Invoke_Type="detached")
                await single.drain()
        else:
            async with (
                open_runner(folder, env=ENV if node == "runner" else {}) as runner,
                open_lb(folder, [runner.address], env=ENV if node == "lb" else {}) as lb,
            ):
                reply = await call(lb, order, body, Fn_Invoke_Type="detached")
                await runner.drain()
    assert reply.status == 413
    assert "too large" in reply.json()["message"]
    assert not target.exists()
