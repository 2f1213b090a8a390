"""Streams whose first message never comes."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from tests.support.http2 import open_peer
from tests.system.http import call

from .._usage import usage_of
from ._beside import good_caller
from ._row import Outcome, Row
from ._world import LIMIT, World

ABOUT = "opens 20 000 streams of a runner, on 20 connections, and says nothing on them"
NAME = "silent-streams"
CONNECTIONS, STREAMS = 20, 1000
WAIT_S = 25.0
GROWTH_MB = 100.0
"""4096 streams may wait at a time, and there are the connections."""
BEGIN_S = 3.0


def run(address: str) -> Row:
    """Attack the gRPC port of a runner. It is cut off when no stream is open any more."""

    async def attack() -> Row:
        began = trio.current_time()
        over: float | None = None
        async with AsyncExitStack() as stack:
            replies = []
            for _ in range(CONNECTIONS):
                peer = await stack.enter_async_context(open_peer(address))
                for _ in range(STREAMS // 100):
                    begun = [peer.begin() for _ in range(100)]
                    replies += [peer.expect(number) for _, number in begun]
                    await peer.send(b"".join(head for head, _ in begun))
            with trio.move_on_after(WAIT_S):
                for reply in replies:
                    await reply.done.wait()
                over = trio.current_time() - began
        refused = sum(reply.reset is not None and not reply.ended for reply in replies)
        answered = sum(reply.ended for reply in replies)
        return Row(
            attack=NAME,
            sent=len(replies),
            seconds=trio.current_time() - began,
            cut_after=over,
            note=f"{answered} told that they are late, {refused} refused, the rest cut off",
        )

    return trio.run(attack)


async def on_nodes(world: World) -> Outcome:
    with trio.fail_after(LIMIT):
        async with world.fleet() as fleet:
            await call(fleet.lb)
            (runner,) = fleet.runners
            pids = [runner.node.process.pid]
            memory = peak = usage_of(pids).resident_mb

            def look() -> None:
                nonlocal peak
                peak = max(peak, usage_of(pids).resident_mb)

            async with world.attacked(runner.address, NAME, 0) as rows:
                during = await good_caller(fleet, BEGIN_S, look)
            look()
            after = await call(fleet.lb)
    (row,) = rows
    failed = len(during.failed()) + (after.status != 200)
    over = "never" if row["cut_after"] is None else f"after {row['cut_after']:.1f} s"
    return Outcome(
        tried=f"{row['sent']:,} streams without a message",
        happened=f"{row['note']}, the last {over}; {failed} of {len(during.answers) + 1} good "
        f"calls failed; runner +{peak - memory:.1f} MB",
        held=row["cut_after"] is not None and not failed and peak - memory <= GROWTH_MB,
    )
