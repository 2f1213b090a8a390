"""A runner that is killed under load while another one is there, and that comes back; then it is
told to stop.

Calls that it had begun when it was killed fail: nobody knows what they have done. What counts is
that no other call does, how soon new ones avoid it, how soon it is used again, and that nothing is
left of what it ran. When it is told to stop, no call may fail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import trio

from tests.cli._process import ends
from tests.support.folders import short_folder
from tests.system.http import Reply
from tests.system.killing import Kind, Seen, docker_kind, opened, process_kind

from .._measure import Metrics, RunFailed
from .._scenario import Scenario, Settings
from .._target import Target, docker_host

LIMIT = 120.0
"""Seconds for a run."""
PROCESSES, CONTAINERS = 20, 10
"""Places for functions that each of the runners has."""
DO = "sleep=40"
ROUNDS = 40
"""Calls of each client before the kill, so that all containers are there."""


def _measure(target: Target, settings: Settings) -> Metrics:
    with short_folder() as folder, _kind(folder, settings.driver) as kind:
        return trio.run(_run, folder, kind)


@contextlib.contextmanager
def _kind(folder: Path, driver: str) -> Iterator[Kind]:
    if driver == "process":
        yield process_kind(folder, PROCESSES, DO)
    else:
        with docker_kind(folder, docker_host(), CONTAINERS, DO) as kind:
            yield kind


async def _run(folder: Path, kind: Kind) -> Metrics:
    async with opened(folder, kind) as (seen, _survivor):
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(seen.load.run_clients, kind.clients)
                await seen.kill_and_return(rounds=ROUNDS)
                stopped = await seen.stop()
                seen.load.stop.set()
        await ends(seen.lb)
        figures = seen.figures()
    _check(seen)
    unexplained = len(seen.load.failed()) - len(stopped) - figures["failed"]
    return {
        **figures,
        "failed_without_the_killed_runner": unexplained,
        "failed_when_told_to_stop": len(stopped),
    }


def _check(seen: Seen) -> None:
    """Raises `RunFailed` if a client had anything else than its echo or a clear error."""
    for answer in seen.load.failed():
        reply = answer.reply
        if not isinstance(reply, Reply) or reply.status != 500 or "message" not in reply.json():
            raise RunFailed(f"a client had no clear answer: {reply}")


SCENARIOS = (
    Scenario(
        name="runner-kill",
        about="one of two runners is killed under several hundred calls/s of 40 ms, and returns",
        measure=_measure,
        target="none",
    ),
)
