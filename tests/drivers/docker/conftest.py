"""An engine's driver for tests, which must leave neither containers nor threads behind."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import attrs
import docker
import pytest
import trio
import trio.testing

from hostler.abc import ContainerTask, RunResult
from hostler.config import AgentConfig
from hostler.drivers.docker import DockerDriver, open_docker_driver

from ...functions.build import docker_image
from .fake_engine import FakeEngine, open_fake_engine

WAIT = 60
"""Seconds: the limit of anything that a test waits for."""


@pytest.fixture(scope="session")
def engine(docker_host: str) -> Iterator[docker.APIClient]:
    """The test's own view of the real engine."""
    client = docker.APIClient(base_url=docker_host, version="auto")
    yield client
    client.close()


@pytest.fixture(scope="session")
def fnt(docker_host: str) -> str:
    return docker_image(docker_host)


@pytest.fixture(scope="session")
def fnt_with_volume(docker_host: str) -> str:
    return docker_image(docker_host, "hostler-test/fnt:volume", ["VOLUME /data"])


@pytest.fixture
def tag() -> str:
    """A label tag of this test only."""
    return f"hostler-test-{uuid.uuid4().hex}"


def containers(engine: docker.APIClient, tag: str) -> list[dict[str, Any]]:
    label = f"fn-agent-classifier={tag}"
    found: list[dict[str, Any]] = engine.containers(all=True, filters={"label": label})
    return found


@attrs.define
class Bench:
    """A driver on the real engine, and what tests do with it."""

    driver: DockerDriver
    engine: docker.APIClient
    tag: str
    image: str
    folder: Path

    def task(self, start: str = "", **fields: Any) -> ContainerTask:
        """A task of the test function; ``start`` is its FNT_START."""
        name = f"{self.tag}-{uuid.uuid4().hex[:8]}"
        iofs = Path(tempfile.mkdtemp(dir=self.folder))
        iofs.chmod(0o777)
        env = {
            "FN_FORMAT": "http-stream",
            "FN_LISTENER": "unix:/tmp/iofs/lsnr.sock",
            "FNT_START": start,
        }
        defaults: dict[str, Any] = {
            "image": self.image,
            "env": env,
            "iofs_agent_path": str(iofs),
            "iofs_docker_path": str(iofs),
        }
        return ContainerTask(id=name, **{**defaults, **fields})

    async def run_to_end(self, task: ContainerTask) -> RunResult:
        """Run a task that ends by itself, and remove it."""
        cookie = await self.driver.create_cookie(task)
        try:
            with trio.fail_after(WAIT):
                assert await cookie.validate_image() is False
                await cookie.create_container()
                return await (await cookie.run()).wait()
        finally:
            await cookie.aclose()

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.engine.inspect_container(name)
        return found

    def containers(self) -> list[dict[str, Any]]:
        return containers(self.engine, self.tag)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that a container's user can reach, with a path short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="fn") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
async def bench(
    docker_host: str, engine: docker.APIClient, fnt: str, tag: str, open_folder: Path
) -> AsyncIterator[Bench]:
    """A driver; at the end nothing of it may be left."""
    config = AgentConfig(container_label_tag=tag, experimental_prefork_pool_size=0)
    async with open_docker_driver(config, environ={"DOCKER_HOST": docker_host}) as driver:
        bench = Bench(driver, engine, tag, fnt, open_folder)
        yield bench
        left = bench.containers()
        for container in left:
            engine.remove_container(container["Id"], force=True)
        assert left == []
        statistics = driver.statistics()
        assert (statistics.containers, statistics.watched) == (0, 0)
        with trio.fail_after(WAIT):
            while driver.statistics().threads > 1:  # the one that follows events
                await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[tuple[FakeEngine, dict[str, str]]]:
    """A fake engine and the environment that leads to it."""
    async with open_fake_engine(tmp_path) as pair:
        yield pair


@pytest.fixture
async def fake_engine(fake: tuple[FakeEngine, dict[str, str]]) -> FakeEngine:
    return fake[0]


@pytest.fixture
async def fake_environ(fake: tuple[FakeEngine, dict[str, str]]) -> dict[str, str]:
    return fake[1]
