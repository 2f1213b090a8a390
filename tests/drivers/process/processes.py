"""The process driver for tests, its containers, and processes as the kernel shows them."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from hostler.abc import ContainerTask
from hostler.drivers.process import (
    ProcessConfig,
    ProcessContainer,
    ProcessCookie,
    ProcessDriver,
    open_process_driver,
)
from hostler.testing import ReadyWatch, call_function
from tests.functions.build import fnt_path


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[ProcessDriver]:
    """A driver with the image ``fnt``, a time limit, and a check that nothing is left."""
    gc.collect()  # what earlier tests have dropped may not be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    with trio.fail_after(60):
        config = ProcessConfig(**settings)
        async with open_process_driver(config, images={"fnt": [str(fnt_path())]}) as driver:
            yield driver
            assert driver.statistics().cookies == 0
            assert driver.statistics().containers == 0
            pid = driver.warden.pid
        assert state_of(pid) == ""
    assert len(os.listdir("/proc/self/fd")) == before


def make_task(folder: Path, name: str = "c1", image: str = "fnt", **more: Any) -> ContainerTask:
    iofs = folder / name
    iofs.mkdir()
    return ContainerTask(id=name, image=image, iofs_agent_path=str(iofs), **more)


async def created(driver: ProcessDriver, task: ContainerTask) -> ProcessCookie:
    cookie = await driver.create_cookie(task)
    assert not await cookie.validate_image()
    await cookie.create_container()
    return cookie


async def started(
    driver: ProcessDriver, task: ContainerTask
) -> tuple[ProcessCookie, ProcessContainer, str]:
    cookie = await created(driver, task)
    with ReadyWatch(task.iofs_agent_path) as watch:
        container = await cookie.run()
        assert isinstance(container, ProcessContainer)
        return cookie, container, await watch.ready()


async def ask(path: str, do: str, body: bytes = b"") -> bytes:
    return (await call_function(path, body, [("Fnt-Do", do)])).body


def state_of(pid: int) -> str:
    """The kernel's letter for the state of a process, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def status_field(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(name + ":"))


def children_of(pid: int) -> list[int]:
    """The child processes of all threads of ``pid``, zombies too. (A child moves to another
    thread when its own ends, so it may be seen twice.)"""
    found = set()
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(child) for child in file.read_text().split()}
    return sorted(found)


def is_warden(pid: int) -> bool:
    """Other children are short-lived: ctypes asks ldconfig for a library."""
    with contextlib.suppress(OSError):
        return b"warden.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def processes_with(text: str) -> list[int]:
    """Processes with ``text`` in their environment."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if text.encode() in Path("/proc", entry, "environ").read_bytes():
                found.append(int(entry))
    return found


async def pid_end(pid: int) -> None:
    """Wait until the process has ended, whoever its parent is."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
