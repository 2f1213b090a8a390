"""What a function can do with the directory of its socket, with a real engine."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from hostler.abc import ContainerTask, Cookie, Driver
from tests.conftest import Logs

from .machine import Machine, do

pytestmark = pytest.mark.docker


def mounts_below(folder: Path) -> list[list[str]]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [fields for line in lines if (fields := line.split())[4].startswith(f"{folder}/")]


def write(folder: Path, *, files: int, size: int) -> None:
    for number in range(files):
        (folder / str(number)).write_bytes(bytes(size))


async def test_what_a_function_writes_beside_its_socket_is_bounded_and_not_executed(
    machine: Machine,
) -> None:
    async with machine.open() as node:
        assert (await do(node, machine)).status == 200
        (name,) = os.listdir(machine.iofs)
        (mount,) = mounts_below(machine.iofs)
        assert {"nosuid", "nodev", "noexec"} <= set(mount[5].split(","))
        with pytest.raises(OSError, match="No space left"):
            write(machine.iofs / name, files=1, size=2**20)
        with pytest.raises(OSError, match="No space left"):
            write(machine.iofs / name, files=100, size=0)
    assert mounts_below(machine.iofs) == []


@attrs.define
class Blind(Driver):
    """Of an engine that does not see what is mounted here."""

    inner: Driver

    async def create_cookie(self, task: ContainerTask) -> Cookie:
        return await self.inner.create_cookie(task)

    async def sees_directory(self, path: str) -> bool | None:
        return await self.inner.sees_directory(f"{path}.none")


async def test_where_the_engine_does_not_see_it_functions_run_and_the_log_warns(
    machine: Machine, logs: Logs
) -> None:
    async with machine.open(Blind) as node:
        assert (await do(node, machine)).status == 200
        assert mounts_below(machine.iofs) == []
    (line,) = logs.with_event("functions can fill the disk through their socket directories")
    assert line["log_level"] == "warning"
