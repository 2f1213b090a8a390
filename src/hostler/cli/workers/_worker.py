"""One worker process, as its supervisor sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import msgspec
import structlog
import trio

from hostler.errors import HostlerError

from .._life import AT_ONCE
from ._crew import Crew, Told
from ._place import VARIABLE, Place

log = structlog.get_logger(__name__)


class WorkerEnded(HostlerError):
    """A worker has ended before it was ready, or badly."""


@attrs.define(eq=False)
class Worker:
    """A process that `open_worker` has started."""

    number: int
    process: trio.Process
    _ready: int
    _orders: int
    _abort_seconds: float

    async def wait_ready(self) -> Told:
        """What it tells then. Raises `WorkerEnded`."""
        told = b""
        async with trio.lowlevel.FdStream(os.dup(self._ready)) as stream:
            while not told.endswith(b"\n"):
                if not (data := await stream.receive_some()):
                    code = await self.process.wait()
                    raise WorkerEnded(f"a worker has ended before it was ready, exit code {code}")
                told += data
        return msgspec.json.decode(told, type=dict[str, Any])

    def order(self, what: bytes) -> None:
        """Pass on `DRAIN` or `AT_ONCE`. One that has ended is past all orders."""
        try:
            os.write(self._orders, what)
        except BrokenPipeError:
            log.debug("worker has gone already", number=self.number)

    async def end(self) -> None:
        """End it at once, and by force if that takes it too long."""
        self.order(AT_ONCE)
        with trio.move_on_after(self._abort_seconds):
            await self.process.wait()
        if self.process.returncode is None:
            log.warning("worker is killed", number=self.number)
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def open_worker(
    number: int, count: int, listeners: tuple[int, ...], folder: str, crew: Crew
) -> AsyncIterator[Worker]:
    """Start this very command once more, as worker ``number``. Ended with the block, if it still
    runs then: at once, for it is to be told to drain before."""
    ready, tell_ready = os.pipe()
    orders, give_orders = os.pipe()
    place = Place(
        number=number,
        count=count,
        listeners=listeners,
        ready=tell_ready,
        orders=orders,
        folder=folder,
        part=crew.part(number),
    )
    try:
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, *sys.orig_argv[1:]],
                stdin=subprocess.DEVNULL,
                env={**os.environ, VARIABLE: place.text()},
                pass_fds=(*listeners, tell_ready, orders),
                start_new_session=True,  # or a terminal would signal it too
            )
        finally:
            os.close(tell_ready)
            os.close(orders)
        worker = Worker(number, process, ready, give_orders, crew.abort_seconds)
        try:
            yield worker
        finally:
            if process.returncode is None:
                with trio.CancelScope(shield=True):
                    await worker.end()
    finally:
        os.close(ready)
        os.close(give_orders)
