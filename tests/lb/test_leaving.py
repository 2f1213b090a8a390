"""A client that leaves frees what it held in that very moment: LB agent, placer, engagement, runner
and agent together, on virtual time, which does not pass meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.agent.nodes import until

from .stack import Stack, open_stack

START = 10.0
"""Seconds that a container of ``slow`` takes to start."""


class Client:
    """One client of ``stack`` whose call works until it is stopped."""

    def __init__(self, stack: Stack, name: str, image: str = "endless") -> None:
        self._call = stack.call(name)
        self._call.model.image = image
        self._stack = stack
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        with self._scope:
            await self._stack.agent.submit(self._call)

    def leave(self) -> None:
        self._scope.cancel()


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Stack, Callable[..., Client]]]:
    """A stack, and what starts a client; who is left at the end leaves."""
    async with open_stack(folder) as stack, trio.open_nursery() as nursery:

        def come(name: str, image: str = "endless") -> Client:
            client = Client(stack, name, image)
            nursery.start_soon(client.run)
            return client

        yield stack, come
        nursery.cancel_scope.cancel()


async def at_once(condition: Callable[[], bool]) -> None:
    """``condition()`` comes to hold without any time passing."""
    began = trio.current_time()
    for _ in range(100):
        if condition():
            break
        await wait_all_tasks_blocked()
    assert condition()
    assert trio.current_time() == began


async def test_its_place_in_the_queue(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Those behind it move up: the next is the first to be served."""
    async with opened(tmp_path) as (stack, come):
        runs = come("runs")
        await until(lambda: stack.runs == 1)
        waits = []
        for number in range(3):
            waits.append(come(f"w{number}"))
            await until(lambda: stack.placer.statistics().waiting == number + 1)  # noqa: B023
        waits[0].leave()
        await at_once(lambda: stack.placer.statistics().waiting == 2)
        assert stack.agent.statistics().canceled == 1
        assert stack.runs == 1
        runs.leave()
        await at_once(lambda: stack.called == ["runs", "w1"])


@pytest.mark.parametrize("moment", [0.0, START / 2])
async def test_its_reservation(autojump_clock: MockClock, tmp_path: Path, moment: float) -> None:
    """Before its container starts, and while it does; the container serves the next call."""
    async with opened(tmp_path) as (stack, come):
        await stack.lbs_runner.status()
        assert stack.lbs_runner.reserves
        stack.runner.driver.add_image("slow", stack.endless, start_time=START)
        reserves = come("reserves", "slow")
        await at_once(lambda: stack.metrics.reservations.value == 1)
        await trio.sleep(moment)
        reserves.leave()
        await at_once(lambda: stack.runner.service.statistics().active == 0)
        statistics = stack.runner.agent.statistics()
        assert (statistics.queued, statistics.holding, statistics.running) == (0, 0, 0)
        assert stack.metrics.reservations_abandoned.value == 1
        assert stack.metrics.placer_client_cancelled.value == 1
        assert stack.placer.statistics().calls == 0
        come("next", "slow")
        await trio.sleep(START - moment)
        await at_once(lambda: stack.called == ["next"])
        assert stack.runner.agent.statistics().launches == 1


async def test_its_slot(autojump_clock: MockClock, tmp_path: Path) -> None:
    """A function that was stopped in a request takes no other one: its container makes room."""
    async with opened(tmp_path) as (stack, come):
        runs = come("runs")
        await until(lambda: stack.runs == 1)
        runs.leave()
        await at_once(lambda: stack.runner.agent.statistics().at_rest)
        assert stack.runner.service.statistics().active == 0
        assert stack.metrics.placer_placed_abort.value == 1
        come("next")
        await at_once(lambda: stack.called == ["runs", "next"])
