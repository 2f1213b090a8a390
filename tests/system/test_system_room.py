"""A runner node refuses what it has no room for, and its load balancer goes on to the next."""

from __future__ import annotations

from pathlib import Path

import trio

from .http import Reply, call, until_metric
from .nodes import LIMIT, errors_of, lines_of, open_lb, open_runner

ROOM_FOR_ONE = {"FN_MAX_TOTAL_MEMORY_BYTES": str(20 * 2**20)}


async def test_a_full_runner_is_passed_over_without_any_setting(folder: Path) -> None:
    """The consistent-hash placer prefers one and the same runner for all these calls."""
    gate = folder / "gate"
    async with (
        open_runner(folder, env=ROOM_FOR_ONE) as north,
        open_runner(folder, env=ROOM_FOR_ONE) as south,
        open_lb(folder, [north.address, south.address], "--placer", "ch") as lb,
    ):
        replies: list[Reply] = []

        async def hold(number: int) -> None:
            replies.append(await call(lb, f"until={gate}", b"%d" % number))

        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                for number in range(3):  # the last one waits for a place
                    nursery.start_soon(hold, number)
                await until_metric(north.node, "fn_running", 1)
                await until_metric(south.node, "fn_running", 1)
                gate.touch()
        assert [reply.status for reply in replies] == [200] * 3
        assert {reply.body for reply in replies} == {b"0", b"1", b"2"}
        with trio.fail_after(LIMIT):
            while len(finished := lines_of(lb, "call finished", code=200)) < 3:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert {line["runner"] for line in finished} == {north.address, south.address}
        assert errors_of(lb) == []
        await north.drain()
        await south.drain()
