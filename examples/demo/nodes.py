"""Starting, watching and stopping hostler's own processes for the demo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

HOSTLER = Path(sys.executable).with_name("hostler")
PROVIDER = Path(__file__).resolve().parent.parent / "custom_driver"
START_SECONDS = 30
STOP_SECONDS = 20


class NodeFailed(Exception):
    """A node did not start."""


@attrs.define(eq=False)
class Node:
    """One process of hostler. ``logs`` grows with each line that it logs."""

    name: str
    process: trio.Process
    addresses: dict[str, Any]
    logs: list[dict[str, Any]] = attrs.Factory(list)
    _news: trio.Event = attrs.Factory(trio.Event)

    async def wait_log(self, event: str, **details: object) -> dict[str, Any]:
        """The first log line with this event and these details."""
        while True:
            for line in self.logs:
                if line["event"] == event and details.items() <= line.items():
                    return line
            await self._news.wait()

    async def read_logs(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + bytes(chunk)).split(b"\n")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            self.logs.append(json.loads(line))
        except ValueError:
            print(f"   {self.name}: {line.decode(errors='replace')}")
        self._news.set()
        self._news = trio.Event()


@asynccontextmanager
async def running(
    name: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> AsyncIterator[Node]:
    """Start a node, and wait until it is ready. SIGTERM drains it in the end.

    Raises `NodeFailed` if it does not start. Lines that are not JSON are printed.
    """
    receive, send = os.pipe()
    command = [str(HOSTLER), *arguments, "--ready-fd", str(send), "--log-format", "json"]
    process = await trio.lowlevel.open_process(
        command,
        stderr=subprocess.PIPE,
        pass_fds=[send],
        env={**os.environ, "PYTHONPATH": str(PROVIDER), **environment},
    )
    os.close(send)
    node = Node(name, process, {})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.read_logs)
        try:
            with trio.fail_after(START_SECONDS):
                async with trio.lowlevel.FdStream(receive) as stream:
                    ready = b"".join([bytes(chunk) async for chunk in stream])
            if not ready:
                await process.wait()
                raise NodeFailed(f"{name} did not start (exit code {process.returncode})")
            node.addresses = json.loads(ready)
            yield node
        finally:
            with trio.CancelScope(shield=True):
                await _stop(process)


async def _stop(process: trio.Process) -> None:
    process.send_signal(signal.SIGTERM)
    with trio.move_on_after(STOP_SECONDS):
        await process.wait()
        return
    process.kill()
    await process.wait()
