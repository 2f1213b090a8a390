"""``hostler runner --workers`` on a real engine: what a worker that was killed leaves there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import trio

from tests.functions.build import docker_image
from tests.support.folders import short_folder

from ...cli._process import END_SECONDS, ends, open_node
from .fleet import LOCAL, SPREAD, Fleet, until_gone

pytestmark = pytest.mark.docker
IMAGE = "hostler-test/runner-workers:1"
"""Of this test only, so that the containers of it are ours."""


@pytest.fixture
def engine(docker_host: str) -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=docker_host, version="auto")
    yield client
    client.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Functions run as another user, who has to get through."""
    with short_folder() as path:
        path.chmod(0o755)
        yield path


class Left:
    """What the runner has on the machine beside its processes."""

    def __init__(self, engine: docker.APIClient, iofs: Path) -> None:
        self._engine, self._iofs = engine, iofs

    def containers(self) -> set[str]:
        found = self._engine.containers(all=True, filters={"ancestor": IMAGE})
        return {container["Id"] for container in found}

    def directories(self) -> set[str]:
        return set(os.listdir(self._iofs))


async def test_a_killed_worker_leaves_nothing_and_calls_go_on(
    engine: docker.APIClient, docker_host: str, folder: Path
) -> None:
    docker_image(engine, IMAGE)
    archive = folder / "images.tar"
    archive.write_bytes(b"".join(engine.get_image(IMAGE)))
    functions, iofs = folder / "functions.yaml", folder / "iofs"
    fields = f"{{name: f, image: '{IMAGE}', memory: 64, idle_timeout: 3600}}"
    functions.write_text(f"apps: [{{name: a, fns: [{fields}]}}]")
    iofs.mkdir(mode=0o755)
    left = Left(engine, iofs)
    # Without a label tag: workers have one of their own.
    env = {"DOCKER_HOST": docker_host, "FN_IOFS_PATH": str(iofs)}
    env["FN_DOCKER_LOAD_FILE"] = str(archive)
    command = ("runner", "--driver", "docker", *LOCAL, "--workers", "2")
    async with open_node(*command, env=env) as runner:
        lb = ("lb", "--runners", runner.ready["runners"], "--functions", str(functions))
        async with open_node(*lb, *LOCAL, *SPREAD) as node:
            fleet = Fleet(runner, node, functions)
            ours: set[str] = set()
            with trio.fail_after(END_SECONDS):
                while len(ours) < 2:
                    assert (await fleet.call()).status_code == 200
                    ours = instances(engine, left)
            killed = runner.ready["workers"][1]
            before = left.containers()
            os.kill(killed, signal.SIGKILL)
            with trio.fail_after(END_SECONDS):
                await runner.wait_line("worker has ended")
                for _ in range(20):
                    assert (await fleet.call()).status_code == 200
                await runner.wait_line("leaked container removed")
                await runner.wait_line("worker is back")
            # The other one's are there still, and used. (The engine lists what it removes for a
            # moment longer.)
            with trio.fail_after(END_SECONDS):
                while len(before & left.containers()) == len(before):  # noqa: ASYNC110
                    await trio.sleep(0.01)
            assert len(before & left.containers()) == len(before) - 1
            after: set[str] = set()
            with trio.fail_after(END_SECONDS):
                while len(after) < 2:
                    assert (await fleet.call()).status_code == 200
                    after = instances(engine, left)
            assert len(ours & after) == 1
            assert await ends(runner) == 0
        assert (left.containers(), left.directories()) == (set(), set())
    await until_gone(runner.ready["workers"])
    events = [line["event"] for line in runner.lines()]
    assert events.count("images loaded") == 1
    assert "another runner with our label tag is running" not in events


def instances(engine: docker.APIClient, left: Left) -> set[str]:
    """Of the workers that have a container; all containers have one tag."""
    labels = [engine.inspect_container(id_)["Config"]["Labels"] for id_ in left.containers()]
    assert len({label["fn-agent-classifier"] for label in labels}) == 1
    return {label["fn-agent-instance"] for label in labels}
