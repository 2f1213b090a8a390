"""A node that is told to stop under load, with calls that would run on for a minute."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from tests.cli._process import NodeProcess
from tests.system.http import Reply, call, until_metric
from tests.system.load import BROKEN, Load
from tests.system.nodes import Runner, open_lb, open_runner, open_single

from ._row import Outcome
from ._world import LIMIT, World

ABOUT = "SIGTERM with --grace 2 under load and with calls that hang: time until each node ends"
GRACE = 2.0
MORE = 1.5
"""Seconds that a node may need beyond its grace."""
HANGING, CLIENTS = 4, 4
NODES = ("runner", "lb", "serve")


def run(world: World) -> Outcome:
    return trio.run(_run, world)


async def _run(world: World) -> Outcome:
    told, wrong = [], []
    for kind in NODES:
        with trio.fail_after(LIMIT):
            end, faults = await _stop(world, kind)
        told.append(end)
        wrong += [f"{kind}: {fault}" for fault in faults]
    return Outcome(
        tried=f"SIGTERM with a grace of {GRACE:.0f} s, {CLIENTS} clients in a loop, {HANGING} "
        "calls of a minute",
        happened="; ".join(["ended after " + ", ".join(told), *wrong])
        + ("" if wrong else "; no short call failed, no function is left"),
        held=not wrong,
    )


@asynccontextmanager
async def _nodes(world: World, kind: str) -> AsyncIterator[tuple[NodeProcess, NodeProcess, Runner]]:
    """The front end, the node that is stopped, and who has the functions."""
    folder, grace = world.subfolder(), ("--grace", str(GRACE))
    async with AsyncExitStack() as stack:
        if kind == "serve":
            single = await stack.enter_async_context(open_single(folder, *grace))
            yield single.node, single.node, single
            return
        runner = await stack.enter_async_context(open_runner(folder, *grace))
        lb = await stack.enter_async_context(open_lb(folder, [runner.address], *grace))
        yield lb, runner.node if kind == "runner" else lb, runner


async def _stop(world: World, kind: str) -> tuple[str, list[str]]:
    """How it ended, and what was wrong."""
    answers: list[Reply | str] = []
    faults = []
    async with _nodes(world, kind) as (front, node, runner):

        async def hang() -> None:
            try:
                answers.append(await call(front, "sleep=60000"))
            except BROKEN as error:
                answers.append(repr(error))

        load = Load(front, "sleep=20")
        async with trio.open_nursery() as nursery:
            for _ in range(HANGING):
                nursery.start_soon(hang)
            nursery.start_soon(load.run_clients, CLIENTS)
            await until_metric(front, "fn_running", HANGING)
            await load.until_answers(10 * CLIENTS)
            load.stop.set()
            began = time.monotonic()
            os.kill(node.process.pid, signal.SIGTERM)
            await node.process.wait()
            took = time.monotonic() - began
            # The call of a client whose runner is gone may look for another for minutes.
            with trio.move_on_after(5) as scope:
                while len(answers) < HANGING:  # noqa: ASYNC110  (the condition is a length)
                    await trio.sleep(0.02)
            if scope.cancelled_caught:
                faults.append(f"{HANGING - len(answers)} clients hang")
            nursery.cancel_scope.cancel()
        if kind != "lb":
            with trio.move_on_after(2):
                await runner.until_no_function()
            if left := runner.functions():
                faults.append(f"{len(left)} functions are left")
    if took > GRACE + MORE:
        faults.append("too late")
    if failed := load.failed():
        faults.append(f"{len(failed)} short calls failed: {failed[0].reply}")
    answered = sum(isinstance(answer, Reply) for answer in answers)
    if answered < HANGING:
        faults.append(f"{HANGING - answered} clients were left without an answer")
    return f"{kind} {took:.2f} s ({answered} of {HANGING} that hang were answered)", faults
