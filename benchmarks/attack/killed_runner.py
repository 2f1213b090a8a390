"""A runner with many containers that is killed, and started again."""

from __future__ import annotations

import time

import trio

from tests.cli._process import ends
from tests.system.http import call
from tests.system.nodes import lives, open_lb, open_runner

from ._row import Outcome
from ._world import LIMIT, World

ABOUT = "kill -9 of a runner with 40 containers, until the first call on the next one"
CONTAINERS = 40
BACK_S = 10.0
"""Seconds from the new runner's command until a call is answered, at most."""


def run(world: World) -> Outcome:
    return trio.run(_run, world)


async def _run(world: World) -> Outcome:
    folder = world.subfolder()
    env = {"FN_MAX_TOTAL_MEMORY_BYTES": str(16 * (CONTAINERS + 1) * 2**20)}
    functions = {"fnt": {"memory": 16}}
    with trio.fail_after(LIMIT):
        async with (
            open_runner(folder, env=env) as victim,
            open_lb(folder, [victim.address], functions=functions) as lb,
        ):
            async with trio.open_nursery() as nursery:
                for _ in range(CONTAINERS):
                    nursery.start_soon(call, lb, "sleep=3000")
            left = victim.functions()
            victim.node.process.kill()
            await victim.node.process.wait()
            began = time.monotonic()
            async with open_runner(
                folder, env=env, bind=victim.address, sockets=victim.folder
            ) as again:
                ready = time.monotonic() - began
                reply = await call(lb)
                back = time.monotonic() - began
                while any(map(lives, left)):  # noqa: ASYNC110  (another's processes)
                    await trio.sleep(0.02)
                gone = time.monotonic() - began
                await ends(lb)
                await ends(again.node)
    return Outcome(
        tried=f"a runner with {len(left)} containers is killed and started again",
        happened=f"ready after {ready:.2f} s, first call ({reply.status}) after {back:.2f} s, what "
        f"the dead one had left is gone after {gone:.2f} s",
        held=reply.status == 200 and back <= BACK_S and len(left) >= CONTAINERS // 2,
    )
