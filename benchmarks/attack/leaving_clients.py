"""Clients that end their side only, and clients that go."""

from __future__ import annotations

import time

import trio

from tests.system.http import metric, until_metric
from tests.system.nodes import lives

from ._row import Outcome
from ._world import LIMIT, Ask, World, post, status

ABOUT = "half-closed clients have to get their answers, and those that are gone end their calls"
EACH = 10
FREED_S = 5.0
"""Seconds within which the calls of clients that are gone have ended."""


def run(world: World) -> Outcome:
    return trio.run(_run, world)


async def _run(world: World) -> Outcome:
    asks = [
        Ask(data=post("/invoke/fnt", "Fnt-Do: sleep=1200;size=20"), then="half")
        for _ in range(EACH)
    ]
    asks += [
        Ask(data=post("/invoke/fnt", "Fnt-Do: sleep=60000"), then="leave", hold=1.0)
        for _ in range(EACH)
    ]
    with trio.fail_after(LIMIT):
        async with world.fleet() as fleet:
            answers = await world.ask(fleet.lb.ready["http"][0], asks)
            began = time.monotonic()
            pids = fleet.runners[0].functions()
            with trio.move_on_after(FREED_S) as late:
                await until_metric(fleet.lb, "fn_canceled", EACH)
                while await metric(fleet.runners[0].node, "fn_running"):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            took = time.monotonic() - began
            ended = await metric(fleet.lb, "fn_canceled")
            running = await metric(fleet.runners[0].node, "fn_running")
            killed = len([pid for pid in pids if not lives(pid)])
    whole = [
        b"\r\n\r\n0123456789abcdef0123" in (answer or b"") and b" 200 OK" in (answer or b"")
        for answer in answers[:EACH]
    ]
    first = "" if all(whole) else f" (one had {status(answers[whole.index(False)])})"
    return Outcome(
        tried=f"{EACH} clients that close their side, {EACH} that go, in calls",
        happened=f"{sum(whole)} of {EACH} had their answers{first}; {ended:.0f} of {EACH} calls "
        f"ended, within {took:.2f} s after, {running:.0f} still run ({killed} functions ended)",
        held=all(whole) and ended == EACH and not running and not late.cancelled_caught,
    )
