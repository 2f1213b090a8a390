"""The temporary file of one body. All of this blocks: it is for worker threads."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO

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
