"""A runner that is killed with ``kill -9``, and the next one, which cleans up after it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import docker
import httpx
import pytest
import trio
import trio.testing

from hostler.config import AgentConfig
from hostler.drivers.docker import open_docker_driver
from hostler.drivers.docker.instance import is_living, living, neighbourhood
from hostler.functions import load_functions
from tests.cli._process import NodeProcess, open_node
from tests.support.ids import fn_by_name

from ...conftest import Logs
from .conftest import WAIT, containers
from .fake_engine import FakeEngine, value
from .leftovers import leave_container


@attrs.define
class Machine:
    """What several nodes on one machine share."""

    engine: docker.APIClient
    docker_host: str
    tag: str
    iofs: Path
    functions: Path

    def serve(self) -> AbstractAsyncContextManager[NodeProcess]:
        env = {
            "DOCKER_HOST": self.docker_host,
            "FN_CONTAINER_LABEL_TAG": self.tag,
            "FN_IOFS_PATH": str(self.iofs),
            "FN_DOCKER_NETWORKS": "none",
            "FN_EXPERIMENTAL_PREFORK_POOL_SIZE": "1",
        }
        arguments = ("--driver", "docker", "--functions", str(self.functions))
        return open_node("serve", *arguments, "--bind", "127.0.0.1:0", env=env)

    async def call(self, node: NodeProcess) -> None:
        """Run a function, whose container stays."""
        path = f"/invoke/{fn_by_name(load_functions(self.functions), 'app', 'fnt').id}"
        async with httpx.AsyncClient(base_url=node.url, timeout=WAIT) as client:
            answer = await client.post(path, content=b"hello")
        assert (answer.status_code, answer.content) == (200, b"hello"), node.log.decode()

    def left(self) -> tuple[set[str], set[str]]:
        """Containers and socket directories."""
        ids = {container["Id"] for container in containers(self.engine, self.tag)}
        return ids, set(os.listdir(self.iofs))


@pytest.fixture
def machine(
    engine: docker.APIClient, docker_host: str, fnt: str, tag: str, open_folder: Path
) -> Machine:
    iofs = open_folder / "iofs"
    iofs.mkdir(mode=0o755)
    functions = open_folder / "functions.yaml"
    fields = f"{{name: fnt, image: '{fnt}', idle_timeout: 3600}}"
    functions.write_text(f"apps:\n- name: app\n  fns:\n  - {fields}\n")
    return Machine(engine, docker_host, tag, iofs, functions)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(WAIT):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.02)


async def end(node: NodeProcess) -> None:
    node.process.terminate()
    with trio.fail_after(WAIT):
        assert await node.process.wait() == 0


@pytest.mark.docker
@pytest.mark.slow
async def test_a_killed_runner_is_cleaned_up_after_and_a_living_one_is_not_robbed(
    machine: Machine,
) -> None:
    """Each has one container for a function and one for a network name space."""
    async with machine.serve() as alive:
        await machine.call(alive)
        await until(lambda: len(machine.left()[0]) == 2)
        own = machine.left()
        async with machine.serve() as killed:
            await machine.call(killed)
            await until(lambda: [len(kind) for kind in machine.left()] == [4, 2])
            killed.process.kill()
            await killed.process.wait()
        assert [len(kind) for kind in machine.left()] == [4, 2]

        async with machine.serve() as after:
            await until(lambda: machine.left()[0] >= own[0] and len(machine.left()[0]) == 3)
            await after.wait_line("leaked container removed")
            await after.wait_line("another runner with our label tag is running")
            await end(after)
        await machine.call(alive)
        assert machine.left() == own
        await end(alive)
    assert machine.left() == (set(), set())


@pytest.mark.docker
@pytest.mark.parametrize("family", ["", "workers"])
async def test_name_spaces_of_dead_runners_are_removed_without_a_tag(
    engine: docker.APIClient,
    docker_host: str,
    fnt: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logs: Logs,
    family: str,
) -> None:
    """Nobody has asked for them. Those of the living stay, which need no tag of their own. A tag
    that workers have of their family is another one after they have all been killed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    config = AgentConfig(container_label_tag=family, prepared_networks=1)
    environ = {"DOCKER_HOST": docker_host}
    one, two = (f"{family}.one", f"{family}.two") if family else ("", "")
    name = neighbourhood()
    left = leave_container(engine, fnt, name, "dead")
    async with open_docker_driver(config, environ=environ, instance_id=one) as alive:
        await until(lambda: alive.statistics().prefork.free == alive.statistics().prefork.size)
        await until(lambda: left not in ids(engine, name))
        own = ids(engine, name)
        assert len(own) == alive.statistics().prefork.size
        left = leave_container(engine, fnt, name, "dead")
        # Also by one that has no name spaces itself.
        without = attrs.evolve(config, experimental_prefork_pool_size=0)
        async with open_docker_driver(without, environ=environ, instance_id=two) as other:
            await until(lambda: left not in ids(engine, name))
            assert ids(engine, name) == own
            assert other.statistics().prefork.size == 0
    assert ids(engine, name) == set()
    assert not logs.with_event("another runner")


def ids(engine: docker.APIClient, tag: str) -> set[str]:
    return {container["Id"] for container in containers(engine, tag)}


# --- the lock of an instance -----------------------------------------------------------------


def test_instances_live_as_long_as_somebody_holds_them() -> None:
    assert not is_living("one")
    with living("one"):
        assert is_living("one")
        assert not is_living("two")
        with living("one"):
            assert is_living("one")
        assert is_living("one")
    assert not is_living("one")


def test_a_neighbourhood_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    name = neighbourhood()
    assert name == neighbourhood()
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    assert neighbourhood() != name


async def test_where_no_locks_can_be_held_nobody_is_taken_for_dead(
    fake_engine: FakeEngine,
    fake_environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"hostler-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    fake_engine.on("GET /info", value({"DefaultRuntime": "runc", "Architecture": "x86_64"}))
    fake_engine.on("GET /images/.*", fake_engine.hang)
    async with open_docker_driver(AgentConfig(), environ=fake_environ) as driver:
        assert driver.statistics().prefork.size
        assert driver._shared.around.pool_labels() == {}
        fake_engine.release()


def test_a_folder_that_others_may_change_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"hostler-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with living("one"):
        assert not is_living("one")
    assert "only this user" in logs.with_event("can't lock the instance")[0]["error"]
    assert list(folder.iterdir()) == []


@pytest.mark.docker
async def test_the_containers_of_a_living_instance_stay(
    engine: docker.APIClient, docker_host: str, fnt: str, tag: str, logs: Logs
) -> None:
    theirs = leave_container(engine, fnt, tag, "alive")
    leave_container(engine, fnt, tag, "dead")
    config = AgentConfig(container_label_tag=tag, experimental_prefork_pool_size=0)
    try:
        with living("alive"):
            async with open_docker_driver(config, environ={"DOCKER_HOST": docker_host}):
                await until(lambda: len(containers(engine, tag)) == 1)
        assert [container["Id"] for container in containers(engine, tag)] == [theirs]
        assert logs.with_event("another runner with our label tag")
        async with open_docker_driver(config, environ={"DOCKER_HOST": docker_host}):
            await until(lambda: containers(engine, tag) == [])
    finally:
        for container in containers(engine, tag):
            engine.remove_container(container["Id"], force=True)
