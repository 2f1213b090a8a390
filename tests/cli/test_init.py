"""A node as process 1, as it is in a container: here in a PID name space of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ._process import END_SECONDS, SCRIPT, clean_env

pytestmark = pytest.mark.netns


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(END_SECONDS):
        while not condition():  # noqa: ASYNC110  (nothing tells)
            await trio.sleep(0.005)


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a PID name space")


@asynccontextmanager
async def process_1(*args: str, cwd: Path) -> AsyncIterator[tuple[trio.Process, int]]:
    """``unshare``, which ends as its child does, and that child: process 1 of its name space."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", str(SCRIPT), *args]
    process = await trio.lowlevel.open_process(
        command, stderr=subprocess.PIPE, env=clean_env(), cwd=cwd
    )
    try:
        await until(lambda: children(process.pid))
        yield process, children(process.pid)[0]
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def node_1(folder: Path) -> AsyncIterator[tuple[trio.Process, int]]:
    args = ("serve", "--driver", "process", "--bind", "127.0.0.1:0", "--log-format", "json")
    async with process_1(*args, cwd=folder) as (process, init):
        log = b""
        assert process.stderr is not None
        with trio.fail_after(END_SECONDS):
            while b'"event":"ready"' not in log:
                data = await process.stderr.receive_some()
                assert data, log.decode()
                log += data
        yield process, init


async def test_orphans_are_reaped_and_a_signal_drains(tmp_path: Path) -> None:
    async with node_1(tmp_path) as (process, init):
        [node] = children(init)
        # A process of the name space leaves another one behind.
        enter = ["nsenter", "--target", str(init), "--pid", "--mount"]
        await trio.run_process([*enter, "sh", "-c", "sleep 1000 >/dev/null & exit 0"])
        await until(lambda: len(children(init)) > 1)  # it is process 1's now
        [orphan] = set(children(init)) - {node}
        os.kill(orphan, signal.SIGTERM)
        await until(lambda: children(init) == [node])  # and no zombie
        os.kill(init, signal.SIGTERM)
        with trio.fail_after(END_SECONDS):
            assert await process.wait() == 0


async def test_the_nodes_end_is_that_of_process_1(tmp_path: Path) -> None:
    async with node_1(tmp_path) as (process, init):
        os.kill(children(init)[0], signal.SIGKILL)
        with trio.fail_after(END_SECONDS):
            assert await process.wait() == 128 + signal.SIGKILL


async def test_the_exit_code_is_passed_on(tmp_path: Path) -> None:
    async with process_1("runner", "--bind", "nonsense:port", cwd=tmp_path) as (process, _):
        with trio.fail_after(END_SECONDS):
            assert await process.wait() == 1
