"""Calls that wait are woken by events: no timer exists that could do it."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
import trio.testing

from hostler.drivers.sim import SimContainer, SimRequest, SimResponse, open_sim_driver

from .nodes import Node, open_node

CALLS = 20
NO_LIMITS: dict[str, Any] = {"hot_start_timeout_msecs": math.inf, "slot_wait_msecs": math.inf}
"""Else each start, and each wait, has a deadline, to give up."""


@attrs.define
class Stage:
    """Containers that are ready, and functions that answer, when the test says so."""

    node: Node
    starts: deque[trio.Event] = attrs.Factory(deque)
    answers: deque[trio.Event] = attrs.Factory(deque)
    begun: list[float] = attrs.Factory(list)
    """When a function got its call."""
    ended: list[float] = attrs.Factory(list)
    """When a call was over."""

    async def start(self, container: SimContainer) -> None:
        event = trio.Event()
        self.starts.append(event)
        await event.wait()

    async def answer(self, request: SimRequest) -> SimResponse:
        self.begun.append(trio.current_time())
        event = trio.Event()
        self.answers.append(event)
        await event.wait()
        return SimResponse()

    async def call(self) -> None:
        await self.node.run("fn")
        self.ended.append(trio.current_time())

    async def release(self, events: deque[trio.Event]) -> float:
        """Let the oldest go on, at a moment that no timer of anybody is at; the moment."""
        await trio.sleep(random.Random(len(events)).uniform(0.001, 0.01))
        now = trio.current_time()
        events.popleft().set()
        await trio.testing.wait_all_tasks_blocked()
        return now


@asynccontextmanager
async def waiting_calls(iofs: Path, memory: int) -> AsyncIterator[Stage]:
    """All calls have come, and wait. They have to be released in the block."""
    async with (
        open_sim_driver() as driver,
        open_node(driver, iofs, memory=memory, **NO_LIMITS) as node,
    ):
        stage = Stage(node)
        driver.add_image("fn", stage.answer, start_hook=stage.start)
        async with trio.open_nursery() as nursery:
            for _ in range(CALLS):
                nursery.start_soon(stage.call)
            await trio.testing.wait_all_tasks_blocked()
            yield stage


def to_next_deadline() -> float:
    return trio.lowlevel.current_statistics().seconds_to_next_deadline


async def test_weakness_03_2_a_burst_waits_without_any_timer_and_goes_on_at_once(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with waiting_calls(tmp_path, memory=4096) as stage:
        assert (stage.node.agent.statistics().queued, len(stage.starts)) == (CALLS, CALLS)
        assert to_next_deadline() == math.inf
        ready = [await stage.release(stage.starts) for _ in range(CALLS)]
        assert stage.begun == ready  # exactly: not a tick later
        over = [await stage.release(stage.answers) for _ in range(CALLS)]
        assert stage.ended == over


async def test_a_line_for_few_containers_moves_with_each_that_is_free(
    autojump_clock: object, tmp_path: Path
) -> None:
    """Room for two containers: the others wait for room, and for those two."""
    async with waiting_calls(tmp_path, memory=256) as stage:
        statistics = stage.node.agent.statistics()
        assert (statistics.waiting_for_room, len(stage.starts)) == (CALLS - 2, 2)
        assert to_next_deadline() == math.inf
        woken = [await stage.release(stage.starts) for _ in range(2)]
        over = [await stage.release(stage.answers) for _ in range(CALLS)]
        assert stage.begun == woken + over[: CALLS - 2]
        assert stage.ended == over


async def test_a_line_for_another_functions_room_moves_when_its_container_is_gone(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with (
        open_sim_driver() as driver,
        open_node(driver, tmp_path, memory=128, **NO_LIMITS) as node,
    ):
        stage, removed = Stage(node), deque[trio.Event]()

        async def remove(_: object) -> None:
            removed.append(trio.Event())
            await removed[-1].wait()

        driver.add_image("other", faults={"remove": remove})
        await node.run("other", idle_timeout=1000)
        await trio.sleep(31)  # the timer of the calls' deadlines is still set to that one's
        driver.add_image("fn", stage.answer, start_hook=stage.start)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.call)
            await trio.testing.wait_all_tasks_blocked()
            assert (len(removed), len(stage.starts)) == (1, 0)
            await stage.release(removed)
            assert len(stage.starts) == 1  # in the same moment
            assert stage.begun == []
            assert to_next_deadline() == math.inf
            assert [await stage.release(stage.starts)] == stage.begun
            assert [await stage.release(stage.answers)] == stage.ended
