"""What becomes of a function whose caller has left: it may end by itself where that is quicker than
to start a container."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from hostler.abc import Body, ContainerTask, Cookie, Driver
from hostler.agent import ContainerState
from hostler.bodies import BytesBody
from hostler.drivers.sim import SimDriver, SimRequest, SimResponse, open_sim_driver
from hostler.models import Call

from .fakes import StreamBody, StuckWriter
from .functions import sleeper
from .nodes import Node, Recorder, Recording, open_node, until

START = 0.5
"""Seconds that a container takes to start."""
BIG = bytes(256 * 1024)


async def stream(request: SimRequest) -> SimResponse:
    await request.read()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(4):
            await trio.sleep(0.05)
            yield BIG

    return SimResponse(body=body())


def add(driver: SimDriver) -> None:
    driver.add_image("sleeper", sleeper, create_time=START)
    driver.add_image("stream", stream, create_time=START)


async def leave_after(
    seconds: float, node: Node, text: str, image: str = "sleeper", body: Body | None = None
) -> None:
    """Have a call of which the client leaves after so many seconds of its run."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(node.run, image, body or BytesBody(text.encode())))
            await until(lambda: node.agent.statistics().running == 1)
            await trio.sleep(seconds)
            scope.cancel()


@pytest.mark.parametrize("body", [None, StreamBody(b"0", b".1"), StreamBody(b"0.1")])
async def test_a_function_that_ends_soon_keeps_its_container(
    autojump_clock: object, tmp_path: Path, body: Body | None
) -> None:
    """The call is over at once for all others; the container is not free before it is."""
    record: list[str] = []
    async with open_sim_driver() as driver, open_node(driver, tmp_path, memory=128) as node:
        add(driver)
        node.agent.add_listener(Recording(record))
        await node.run("sleeper", BytesBody(b"0.1"))
        began = trio.current_time()
        await leave_after(0.05, node, "0.1", body=body)
        statistics = node.agent.statistics()
        assert (statistics.running, statistics.canceled) == (0, 1)
        assert record[-1] == "after error cancelled"
        answer = await node.run("sleeper", BytesBody(b"0.2"))
        assert answer.body == b"0.2"
        assert node.agent.statistics().launches == 1
        assert trio.current_time() - began > 0.3
        assert driver.statistics().requests == 3


async def test_the_rest_of_a_streamed_answer_is_thrown_away(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path, memory=128) as node:
        add(driver)
        await leave_after(0.12, node, "", "stream")
        assert (await node.run("stream")).body == BIG * 4
        assert node.agent.statistics().launches == 1


async def test_the_container_of_a_client_that_does_not_read_and_leaves_is_kept(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path, memory=128) as node:
        add(driver)
        writer = StuckWriter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.agent.submit, node.call("stream", writer=writer))
            await writer.stuck.wait()
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
        await node.run("stream")
        assert node.agent.statistics().launches == 1


class GoneWriter(Recorder):
    async def write(self, data: bytes | memoryview) -> None:
        raise trio.BrokenResourceError


async def test_a_writer_that_fails_is_a_client_that_has_left(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path, memory=128) as node:
        add(driver)
        with pytest.raises(trio.BrokenResourceError):
            await node.agent.submit(node.call("stream", writer=GoneWriter()))
        await node.run("stream")
        assert node.agent.statistics().launches == 1


async def test_a_function_that_usually_takes_longer_than_a_start_is_ended_at_once(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        add(driver)
        for _ in range(5):  # no short run of them is taken for one that has ended
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.run, "sleeper", BytesBody(b"1"))
                nursery.start_soon(node.run, "sleeper", BytesBody(b"1"))
            await leave_after(0.01, node, "1")
            assert ContainerState.BUSY not in node.agent.statistics().containers


