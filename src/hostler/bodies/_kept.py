"""What is kept of one body: its beginning in a file if it is large, the rest in memory."""

from __future__ import annotations

from bisect import bisect_right

from ._budget import BodyBudget
from ._file import SpillFile

READ_SIZE = 128 * 1024
"""Bytes that are read of a file where the reader takes any number."""


class Kept:
    """Bytes that grow at the end and can be read anywhere. One task at a time may append.

    Bytes ``[0, on_disk)`` are in the file, ``[on_disk, size)`` in memory, and the budget counts
    both until `aclose`.
    """

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._parts: list[bytes] = []
        self._starts: list[int] = []
        self._file: SpillFile | None = None
        self.on_disk = 0
        self.size = 0
        self.closed = False

    async def append(self, chunk: bytes) -> None:
        """Add a ``chunk`` that is not empty.

        Raises `NotKept` if there is no room; then all that is left to do is `aclose`. Cancelled,
        it has kept the chunk all the same: in memory, until the next one comes.
        """
        self._parts.append(chunk)
        self._starts.append(self.size)
        self.size += len(chunk)
        self._budget.memory += len(chunk)
        if self._budget.wants_file(self.size - self.on_disk):
            await self._spill()

    async def _spill(self) -> None:
        """Move what is in memory to the file."""
        budget, size = self._budget, self.size - self.on_disk
        budget.take_disk(size)
        try:
            await self._write()
        except BaseException as error:
            budget.disk -= size
            if isinstance(error, OSError):
                raise budget.disk_failed(error) from error
            raise
        budget.disk_worked()
        budget.memory -= size
        self.on_disk = self.size
        self._parts.clear()
        self._starts.clear()

    async def _write(self) -> None:
        if self._file is None:
            self._file = SpillFile(self._budget.config.body_dir)
        await self._budget.files.run(self._file.write, self._parts, self.on_disk)

    async def read(self, offset: int, max_bytes: int | None) -> bytes:
        """Some bytes at ``offset``, which is less than ``size``. Raises `OSError`."""
        if offset < self.on_disk:
            assert self._file is not None
            size = min(max_bytes or READ_SIZE, self.on_disk - offset)
            return await self._budget.files.run(self._file.read, size, offset)
        index = bisect_right(self._starts, offset) - 1
        part, start = self._parts[index], offset - self._starts[index]
        end = len(part) if max_bytes is None else start + max_bytes
        return part[start:end]

    @property
    def data(self) -> bytes | None:
        """All of it, if nothing is in a file."""
        if self.on_disk:
            return None
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
            self._starts = [0]
        return self._parts[0] if self._parts else b""

    async def aclose(self) -> None:
        """Give all of it back. Idempotent, and never cancelled: it waits for the file system
        alone, not for long, and for nothing if there is no file."""
        self.closed = True
        self._budget.memory -= self.size - self.on_disk
        self._budget.disk -= self.on_disk
        file, self._file = self._file, None
        self._parts, self._starts = [], []
        self.size = self.on_disk = 0
        if file is not None:
            await self._budget.files.close(file)
