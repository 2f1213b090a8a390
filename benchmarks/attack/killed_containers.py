"""Idle containers that somebody else kills: the calls that come next must not notice."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import trio

from tests.cli._process import NodeProcess, ends
from tests.system.http import Reply, call
from tests.system.nodes import open_single

from ._row import Outcome
from ._world import LIMIT, World

ABOUT = "kills idle containers from outside, and calls at once"
CONTAINERS, ROUNDS = 4, 8


def run(world: World) -> Outcome:
    return trio.run(_run, world)


async def _run(world: World) -> Outcome:
    statuses: Counter[tuple[str, int]] = Counter()
    killed = 0
    with trio.fail_after(LIMIT):
        async with world.fleet() as fleet, open_single(world.subfolder()) as single:
            for name, node in (("lb", fleet.lb), ("serve", single.node)):
                for _ in range(ROUNDS):
                    killed += await _kill(node)
                    replies = await _at_once(node, "", 2 * CONTAINERS)
                    statuses.update((name, reply.status) for reply in replies)
            await ends(single.node)
    return Outcome(
        tried=f"{killed} idle containers killed, {statuses.total()} calls right after that, at a "
        "load balancer and at a full node",
        happened=", ".join(f"{name}: {n} x {code}" for (name, code), n in sorted(statuses.items())),
        held={code for _, code in statuses} == {200},
    )


async def _kill(node: NodeProcess) -> int:
    """All containers of the function, which are idle then; how many."""
    replies = await _at_once(node, "sleep=100;pid", CONTAINERS)
    pids = {int(reply.body) for reply in replies if reply.status == 200}
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with trio.fail_after(10):
        while not all(map(_dead, pids)):
            await trio.lowlevel.checkpoint()
    return len(pids)


def _dead(pid: int) -> bool:
    """With all of its threads: its sockets are closed then."""
    folder = f"/proc/{pid}/task"
    try:
        states = [
            Path(folder, thread, "stat").read_text().rpartition(") ")[2][0]
            for thread in os.listdir(folder)
        ]
    except (FileNotFoundError, ProcessLookupError):
        return not os.path.exists(folder)
    return states in ([], ["Z"], ["X"])


async def _at_once(node: NodeProcess, do: str, count: int) -> list[Reply]:
    replies = []

    async def one() -> None:
        replies.append(await call(node, do))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return replies
