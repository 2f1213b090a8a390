"""Samples of what a container uses go to the call that runs on it (reference 04 §3.6)."""

from __future__ import annotations

from pathlib import Path

import trio

from hostler.abc import ContainerTask, Cookie, Driver
from hostler.drivers.sim import SimRequest, SimResponse, open_sim_driver

from .nodes import open_node, until


class Measured(Driver):
    """Keeps the tasks, so that a test can measure their containers."""

    def __init__(self, inner: Driver) -> None:
        self._inner = inner
        self.tasks: list[ContainerTask] = []

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        self.tasks.append(task)
        return await self._inner.create_cookie(task)


async def test_samples_belong_to_the_call_that_runs(autojump_clock: object, tmp_path: Path) -> None:
    running, go_on = trio.Event(), trio.Event()

    async def function(request: SimRequest) -> SimResponse:
        running.set()
        await go_on.wait()
        return SimResponse(body=await request.read())

    async with open_sim_driver({"echo": function}) as inner:
        driver = Measured(inner)
        async with open_node(driver, tmp_path) as node, trio.open_nursery() as nursery:
            first, second = node.call(), node.call()
            nursery.start_soon(node.agent.submit, first)
            await running.wait()
            [task] = driver.tasks
            task.on_sample({"mem_usage": 1})
            task.on_sample({"mem_usage": 2})
            go_on.set()
            await until(lambda: node.agent.statistics().completed == 1)
            task.on_sample({"mem_usage": 3})
            await node.agent.submit(second)
    assert [sample.metrics for sample in first.model.stats] == [{"mem_usage": 1}, {"mem_usage": 2}]
    assert second.model.stats == []
