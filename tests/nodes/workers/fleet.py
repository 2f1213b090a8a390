"""Nodes of several workers, and what their clients see."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import trio
from prometheus_client.parser import text_string_to_metric_families

from hostler.functions import load_functions
from hostler.nodes.workers import PeerWorkers, Place, open_peers
from tests.cli._process import END_SECONDS, NodeProcess
from tests.support.ids import fn_by_name

WORKERS = 2
LOCAL = ("--bind", "127.0.0.1:0")
SPREAD = ("--placer", "naive")
"""Takes the runners in turn."""


async def until_gone(pids: list[int]) -> None:
    """No worker outlives its supervisor; one that is a zombie of init's has ended."""
    with trio.fail_after(END_SECONDS):
        while any(map(is_there, pids)):  # noqa: ASYNC110  (nothing tells when another's child ends)
            await trio.sleep(0.01)


def is_there(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(") ")[2][0] != "Z"


class Fleet:
    """A runner of several workers, and a load balancer that was told what it has announced."""

    def __init__(self, runner: NodeProcess, lb: NodeProcess, functions: Path) -> None:
        self.runner, self.lb = runner, lb
        self._table = load_functions(functions)

    async def call(self, do: str = "", name: str = "f") -> httpx.Response:
        url = f"{self.lb.url}/invoke/{fn_by_name(self._table, 'a', name).id}"
        async with httpx.AsyncClient(timeout=60) as client:
            return await client.post(url, content=b"x", headers={"Fnt-Do": do} if do else {})

    async def samples(self, name: str) -> dict[str, float]:
        """Of a metric without other labels, by worker."""
        async with httpx.AsyncClient(timeout=60) as client:
            text = (await client.get(f"{self.runner.url}/metrics")).text
        return {
            sample.labels["worker"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    async def until_running(self, calls: int) -> None:
        with trio.fail_after(END_SECONDS):
            while sum((await self.samples("fn_running")).values()) < calls:  # noqa: ASYNC110  (metrics don't tell)
                await trio.sleep(0.01)

    async def pids_of_functions(self) -> dict[int, int]:
        """By the worker's, once each of them has one that is hot."""
        found: dict[int, int] = {}
        with trio.fail_after(END_SECONDS):
            while len(found) < WORKERS:
                pid = int((await self.call("pid")).text)
                found[parent(parent(pid))] = pid  # between them is the driver's warden
        return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def place_of(number: int, count: int, folder: str) -> Place:
    return Place(number=number, count=count, listeners=(), ready=-1, orders=-1, folder=folder)


@asynccontextmanager
async def open_all(count: int) -> AsyncIterator[list[PeerWorkers]]:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(open_peers(place_of(number, count, folder)))
                for number in range(count)
            ]
        assert os.listdir(folder) == []
