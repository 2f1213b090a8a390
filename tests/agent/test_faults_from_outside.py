"""Faults that others cause while no call is there: real processes and sockets."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.drivers.process import open_process_driver
from hostler.errors import CallTimeout
from tests.conftest import Logs
from tests.functions.build import fnt_path

from .nodes import Node, open_node


@asynccontextmanager
async def open_real(iofs: Path, **config: Any) -> AsyncIterator[Node]:
    async with (
        open_process_driver(images={"fnt": [str(fnt_path())]}) as driver,
        open_node(driver, iofs, **config) as node,
    ):
        yield node


def signal_function(node: Node, number: signal.Signals) -> None:
    """To all processes of the only container: a driver may have one of its own around it."""
    (directory,) = node.iofs.iterdir()
    found = 0
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            if str(directory) in Path("/proc", pid, "environ").read_text():
                os.kill(int(pid), number)
                found += 1
    assert found


async def test_a_function_that_is_stopped_while_it_idles_costs_one_call(tmp_path: Path) -> None:
    """SIGSTOP leaves socket and process; only the call's time tells."""
    async with open_real(tmp_path) as node:
        await node.run("fnt", timeout=1)
        signal_function(node, signal.SIGSTOP)
        with pytest.raises(CallTimeout):
            await node.run("fnt", timeout=1)
        await node.run("fnt", timeout=1)
        assert node.agent.statistics().launches == 2


async def test_a_socket_directory_that_a_cleaner_removes_is_missed_by_nobody(
    tmp_path: Path, logs: Logs
) -> None:
    async with open_real(tmp_path) as node:
        await node.run("fnt")
        for name in os.listdir(tmp_path):
            shutil.rmtree(tmp_path / name)
        await node.run("fnt")
        assert node.agent.statistics().launches == 1
    assert logs.errors() == []


async def test_without_descriptors_a_killed_container_is_removed(tmp_path: Path) -> None:
    """Whatever descriptor is given back meanwhile, somebody else takes."""
    async with open_real(tmp_path) as node:
        await node.run("fnt")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken: list[int] = []
        most = max(map(int, os.listdir("/proc/self/fd")))
        signal_function(node, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        try:
            with trio.fail_after(10):
                while not node.agent.statistics().at_rest:
                    with suppress(OSError):
                        taken.append(os.dup(0))
                    await trio.lowlevel.checkpoint()
        finally:
            for number in taken:
                os.close(number)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert taken
        assert not os.listdir(tmp_path)
        await node.run("fnt")
