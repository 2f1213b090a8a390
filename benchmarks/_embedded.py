"""An agent with its driver inside of a benchmark's own process, and how that process is run."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec
import structlog
import trio

from hostler import options
from hostler.abc import Driver
from hostler.agent import Agent, Resources, open_agent
from hostler.bodies import BytesBody
from hostler.calls import PendingCall
from hostler.config import AgentConfig
from hostler.drivers.docker import DockerDriver, open_docker_driver
from hostler.drivers.process import open_process_driver
from hostler.metrics import AgentMetrics
from hostler.models import Call

from ._measure import Metrics, RunFailed
from ._target import image_for

LIMIT = 600.0
"""Seconds that such a process may take, if nothing else is said."""
MIB = 2**20


@attrs.frozen
class Embedded:
    """An agent, its driver, and calls for them."""

    agent: Agent
    driver: Driver
    image: str
    iofs: Path

    def call(self, function: str, body: bytes = b"", **fields: Any) -> PendingCall:
        """A call of ``function``, which has containers of its own."""
        values: dict[str, Any] = {
            "id": function,
            "image": self.image,
            "app_id": "bench",
            "fn_id": function,
            "type": "sync",
            "timeout": 30,
            "idle_timeout": 60,
            "memory": 32,
            "method": "POST",
            "url": "http://localhost/",
        }
        return self.agent.get_call(
            options.from_model(Call(**(values | fields)), BytesBody(body)),
        )


async def _until_ready(driver: DockerDriver) -> None:
    """Until its pool of network name spaces is full: its own start is not to be measured."""
    while (now := driver.statistics().prefork).free < now.size:  # noqa: ASYNC110  (nothing tells)
        await trio.sleep(0.01)


@asynccontextmanager
async def open_embedded(
    driver_name: str, memory: int, *, metrics: AgentMetrics | None = None, **settings: Any
) -> AsyncIterator[Embedded]:
    """An agent with ``memory`` MB for containers. ``settings`` are fields of its `AgentConfig`."""
    image = image_for(driver_name)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench.")))
        os.chmod(folder, 0o755)
        config = AgentConfig(iofs_path=str(folder), container_label_tag=label(), **settings)
        driver: Driver
        if driver_name == "docker":
            docker_driver = await stack.enter_async_context(open_docker_driver(config))
            await _until_ready(docker_driver)
            driver = docker_driver
        else:
            driver = await stack.enter_async_context(open_process_driver())
        agent = await stack.enter_async_context(
            open_agent(driver, config=config, total=Resources(memory * MIB, 0), metrics=metrics)
        )
        yield Embedded(agent, driver, image, folder)


def label() -> str:
    """The tag of this process's containers."""
    return f"bench-{os.getpid()}"


def without_logs() -> None:
    """Drop all log lines: printing them would be measured too."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def run_module(name: str, plan: msgspec.Struct, limit: float = LIMIT) -> Metrics:
    """Run ``python -m benchmarks.NAME`` with ``plan`` on its standard input; it prints metrics.

    Raises `RunFailed` if it fails; ``limit`` is in seconds.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.{name}"],
        input=msgspec.json.encode(plan),
        stdout=subprocess.PIPE,
        timeout=limit,
        check=False,
    )
    if done.returncode:
        raise RunFailed(f"benchmarks.{name} ended with code {done.returncode}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Metrics)
