"""Spill files of bodies, written by threads that a hung disk can't exhaust."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import IO, Generic, Literal, TypeVar, TypeVarTuple

import attrs
import trio

VECTORS = 512
"""Pieces that one system call writes; Linux takes 1024 (IOV_MAX)."""


class SpillFile:
    """A file without a name: whatever becomes of the process, nothing is left of it.

    Any thread may use it, and close it while others do: the last of them closes it then, since a
    number that is free again may already be that of another's file.
    """

    def __init__(self, directory: str) -> None:
        """In ``directory``, "" = the system's for temporary files. Made with the first `write`."""
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False

    def write(self, parts: Iterable[bytes], offset: int) -> None:
        """Write ``parts``, none of them empty, one after the other. Raises `OSError`."""
        rest = deque(memoryview(part) for part in parts)
        with self._used() as number:
            while rest:
                written = os.pwritev(number, list(islice(rest, VECTORS)), offset)
                offset += written
                while written and written >= len(rest[0]):
                    written -= len(rest.popleft())
                if written:
                    rest[0] = rest[0][written:]

    def read(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes at ``offset``, never none. Raises `OSError`."""
        with self._used() as number:
            data = os.pread(number, size, offset)
        if not data:  # it must not look like the end of the body
            raise OSError(errno.EIO, "the file of a body is shorter than it was")
        return data

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._closed = True
            last = not self._users
        if last:
            self._end()

    @contextlib.contextmanager
    def _used(self) -> Iterator[int]:
        """Its number, which is that of this file as long as the block runs."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the file of a body was closed")
            self._users += 1
        try:
            if self._file is None:  # one task writes at a time
                self._file = tempfile.TemporaryFile(  # noqa: SIM115
                    buffering=0, dir=self._directory or None
                )
            yield self._file.fileno()
        finally:
            with self._lock:
                self._users -= 1
                last = self._closed and not self._users
            if last:
                self._end()

    def _end(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # a write that failed late: nobody wants it any more
                file.close()


THREADS = 4
"""Worker threads for reading and writing files of bodies. A disk is not faster with more."""

DISK_SECONDS = 5.0
"""Within which a disk must have done one piece of work, and those before it; a megabyte takes a
hundredth of that. Without the wait for the others it would be no bound for who has to wait, as a
client, or a node that drains."""

_T = TypeVar("_T")

_Ts = TypeVarTuple("_Ts")


class DiskHangs(OSError):
    """The disk has not done its work in time; ``begun``: it has at least begun with it."""

    def __init__(self, *, begun: bool = True) -> None:
        what = "does not answer within" if begun else "is behind with its work by"
        super().__init__(f"the disk {what} {DISK_SECONDS:g} s")


class Disk:
    """Belongs to the event loop's thread; may be made outside of it."""

    def __init__(self) -> None:
        self._limiter: trio.CapacityLimiter | None = None
        self._left = _Left()

    @property
    def hangs(self) -> bool:
        """Whether a thread is still at a work that was given up. Until it ends no other is worth
        a thread."""
        return self._left.threads > 0

    async def run(self, work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        """Run blocking ``work`` and return its result, or raise its error.

        Cancelled before it began, never while it runs; within `DISK_SECONDS` it has an end, which
        is `DiskHangs` if ``work`` has none. That may then still go on, in its thread.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.hangs:
            raise DiskHangs
        if self._limiter is None:
            self._limiter = trio.CapacityLimiter(THREADS)
        job = _Job(work, args, self._left)
        deadline = trio.current_time() + DISK_SECONDS
        # Shielded, or a cancelled task would not know what is in the file; bounded by the deadline.
        with trio.CancelScope(shield=True, deadline=deadline):
            return await trio.to_thread.run_sync(
                job.run, limiter=self._limiter, abandon_on_cancel=True
            )
        raise DiskHangs(begun=job.leave())

    async def close(self, file: SpillFile) -> None:
        """Close ``file``, now or when the disk works again. Never cancelled; takes twice as long
        as `run` at most."""
        with trio.CancelScope(shield=True), contextlib.suppress(DiskHangs):
            try:
                await self.run(file.close)
            except DiskHangs:
                # The thread that hangs will see to it when it is back, if there still is one.
                self._left.files.append(file)
                if not self.hangs:
                    await self.run(self._left.close_files)


@attrs.define(eq=False)
class _Left:
    """What a disk that hangs has left to do; for all threads."""

    threads: int = 0
    files: deque[SpillFile] = attrs.Factory(deque)
    """To be closed by the next thread that comes back."""
    lock: threading.Lock = attrs.Factory(threading.Lock)

    def close_files(self) -> None:
        while self.files:
            try:
                file = self.files.popleft()
            except IndexError:  # another thread was quicker
                return
            file.close()


class _Job(Generic[_T]):
    """One work, which may be left to its thread."""

    def __init__(self, work: Callable[[*_Ts], _T], args: tuple[*_Ts], left: _Left) -> None:
        self._work = work
        self._args = args
        self._all = left
        self._state: Literal["waits", "runs", "ended"] = "waits"
        self._is_left = False

    def run(self) -> _T:
        with self._all.lock:
            if self._is_left:
                raise DiskHangs
            self._state = "runs"
        try:
            return self._work(*self._args)
        finally:
            with self._all.lock:
                self._state = "ended"
                self._all.threads -= self._is_left
            self._all.close_files()

    def leave(self) -> bool:
        """Nobody waits for it any more. Whether it has begun."""
        with self._all.lock:
            if self._state == "runs":
                self._all.threads += 1
            self._is_left = self._state != "ended"
            return self._state != "waits"
