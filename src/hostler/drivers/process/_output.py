"""Hands a function's stdout and stderr to the task's callback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import trio

log = structlog.get_logger(__name__)

_READ_SIZE = 65536
_LAST_WORDS = 1.0
"""Seconds for reading what a killed function has left in its pipes. They end by themselves,
unless a process that has escaped (it has cleared its environment) still holds them."""


class Output:
    """Two pipes and the task that reads them, in ``nursery``. Raises ``OSError`` when made
    without free descriptors."""

    def __init__(self, nursery: trio.Nursery, sink: Callable[[bytes, bool], None]) -> None:
        self._sink: Callable[[bytes, bool], None] | None = sink
        self._scope = trio.CancelScope()
        self._over = trio.Event()
        out, out_writer = os.pipe2(os.O_CLOEXEC)
        try:
            err, err_writer = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(out)
            os.close(out_writer)
            raise
        self._writers = [out_writer, err_writer]
        nursery.start_soon(self._read_both, out, err)

    @contextmanager
    def write_ends(self) -> Iterator[list[int]]:
        """The ends for the function; they are closed afterwards."""
        try:
            yield self._writers
        finally:
            while self._writers:
                os.close(self._writers.pop())

    async def aclose(self) -> None:
        """Read what is left, for a moment, and close the pipes."""
        with trio.move_on_after(_LAST_WORDS):
            await self._over.wait()
        self._scope.cancel()
        await self._over.wait()

    async def _read_both(self, out: int, err: int) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, out, False)
                    nursery.start_soon(self._read, err, True)
        finally:
            self._over.set()

    async def _read(self, descriptor: int, is_stderr: bool) -> None:
        async with trio.lowlevel.FdStream(descriptor) as stream:
            while chunk := await stream.receive_some(_READ_SIZE):
                self._pass_on(bytes(chunk), is_stderr)

    def _pass_on(self, chunk: bytes, is_stderr: bool) -> None:
        """A callback that fails must not stop the function, which would wait for a reader."""
        if self._sink is None:
            return
        try:
            self._sink(chunk, is_stderr)
        except Exception:
            self._sink = None
            log.exception("output callback failed")
