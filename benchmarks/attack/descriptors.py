"""Connections that are opened and kept, until the node has no file descriptor left."""

from __future__ import annotations

import contextlib
import os
import resource
from collections import Counter

import trio

from tests.support.http2 import opening
from tests.system.http import call
from tests.system.nodes import lines_of

from ._row import Outcome, Row
from ._world import LIMIT, World

ABOUT = "opens as many connections as it can, 4 000 at most, and keeps them for 2 s"
SETTLE_SECONDS = 2.0
OWN = 64
"""Descriptors that the attacker keeps for itself."""
FEW = 100
"""Descriptors of the attacked runner, in `on_nodes`."""
CROWDED = 74
"""So many in use are as many as strangers get: a quarter is kept for what is under way."""
FUNCTIONS = 40
"""Each needs a container of its own: more than there are descriptors for."""


def run(address: str, *, count: int = 4_000) -> Row:
    """Attack any port of a node. ``note`` says how many connections the node has kept."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return trio.run(_attack, address, min(count, hard - OWN))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _attack(address: str, count: int) -> Row:
    host, _, port = address.rpartition(":")
    began = trio.current_time()
    opened = closed = 0
    first_closed: float | None = None

    async def keep() -> None:
        nonlocal opened, closed, first_closed
        try:
            async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as stream:
                opened += 1
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(opening())
                    while await stream.receive_some():
                        pass
        except OSError:
            pass
        closed += 1
        first_closed = first_closed or trio.current_time() - began

    with trio.move_on_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(keep)
                await trio.lowlevel.checkpoint()
            await trio.sleep(SETTLE_SECONDS)
            nursery.cancel_scope.cancel()
    return Row(
        attack="descriptors",
        sent=opened,
        seconds=trio.current_time() - began,
        cut_after=first_closed,
        note=f"{count - closed} connections were kept",
    )


async def on_nodes(world: World) -> Outcome:
    """A runner with few descriptors is attacked, and another one beside it is not: a load balancer
    has calls that need more and more containers answered by either."""
    statuses: Counter[int] = Counter()
    functions = {"fnt": {"memory": 16}} | {f"fnt{n}": {"memory": 16} for n in range(FUNCTIONS)}

    async def one(fn: str) -> None:
        statuses[(await call(fleet.lb, "sleep=100", fn=fn)).status] += 1

    async def calls() -> None:
        """Of each function at once: the first time each needs a new container."""
        async with trio.open_nursery() as nursery:
            for fn in functions:
                nursery.start_soon(one, fn)

    with trio.fail_after(LIMIT):
        async with world.fleet(runners=2, functions=functions) as fleet:
            victim = fleet.runners[0]
            resource.prlimit(victim.node.process.pid, resource.RLIMIT_NOFILE, (FEW, FEW))
            await one("fnt")
            async with world.attacked(victim.address, "descriptors", 0) as rows:
                files = f"/proc/{victim.node.process.pid}/fd"
                with trio.move_on_after(5):
                    while len(os.listdir(files)) < CROWDED:  # noqa: ASYNC110  (another's)
                        await trio.sleep(0.01)
                full = len(os.listdir(files))
                await calls()
                await calls()
            await calls()
            by_victim = len(lines_of(fleet.lb, "call finished", runner=victim.address))
            attempts = [line["attempts"] for line in lines_of(fleet.lb, "call finished")]
    again = sum(count > 1 for count in attempts)
    other = ", ".join(f"{n} x {code}" for code, n in statuses.items() if code != 200)
    return Outcome(
        tried=f"{rows[0]['sent']} connections to a runner with {FEW} descriptors ({full} in use), "
        "another one beside it; calls that need new containers",
        happened=f"{statuses[200]} of {statuses.total()} calls answered{other and ': ' + other}; "
        f"{again} tried again elsewhere, {by_victim} by the attacked runner",
        held=not other,
    )
