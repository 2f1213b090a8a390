"""All nodes of a fleet are restarted under load, one after the other, again and again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from tests.cli._process import NodeProcess

from .nodes import LIMIT, errors_of, lines_of, open_lb, open_runner
from .places import DETACHED, KINDS, Clients, Opener, Place, free_address

ROUNDS = int(os.environ.get("HOSTLER_TEST_ROUNDS", "3"))
"""Restarts of each of the four nodes; three make twelve."""
FUNCTIONS = {"fnt": {"memory": 1}}


@attrs.define(eq=False)
class Places:
    """Two runners, two load balancers over them, in this order, and clients that call all the
    time."""

    all: list[Place]
    load: Clients
    processes: trio.Nursery

    async def roll(self) -> None:
        """Restart all; after each load balancer and runner some calls are made.

        The load balancer drains while both runners are there: it refuses who would have to wait.
        While it starts, a runner restarts, to save time.
        """
        half = len(self.all) // 2
        for runner, lb in zip(self.all[:half], self.all[half:], strict=True):
            await lb.end()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.processes.start, lb.occupy)
                nursery.start_soon(self._restart, runner)
            await self.load.until_done(2 * self.load.count)

    async def _restart(self, place: Place) -> None:
        await place.end()
        await self.processes.start(place.occupy)


def make_places(folder: Path) -> tuple[list[Place], list[str]]:
    """Each in a folder of its own; and the addresses of the load balancers."""
    runners, lbs = ([free_address() for _ in range(2)] for _ in range(2))
    places = []
    for number, address in enumerate([*runners, *lbs]):
        home = folder / str(number)
        home.mkdir()
        if address in runners:
            opener: Opener = partial(open_runner, home, bind=address)
        else:
            opener = partial(open_lb, home, runners, functions=FUNCTIONS, bind=address)
        places.append(Place(address, opener))
    return places, lbs


@asynccontextmanager
async def open_places(folder: Path, clients: int) -> AsyncIterator[Places]:
    places, lbs = make_places(folder)
    load = Clients(lbs, clients)
    async with trio.open_nursery() as processes:
        for place in places:
            await processes.start(place.occupy)
        async with trio.open_nursery() as calling:
            calling.start_soon(load.run)
            yield Places(places, load, processes)
            load.stop.set()
        for place in reversed(places):
            await place.end()


async def test_rolling_restarts_fail_no_call(folder: Path) -> None:
    with trio.fail_after(3 * LIMIT * (ROUNDS + 1)):  # four interpreters start in each round
        async with open_places(folder, 20) as places:
            for _ in range(ROUNDS):
                await places.roll()
    load = places.load
    nodes = [node for place in places.all for node in place.nodes()]
    assert not load.failures, report_of(load, nodes)
    assert set(load.done) == set(KINDS)
    assert load.passed_over, "no client has met a load balancer that was away"
    check_logs(nodes, load.accepted)


def report_of(load: Clients, nodes: list[NodeProcess]) -> str:
    """What clients have met, and the log lines around it, for whoever has to find out why."""
    lines = [line for node in nodes for line in node.lines() if is_telling(line)]
    lines.sort(key=lambda line: str(line["timestamp"]))
    return "\n".join(map(str, [*load.failures, *lines]))


def is_telling(line: dict[str, Any]) -> bool:
    """Whether a log line is about more than one call that ended well."""
    return str(line["event"]) != "call finished" or line["status"] != "completed"


def check_logs(nodes: list[NodeProcess], accepted: list[str]) -> None:
    """Nothing went wrong, each drain was clean, and each acknowledged call has come to its end."""
    assert [error for node in nodes for error in errors_of(node)] == []
    ended = [line for node in nodes for line in lines_of(node, "call finished", type=DETACHED)]
    assert {line["status"] for line in ended} == {"completed"}
    assert {line["call_id"] for line in ended} == set(accepted)
    drains = [line for node in nodes for line in lines_of(node, "drained")]
    assert len(drains) == len(nodes) // 2  # those of load balancers
    for line in drains:
        left = ("refused", "canceled", "timeouts", "errors", "tasks", "sockets")
        assert {name: line[name] for name in left} == dict.fromkeys(left, 0)
