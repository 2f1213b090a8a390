"""Reading and writing of a plaintext connection by Trio tasks.

trio-asyncio takes three turns of the scheduler and a cancel scope for each read, and one of each
for a callback that is to be called soon. Here a read takes one turn, and so does what is called
soon. Waiting writes, timers and the end stay asyncio's: these tasks only stand in for its reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import trio

from .buffers import Buffer, split
from .loop import Loop

READ_BYTES = 256 * 1024
"""Of one read, at most; asyncio's number."""


class TransportOwner(Protocol):
    """Whose bytes a `TrioTransport` reads and writes. Nothing here may raise."""

    turns: trio.Lock

    def data_received(self, data: bytes) -> None:
        """Take what was read."""

    def read_on(self) -> bool:
        """Go on with what was read; whether there is more. Called once in each turn of the
        scheduler in which the owner has ``turns``, for as long as there is more."""

    def read_failed(self, error: OSError) -> None:
        """Reading has ended with ``error``."""

    def run(self, callback: Callable[[], None]) -> None:
        """Call what is due."""


class TrioTransport:
    """Of one connection. Its tasks belong to ``loop``, as ``transport`` does, and end with the
    connection (`stop`) or the loop."""

    def __init__(self, owner: TransportOwner, loop: Loop, transport: asyncio.Transport) -> None:
        self._owner = owner
        self._loop = loop
        self._transport = transport
        self._fd: int = transport.get_extra_info("socket").fileno()
        self._reads = True
        self._due: deque[Callable[[], None]] = deque()
        self._caller: trio.lowlevel.Task | None = None
        """The task that calls what is due, while it has nothing to do."""
        self._calls = True
        """Not any more once that task has ended."""
        self._tasks: list[asyncio.Future[None]] = []
        # Only once asyncio has begun to read: that of Python 3.11.2 begins after
        # `connection_made` even if it was told there to pause.
        loop.call_soon(self._start)

    def _start(self) -> None:
        if self._transport.is_closing():
            self._stop_calls()
            return
        self._transport.pause_reading()
        start: Any = self._loop  # trio-asyncio's, which has no annotations
        self._tasks = [start.trio_as_future(task) for task in (self._read, self._call)]

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called after what is due now. Synchronous."""
        if not self._calls:
            self._loop.call_soon(self._owner.run, callback)
            return
        self._due.append(callback)
        if self._caller is not None:
            caller, self._caller = self._caller, None
            trio.lowlevel.reschedule(caller)

    def write(self, parts: list[Buffer]) -> None:
        """Write ``parts`` in order. Synchronous. The transport would join several: it gets what the
        socket does not take at once, and what has gone wrong."""
        if len(parts) > 1 and not self._transport.get_write_buffer_size():
            with contextlib.suppress(OSError):
                parts = split(parts, os.writev(self._fd, parts))[1]
        if parts:
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def stop_reading(self) -> None:
        """Take nothing more of what comes. Synchronous, idempotent."""
        self._reads = False

    def stop(self) -> None:
        """The connection is lost; its socket is closed next."""
        trio.lowlevel.notify_closing(self._fd)
        for task in self._tasks:
            task.cancel()

    async def _read(self) -> None:
        try:
            while self._reads:
                # (At first in what asyncio has read before this task began.)
                while self._owner.read_on():
                    async with self._owner.turns:
                        pass
                await trio.lowlevel.wait_readable(self._fd)
                if self._transport.is_closing() or not self._reads:
                    return
                try:
                    data = os.read(self._fd, READ_BYTES)
                except BlockingIOError:
                    continue
                if not data:
                    self._transport.close()
                    return
                self._owner.data_received(data)
        except trio.ClosedResourceError:
            pass
        except OSError as error:
            self._owner.read_failed(error)

    async def _call(self) -> None:
        try:
            while True:
                for _ in range(len(self._due)):  # (what is due after them has its own turn)
                    self._owner.run(self._due.popleft())
                if not self._due:
                    self._caller = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._stop_calling)
                # What others have to say a turn later goes along: a turn costs less than a write.
                await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            # A program that is cancelled has still something to say.
            self._stop_calls()

    def _stop_calls(self) -> None:
        self._calls = False
        while self._due:
            self._loop.call_soon(self._owner.run, self._due.popleft())

    def _stop_calling(self, _: object) -> trio.lowlevel.Abort:
        self._caller = None
        return trio.lowlevel.Abort.SUCCEEDED