async def test_a_function_that_has_nearly_ended_keeps_its_container(
    autojump_clock: object, tmp_path: Path
) -> None:
    """Though calls take longer than a start, the rest of this one does not."""
    async with open_sim_driver() as driver, open_node(driver, tmp_path, memory=128) as node:
        add(driver)
        await node.run("sleeper", BytesBody(b"2"))
        await leave_after(1.6, node, "2")
        await node.run("sleeper", BytesBody(b"2"))
        assert node.agent.statistics().launches == 1


async def test_one_that_hangs_costs_the_time_of_a_start(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        add(driver)
        await node.run("sleeper", BytesBody(b"0.1"))
        await leave_after(0.05, node, "1000")
        await trio.sleep(START - 0.01)
        assert node.agent.statistics().containers == {ContainerState.BUSY: 1}
        await trio.sleep(0.02)
        await until(lambda: node.agent.statistics().at_rest)


async def test_the_calls_time_ends_it_too(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        driver.add_image("sleeper", sleeper, create_time=3)
        await node.run("sleeper", BytesBody(b"0.1"), timeout=1)
        with trio.move_on_after(0.5):
            await node.run("sleeper", BytesBody(b"1000"), timeout=1)
        await trio.sleep(0.4)
        assert node.agent.statistics().containers == {ContainerState.BUSY: 1}
        await trio.sleep(0.2)
        assert node.agent.statistics().at_rest


async def test_a_request_that_is_not_complete_can_not_end(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_sim_driver() as driver, open_node(driver, tmp_path) as node:
        add(driver)
        await node.run("sleeper", BytesBody(b"0.1"))
        await leave_after(0.05, node, "", body=StreamBody(b"0.1", silent=True))
        assert ContainerState.BUSY not in node.agent.statistics().containers
        await until(lambda: node.agent.statistics().at_rest)


async def test_a_drain_does_not_wait_for_it(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver() as driver:
        async with open_node(driver, tmp_path) as node:
            add(driver)
            await node.run("sleeper", BytesBody(b"0.1"))
            await leave_after(0.05, node, "0.3")
            began = trio.current_time()
        assert trio.current_time() - began < 0.1


@attrs.define
class Hooked(Driver):
    inner: Driver
    record: list[float]

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        async def after(model: Call, extensions: Mapping[str, str]) -> None:
            self.record.append(trio.current_time())

        task.after_call = after
        return await self.inner.create_cookie(task)


async def test_the_hook_of_a_driver_runs_when_the_function_has_ended(
    autojump_clock: object, tmp_path: Path
) -> None:
    ends: list[float] = []
    async with open_sim_driver() as driver, open_node(Hooked(driver, ends), tmp_path) as node:
        add(driver)
        await node.run("sleeper", BytesBody(b"0.1"))
        await leave_after(0.05, node, "0.2")
        left = trio.current_time()
        await until(lambda: len(ends) == 2)
        assert ends[-1] - left == pytest.approx(0.15, abs=0.02)
        await leave_after(0.05, node, "1000")
        await until(lambda: len(ends) == 3)


async def test_clients_that_leave_under_four_times_the_load_cost_few_containers(
    autojump_clock: object, tmp_path: Path
) -> None:
    """Two containers, 20 calls a second, 80 of them come, each for at most 0.3 s, from a load
    balancer that does not learn from it."""
    async with (
        open_sim_driver() as driver,
        open_node(driver, tmp_path, memory=256) as node,
        trio.open_nursery() as nursery,
    ):
        add(driver)
        during = done = 0

        async def client() -> None:
            nonlocal during, done
            call = node.call("sleeper", BytesBody(b"0.1"))
            call.client = "lb"
            with trio.move_on_after(0.3) as scope, suppress(Exception):
                await node.agent.submit(call)
            during += scope.cancelled_caught and call.model.started_at is not None
            done += not scope.cancelled_caught

        for _ in range(80 * 20):
            nursery.start_soon(client)
            await trio.sleep(1 / 80)
        await trio.sleep(1)
        assert during > 100
        assert node.agent.statistics().launches - 2 <= during / 100
