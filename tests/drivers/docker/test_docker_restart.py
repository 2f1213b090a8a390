"""An engine that is killed and comes back, or hangs, under the load of a real agent."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from math import inf
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from hostler.config import AgentConfig
from hostler.drivers.docker import DockerDriver, DockerMetrics, EngineOperation, open_docker_driver
from hostler.errors import APIError, ContainerInitFailed, ServerBusy
from tests.agent.nodes import Node, open_node

from ...conftest import Logs
from .own_engine import OwnEngine, needs_dockerd, open_own_engine

LIMIT = 120
"""Seconds for a whole test on a loaded machine."""

CLEAR = {
    (502, "error receiving function response"),
    (502, str(ContainerInitFailed())),
    (503, str(ServerBusy())),
}
"""What callers may see of a restart; how the container has ended may follow."""

pytestmark = [pytest.mark.docker, pytest.mark.slow, needs_dockerd]


@pytest.fixture
async def own_engine() -> AsyncIterator[OwnEngine]:
    async with open_own_engine() as engine:
        yield engine


@attrs.define
class Load:
    """Workers that call functions without a pause, and what became of their calls."""

    node: Node
    successes: int = 0
    errors: list[APIError] = attrs.Factory(list)
    changed: trio.Event = attrs.Factory(trio.Event)

    async def work(self, fn: int) -> None:
        while True:
            try:
                answer = await self.node.run(
                    "fnt", fn_id=f"fn{fn}", memory=32, headers={"Fnt-Do": ["sleep=20"]}
                )
                assert answer.status == 200
                self.successes += 1
            except APIError as error:
                self.errors.append(error)
                await trio.sleep(0.05)  # as a client does that backs off
            self._notify()

    def _notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def more_successes(self, count: int) -> None:
        """Until so many calls more have succeeded."""
        wanted = self.successes + count
        while self.successes < wanted:
            await self.changed.wait()

    async def an_error(self) -> None:
        while not self.errors:
            await self.changed.wait()


def settings(folder: Path) -> AgentConfig:
    return AgentConfig(
        container_label_tag="hostler-test", iofs_path=str(folder), prepared_networks=1
    )


async def until_removed(driver: DockerDriver) -> None:
    """Until the driver has no containers but those of its pool of network name spaces."""
    while (now := driver.statistics()).containers > now.prefork.free + now.prefork.used:
        await trio.testing.wait_all_tasks_blocked(0.05)


async def test_engine_restarts_under_load(
    own_engine: OwnEngine, open_folder: Path, logs: Logs
) -> None:
    """Calls in flight fail with clear errors, later ones succeed, and nothing is left."""
    registry = CollectorRegistry()
    with trio.fail_after(LIMIT):
        async with open_docker_driver(
            settings(open_folder),
            environ={"DOCKER_HOST": own_engine.host},
            metrics=DockerMetrics(registry),
        ) as driver:
            async with (
                open_node(driver, open_folder) as node,
                trio.open_nursery() as nursery,
            ):
                load = Load(node)
                for number in range(6):
                    nursery.start_soon(load.work, number % 3)
                await load.more_successes(30)
                assert load.errors == []
                await own_engine.restart()
                # Only the new engine ends the containers of the old one.
                await load.an_error()
                await load.more_successes(60)
                after = len(load.errors)
                await load.more_successes(60)
                assert len(load.errors) == after
                nursery.cancel_scope.cancel()
            await until_removed(driver)
    assert await own_engine.containers() == []
    assert os.listdir(open_folder) == []
    texts = {(error.code, str(error).partition(": the container ")[0]) for error in load.errors}
    assert texts <= CLEAR
    assert len(logs.with_event("engine's events lost")) == 1
    for entry in logs.errors():
        assert entry["event"] in ("removal failed", "launch failed inside the runner")
        logs.remove(entry)


async def test_engine_restarts_while_containers_start(
    own_engine: OwnEngine, open_folder: Path, logs: Logs
) -> None:
    """Their calls fail with clear errors, later ones succeed, and nothing is left."""
    errors: list[APIError] = []

    async def fail(node: Node, fn: int) -> None:
        slow = {"FNT_START": "delay=60000"}
        with pytest.raises(APIError) as caught:
            await node.run("fnt", fn_id=f"slow{fn}", memory=32, config=slow)
        errors.append(caught.value)

    with trio.fail_after(LIMIT):
        async with open_docker_driver(
            settings(open_folder),
            environ={"DOCKER_HOST": own_engine.host},
            metrics=DockerMetrics(CollectorRegistry()),
        ) as driver:
            async with open_node(driver, open_folder) as node:
                async with trio.open_nursery() as nursery:
                    for number in range(4):
                        nursery.start_soon(fail, node, number)
                    while (now := driver.statistics()).watched < now.prefork.size + 4:
                        await trio.testing.wait_all_tasks_blocked(0.01)
                    await own_engine.restart()
                load = Load(node)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(load.work, 0)
                    await load.more_successes(5)
                    nursery.cancel_scope.cancel()
            await until_removed(driver)
    assert await own_engine.containers() == []
    assert os.listdir(open_folder) == []
    texts = {(error.code, str(error).partition(": the container ")[0]) for error in errors}
    assert texts <= CLEAR
    for entry in logs.errors():
        assert entry["event"] == "removal failed"
        logs.remove(entry)


async def test_engine_hangs_under_load(
    own_engine: OwnEngine, open_folder: Path, logs: Logs
) -> None:
    """Launches fail in time, hot containers go on, and when the engine answers again so do the
    others."""
    with trio.fail_after(LIMIT):
        async with open_docker_driver(
            settings(open_folder),
            environ={"DOCKER_HOST": own_engine.host},
            metrics=DockerMetrics(CollectorRegistry()),
        ) as driver:
            limits = driver._shared.engine._limits
            usual = dict(limits)
            async with open_node(driver, open_folder, freeze_idle_msecs=inf) as node:
                await node.run("fnt", fn_id="hot")
                own_engine.stop()
                # Not before: an engine that is busy may take longer.
                limits.update(dict.fromkeys(EngineOperation, 1.0))
                began = trio.current_time()
                with pytest.raises(ServerBusy):
                    await node.run("fnt", fn_id="cold")
                assert trio.current_time() - began < LIMIT / 4
                assert (await node.run("fnt", fn_id="hot")).status == 200
                limits.update(usual)
                own_engine.go_on()
                assert (await node.run("fnt", fn_id="cold")).status == 200
            await until_removed(driver)
    assert await own_engine.containers() == []
    assert os.listdir(open_folder) == []


async def test_hung_engine_does_not_block_the_end(
    own_engine: OwnEngine, open_folder: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's calls have far longer limits than the agent's and the driver's ends. What is
    left is named in the log, and removed by the next start."""
    monkeypatch.setattr("hostler.agent.container.REMOVE_LIMIT", 1.0)
    monkeypatch.setattr("hostler.drivers.docker.driver.CLOSE_GRACE", 1.0)
    config = attrs.evolve(settings(open_folder), drain_grace_msecs=100.0)
    environ = {"DOCKER_HOST": own_engine.host}
    with trio.fail_after(LIMIT):
        async with (
            open_docker_driver(
                config, environ=environ, metrics=DockerMetrics(CollectorRegistry())
            ) as driver,
            open_node(driver, open_folder) as node,
        ):
            await node.run("fnt", fn_id="hot")
            # What was being made would come into being after all, when nobody knows of it any more.
            while (now := driver.statistics().prefork).free + now.used < now.size:
                await trio.testing.wait_all_tasks_blocked(0.01)
            own_engine.stop()
        own_engine.go_on()
        assert logs.expect_error("removal takes too long")["step"] == "remove container"
        async with open_docker_driver(
            attrs.evolve(config, experimental_prefork_pool_size=0),
            environ=environ,
            metrics=DockerMetrics(CollectorRegistry()),
        ):
            while await own_engine.containers():
                await trio.testing.wait_all_tasks_blocked(0.05)
