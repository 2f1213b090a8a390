"""A runner that is killed under load takes with it only what was committed to it, and returns."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.cli._process import ends

from .http import Reply, call
from .killing import Kind, Seen, docker_kind, opened, process_kind
from .nodes import LIMIT, errors_of, lines_of

DO = "sleep=500"
"""So long that also a slow machine has more calls under way than fit on one runner: the other one
is needed."""
RETURNED = 30.0
"""Seconds within which a runner that is back must have its first call on a machine that has much
else to do; an idle one takes less than 1, which a benchmark measures."""


async def run(folder: Path, kind: Kind) -> None:
    async with opened(folder, kind) as (seen, survivor):
        with trio.fail_after(3 * LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(seen.load.run_clients, kind.clients)
                await seen.kill_and_return()
                await seen.until_gone()
                seen.load.stop.set()
        assert (await call(seen.lb, content=b"later")).body == b"later"
        assert await ends(seen.lb) == 0
        check_times(seen)
        check_calls(seen, survivor.address)
        await survivor.drain()


def check_calls(seen: Seen, survivor: str) -> None:
    """Each failure is of a call that the victim had, is one line at the LB, and a clear answer."""
    ended = {line["call_id"]: line for line in lines_of(seen.lb, "call finished")}
    used = set()
    for answer in seen.load.answers:
        assert isinstance(answer.reply, Reply), answer
        line = ended[answer.reply.headers["fn-call-id"]]
        assert line["code"] == answer.reply.status
        used.add((line["runner"], line["code"]))
        if not answer.ok:
            assert "gRPC status 14: connection" in line["error"], line["error"]
            assert answer.reply.headers["content-type"].startswith("application/json")
            assert answer.reply.json() == {"message": "internal server error"}
    victim = seen.victim.address
    assert used == {(victim, 200), (survivor, 200), (victim, 500)}, used
    failed = len(seen.load.failed())
    # Beside those that run, some are on their way: to a container, or back with their answer.
    assert 1 <= failed < seen.kind.clients
    assert [line["event"] for line in errors_of(seen.lb)] == ["internal error in a call"] * failed


def check_times(seen: Seen) -> None:
    assert len(lines_of(seen.lb, "runner ejected", runner=seen.victim.address)) == 1
    figures = seen.figures()
    ejected = figures["ejected_ms_after_kill"]
    away = (seen.back_at - seen.killed_at) * 1e3
    assert figures["failed_last_came_ms_after_kill"] <= ejected, "a call went to who is known away"
    assert 0 <= figures["failed_last_told_ms_after_kill"] < away
    assert 0 <= ejected < away
    assert figures["used_again_ms_after_ready"] < RETURNED * 1e3
    assert seen.left


async def test_killed_runner_fails_only_the_calls_committed_to_it(folder: Path) -> None:
    await run(folder, process_kind(folder, 20, DO))


@pytest.mark.docker
async def test_killed_runners_containers_are_removed_once_it_is_back(
    folder: Path, docker_host: str
) -> None:
    with docker_kind(folder, docker_host, 4, DO) as kind:
        await run(folder, kind)
