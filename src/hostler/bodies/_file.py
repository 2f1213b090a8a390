"""The temporary file of one body. All of this blocks: it is for worker threads."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections import deque
from collections.abc import Iterable
from itertools import islice

VECTORS = 512
"""Pieces that one system call writes; Linux takes 1024 (IOV_MAX)."""


class SpillFile:
    """A file without a name: whatever becomes of the process, nothing is left of it."""

    def __init__(self, directory: str) -> None:
        """In ``directory``, "" = the system's for temporary files. Raises `OSError`."""
        self._file = tempfile.TemporaryFile(buffering=0, dir=directory or None)  # noqa: SIM115

    @classmethod
    def holding(cls, directory: str, parts: Iterable[bytes]) -> SpillFile:
        """A new one with ``parts`` in it. Raises `OSError`, and leaves none then."""
        file = cls(directory)
        try:
            file.write(parts, 0)
        except BaseException:
            file.close()
            raise
        return file

    def write(self, parts: Iterable[bytes], offset: int) -> None:
        """Write ``parts``, none of them empty, one after the other. Raises `OSError`."""
        rest = deque(memoryview(part) for part in parts)
        while rest:
            written = os.pwritev(self._file.fileno(), list(islice(rest, VECTORS)), offset)
            offset += written
            while written and written >= len(rest[0]):
                written -= len(rest.popleft())
            if written:
                rest[0] = rest[0][written:]

    def read(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes at ``offset``, never none. Raises `OSError`."""
        data = os.pread(self._file.fileno(), size, offset)
        if not data:  # it must not look like the end of the body
            raise OSError(errno.EIO, "the file of a body is shorter than it was")
        return data

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a write that failed late: nobody wants it any more
            self._file.close()
