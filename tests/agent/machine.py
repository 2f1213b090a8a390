"""Agents on a real engine, and the functions in its containers."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import docker
import msgspec
import pytest
import trio

from hostler.abc import Body, Driver
from hostler.agent import ContainerState
from hostler.config import AgentConfig
from hostler.drivers.docker import DockerDriver, open_docker_driver

from .nodes import Node, Recorder, open_node
from .nodes import until as _until

LIMIT = 60
"""Seconds after which a test has failed."""
until = partial(_until, seconds=LIMIT)


@attrs.define
class Machine:
    """A real engine for one test."""

    host: str
    image: str
    tag: str
    iofs: Path
    engine: docker.APIClient

    def containers(self) -> list[dict[str, Any]]:
        label = f"fn-agent-classifier={self.tag}"
        found: list[dict[str, Any]] = self.engine.containers(all=True, filters={"label": label})
        return found

    @asynccontextmanager
    async def open(
        self, wrap: Callable[[DockerDriver], Driver] = lambda driver: driver, **settings: Any
    ) -> AsyncIterator[Node]:
        """An agent; at its end nothing of it may be left. A container may take long to start."""
        settings = {"hot_start_timeout_msecs": LIMIT * 1000.0, **settings}
        config = AgentConfig(container_label_tag=self.tag, experimental_prefork_pool_size=0)
        environ = {"DOCKER_HOST": self.host}
        with trio.fail_after(LIMIT):
            async with open_docker_driver(config, environ=environ) as driver:
                async with open_node(wrap(driver), self.iofs, **settings) as node:
                    yield node
                assert self.containers() == []
                assert driver.statistics().containers == 0


@contextmanager
def open_machine(host: str, image: str) -> Iterator[Machine]:
    """At the end nothing is left, also of a test that has failed. A busy engine has long to tell
    how a container has ended, and to freeze one."""
    engine = docker.APIClient(base_url=host, version="auto")
    with (
        tempfile.TemporaryDirectory(prefix="fn") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("hostler.agent.dispatch.REASON_WAIT", LIMIT)
        patch.setattr("hostler.agent.container.FREEZE_LIMIT", LIMIT)
        os.chmod(folder, 0o755)
        machine = Machine(host, image, f"hostler-test-{uuid.uuid4().hex}", Path(folder), engine)
        yield machine
        for container in machine.containers():
            engine.remove_container(container["Id"], force=True)
    engine.close()


async def do(
    node: Node, machine: Machine, what: str = "", body: Body | None = None, **fields: Any
) -> Recorder:
    return await node.run(machine.image, body, headers={"Fnt-Do": [what]}, **fields)


async def pid(node: Node, machine: Machine, **fields: Any) -> str:
    """Tells one function process from another."""
    answer = await do(node, machine, "who", **fields)
    return str(msgspec.json.decode(answer.body)["id"])


async def until_state(node: Node, wanted: Mapping[ContainerState, int]) -> None:
    await until(lambda: node.agent.statistics().containers == wanted)
