"""kill -9 of a load balancer right behind the 202 of a detached call with a large body."""

from __future__ import annotations

import random
from pathlib import Path

import trio

from tests.cli._process import ends
from tests.system.http import call
from tests.system.nodes import open_lb, open_runner

from ._row import Outcome
from ._world import LIMIT, World

ABOUT = "kill -9 of the load balancer right after the 202 of a detached call with 5 MiB"
SIZE = 5 * 2**20
ROUNDS = 4


def run(world: World) -> Outcome:
    return trio.run(_run, world)


async def _run(world: World) -> Outcome:
    folder = world.subfolder()
    promised = whole = 0
    with trio.fail_after(LIMIT):
        async with open_runner(folder) as runner:
            for number in range(ROUNDS):
                body = random.Random(number).randbytes(SIZE)
                target = folder / f"written{number}"
                # Every second one on a stream of its own.
                env = {"FN_MULTIPLEX_LIMIT": "0"} if number % 2 else {}
                async with open_lb(folder, [runner.address], env=env) as lb:
                    # The function reads the body later.
                    do = f"readdelay=300;write={target}"
                    reply = await call(lb, do, body, Fn_Invoke_Type="detached")
                    lb.process.kill()
                    promised += reply.status == 202
                    await lb.process.wait()
                with trio.move_on_after(10):
                    while size_of(target) < SIZE:  # noqa: ASYNC110  (another process's file)
                        await trio.sleep(0.02)
                whole += target.exists() and target.read_bytes() == body
            await ends(runner.node)
    return Outcome(
        tried=f"{ROUNDS} detached calls with {SIZE >> 20} MiB, the load balancer killed at the 202",
        happened=f"{promised} x 202; {whole} functions had all of their body",
        held=promised == whole == ROUNDS,
    )


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
