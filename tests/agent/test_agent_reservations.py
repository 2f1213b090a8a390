"""Calls that hold their container until they are told to run, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.agent import ContainerState
from hostler.calls import PendingCall
from hostler.drivers.sim import SimExit, SimRequest, SimResponse, open_sim_driver
from hostler.errors import ServerBusy

from .nodes import Node, Recorder, open_node, until


class Hook:
    """A `SlotHook` that waits for ``go`` and counts how often it was asked."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.asked = 0
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.asked += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error


class Reserved:
    """A call that waits in its hook, in a task of its own."""

    def __init__(self, node: Node, image: str = "echo") -> None:
        self.hook = Hook()
        self.writer = Recorder()
        self.call: PendingCall = node.call(image, writer=self.writer)
        self.call.on_slot = self.hook
        self.scope = trio.CancelScope()
        self.error: Exception | None = None
        self.ended = trio.Event()
        self._node = node

    async def run(self) -> None:
        try:
            with self.scope:
                await self._node.agent.submit(self.call)
        except Exception as error:
            self.error = error
        self.ended.set()

    async def until_held(self) -> None:
        await until(lambda: self._node.agent.statistics().holding > 0)


async def _dies_idle(request: SimRequest) -> SimResponse:
    body = await request.read()
    if body == b"die":
        raise SimExit(3)
    return SimResponse(body=body)


@asynccontextmanager
async def open_bench(path: Path, **config: Any) -> AsyncIterator[tuple[Node, trio.Nursery]]:
    async with (
        open_sim_driver() as driver,
        open_node(driver, path, **config) as node,
        trio.open_nursery() as nursery,
    ):
        driver.add_image("echo", _dies_idle, start_time=1.0)
        yield node, nursery


def containers(node: Node) -> dict[ContainerState, int]:
    return dict(node.agent.statistics().containers)


async def test_a_held_call_runs_when_it_is_told_to(autojump_clock: object, tmp_path: Path) -> None:
    async with open_bench(tmp_path) as (node, nursery):
        one = Reserved(node)
        nursery.start_soon(one.run)
        await one.until_held()
        await trio.sleep(1)
        assert containers(node) == {ContainerState.BUSY: 1}
        assert one.call.model.started_at is None
        one.hook.go.set()
        await one.ended.wait()
        assert (one.error, one.writer.status, one.hook.asked) == (None, 200, 1)
        assert node.agent.statistics().completed == 1


@pytest.mark.parametrize("how", ["cancelled", "failed", "too late"])
async def test_an_abandoned_slot_serves_the_next_call(
    autojump_clock: object, tmp_path: Path, how: str
) -> None:
    async with open_bench(tmp_path, reservation_msecs=500.0) as (node, nursery):
        one = Reserved(node)
        nursery.start_soon(one.run)
        await one.until_held()
        if how == "cancelled":
            one.scope.cancel()
        elif how == "failed":
            one.hook.error = KeyError("lost")
            one.hook.go.set()
        began = trio.current_time()
        await one.ended.wait()
        took = trio.current_time() - began
        if how == "too late":
            assert isinstance(one.error, ServerBusy)
            assert took == pytest.approx(0.5, abs=0.02)
        else:
            assert took == 0
        s = node.agent.statistics()
        assert (s.holding, s.queued, s.launches) == (0, 0, 1)
        assert containers(node) == {ContainerState.IDLE: 1}
        await node.run()
        assert node.agent.statistics().launches == 1


async def test_a_reservation_that_is_cancelled_in_its_launch_leaves_a_spare_container(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_bench(tmp_path) as (node, nursery):
        one = Reserved(node)
        nursery.start_soon(one.run)
        await trio.sleep(0.5)
        one.scope.cancel()
        await one.ended.wait()
        assert one.hook.asked == 0
        began = trio.current_time()
        await node.run()
        assert trio.current_time() - began == pytest.approx(0.5, abs=0.05)
        assert node.agent.statistics().launches == 1


async def test_a_closing_agent_refuses_what_is_held_at_once(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_bench(tmp_path) as (node, nursery):
        one = Reserved(node)
        nursery.start_soon(one.run)
        await one.until_held()
        began = trio.current_time()
        node.agent.close_admission()
        await one.ended.wait()
        assert trio.current_time() == began
        assert isinstance(one.error, ServerBusy)


async def test_a_container_that_ends_while_it_is_held_is_replaced(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_bench(tmp_path) as (node, nursery):
        one = Reserved(node)
        nursery.start_soon(one.run)
        await one.until_held()
        (held,) = node.agent._launcher._containers
        held.leave("test")
        one.hook.go.set()
        await one.ended.wait()
        assert (one.error, one.writer.status) == (None, 200)
        assert one.hook.asked == 2
        assert node.agent.statistics().launches == 2


async def test_a_held_slot_is_neither_evicted_nor_frozen(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_bench(
        tmp_path, memory=128, enable_nb_resource_tracker=True, reservation_msecs=10_000.0
    ) as (node, nursery):
        one = Reserved(node)
        nursery.start_soon(one.run)
        await one.until_held()
        with pytest.raises(ServerBusy):
            await node.run(memory=64, fn_id="other")
        await trio.sleep(5)
        s = node.agent.statistics()
        assert (s.evictions, s.freezes, s.holding) == (0, 0, 1)
        one.hook.go.set()
        await one.ended.wait()
        assert one.error is None


async def test_reservations_are_counted_and_told_in_hints(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_bench(tmp_path) as (node, nursery):
        metrics = node.agent._events.metrics
        before = [
            metrics.reservations.value,
            metrics.reservations_committed.value,
            metrics.reservations_abandoned.value,
        ]
        for give_up in (False, True):
            one = Reserved(node)
            nursery.start_soon(one.run)
            await one.until_held()
            (one.scope.cancel if give_up else one.hook.go.set)()
            await one.ended.wait()
        after = [
            metrics.reservations.value,
            metrics.reservations_committed.value,
            metrics.reservations_abandoned.value,
        ]
        assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 1]
        assert node.agent.reservation_seconds == 2
        assert node.agent.load_hint(one.call).reserves


async def test_an_agent_without_reservations_says_so(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_bench(tmp_path, reservation_msecs=0.0) as (node, _):
        call = node.call()
        await node.agent.submit(call)
        assert node.agent.reservation_seconds == 0
        assert not node.agent.load_hint(call).reserves
