"""Clients that leave: until what each had is free, as the nodes' own counters tell.

A place in the load balancer's queue, a reservation while a container starts, and a running
function. The counters are looked at one after the other, which takes some milliseconds by itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from tests.support.folders import short_folder
from tests.system.http import call, metric, posting, until_metric
from tests.system.nodes import Fleet, open_fleet

from .._measure import Metrics
from .._scenario import Scenario, Settings
from .._target import Target

ROUNDS = 10
LIMIT = 120.0
"""Seconds for a run."""
ROOM_FOR_ONE = {"FN_MAX_TOTAL_MEMORY_BYTES": str(24 * 2**20)}
FUNCTIONS = {"fnt": {}, "stuck": {"config": {"FNT_START": "hang"}}}
LONG = "sleep=60000"


def _measure(target: Target, settings: Settings) -> Metrics:
    with short_folder() as folder:
        return trio.run(_run, folder)


async def _run(folder: Path) -> Metrics:
    metrics: Metrics = {}
    with trio.fail_after(LIMIT):
        async with open_fleet(
            folder, runners=1, functions=FUNCTIONS, runner_env=ROOM_FOR_ONE
        ) as fleet:
            await call(fleet.lb)
            # The container that hangs in its start stays, so this comes last.
            for name, leave in (("slot", _slot), ("place", _place), ("reservation", _reservation)):
                took = [1e3 * await leave(fleet) for _ in range(ROUNDS)]
                metrics[f"{name}_free_ms"] = statistics.median(took)
                metrics[f"{name}_free_max_ms"] = max(took)
    return metrics


async def _until(condition: Callable[[], Awaitable[bool]]) -> float:
    """Seconds until it holds."""
    began = trio.current_time()
    while not await condition():
        await trio.lowlevel.checkpoint()
    return trio.current_time() - began


async def _slot(fleet: Fleet) -> float:
    runner = fleet.runners[0].node
    async with posting(fleet.lb, "/invoke/fnt", Fnt_Do=LONG):
        await until_metric(runner, "fn_running", 1)

    async def free() -> bool:
        return not await metric(runner, "fn_running")

    return await _until(free)


async def _place(fleet: Fleet) -> float:
    canceled = await metric(fleet.lb, "fn_canceled")
    refused = await metric(fleet.lb, "fn_lb_placer_retry_busy_count")

    async def free() -> bool:
        return await metric(fleet.lb, "fn_canceled") > canceled

    async with posting(fleet.lb, "/invoke/fnt", Fnt_Do=LONG):
        await until_metric(fleet.runners[0].node, "fn_running", 1)
        async with posting(fleet.lb, "/invoke/fnt"):
            await until_metric(fleet.lb, "fn_lb_placer_retry_busy_count", refused + 1)
        return await _until(free)


async def _reservation(fleet: Fleet) -> float:
    runner = fleet.runners[0].node

    async def free() -> bool:
        return not await metric(runner, "fn_queued")

    async with posting(fleet.lb, "/invoke/stuck"):
        await until_metric(runner, "fn_queued", 1)
    return await _until(free)


SCENARIOS = (
    Scenario(
        name="client-leaves",
        about="a client leaves: until its place, reservation or slot is free",
        measure=_measure,
        target="none",
    ),
)
