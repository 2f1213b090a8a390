"""What somebody else does to an engine's containers, images and disk while an agent uses them."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from hostler.agent import ContainerState
from hostler.bodies import BytesBody
from hostler.errors import APIError, ImagePullFailed, ServerBusy
from tests.agent.machine import Machine, do, open_machine, pid, until_state

from ...conftest import Logs
from ...functions.build import docker_image

pytestmark = pytest.mark.docker

NEVER = 1e9
"""Milliseconds."""


@pytest.fixture
def machine(docker_host: str, fnt: str) -> Iterator[Machine]:
    with open_machine(docker_host, fnt) as machine:
        yield machine


async def remove_all(machine: Machine) -> None:
    """As ``docker rm --force`` does."""
    for container in machine.containers():
        await trio.to_thread.run_sync(
            lambda name: machine.engine.remove_container(name, force=True), container["Id"]
        )


@pytest.mark.parametrize(
    ("delay", "state"), [(NEVER, ContainerState.IDLE), (1, ContainerState.PAUSED)]
)
async def test_a_call_is_served_after_its_resting_container_was_removed(
    machine: Machine, delay: float, state: ContainerState
) -> None:
    async with machine.open(freeze_idle_msecs=delay) as node:
        first = await pid(node, machine)
        await until_state(node, {state: 1})
        await remove_all(machine)
        assert (await do(node, machine, body=BytesBody(b"x"))).body == b"x"
        assert await pid(node, machine) != first
        assert node.agent.statistics().errors == 0


async def test_only_the_call_in_a_removed_container_fails(machine: Machine) -> None:
    async def fail() -> None:
        with pytest.raises(APIError, match="was killed by signal 9") as caught:
            await do(node, machine, "sleep=60000")
        assert caught.value.code == 502

    async with machine.open() as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await until_state(node, {ContainerState.BUSY: 1})
            await remove_all(machine)
        assert (await do(node, machine, body=BytesBody(b"x"))).body == b"x"


async def test_hot_containers_outlive_their_image(machine: Machine, docker_host: str) -> None:
    """Calls that need another container fail as if there had never been an image."""
    machine.image = f"127.0.0.1:1/{uuid.uuid4().hex}:gone"

    async def build() -> None:
        await trio.to_thread.run_sync(docker_image, docker_host, machine.image)

    async def remove() -> None:
        await trio.to_thread.run_sync(
            lambda: machine.engine.remove_image(machine.image, force=True)
        )

    async with machine.open() as node:
        await build()
        first = await pid(node, machine)
        await remove()
        with pytest.raises(ImagePullFailed, match="connection refused"):
            await pid(node, machine, fn_id="other")
        assert await pid(node, machine) == first
        await build()
        assert await pid(node, machine, fn_id="other") != first
        await remove()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 32 files at ``folder``."""
    options = "size=1m,nr_inodes=32,mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_no_room_for_another_socket_directory(machine: Machine, logs: Logs) -> None:
    with small_disk(machine.iofs):
        async with machine.open() as node:
            first = await pid(node, machine)
            others = machine.iofs / "others"
            others.mkdir()
            with suppress(OSError):
                for number in range(32):
                    (others / str(number)).touch()
            with pytest.raises(ServerBusy):  # another runner may have room
                await pid(node, machine, fn_id="other")
            assert await pid(node, machine) == first
            shutil.rmtree(others)
            assert await pid(node, machine, fn_id="other") != first
    (line,) = logs.with_event("no room for a container")
    assert "no socket directory can be made" in line["reason"]
    assert "No space left on device" in line["reason"]
