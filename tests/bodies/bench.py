"""Streams that a test scripts, budgets of bodies, and what these leave behind."""

from __future__ import annotations

import contextlib
import os

import trio

from hostler.bodies import BodyBudget
from hostler.config import BodyConfig


class ChunkStream(trio.abc.ReceiveStream):
    """Gives ``chunks``; notes that it is never read by two, nor after its end."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = list(chunks)
        self.reads = 0
        self.reading = False
        self.ended = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        assert not self.reading
        assert not self.ended
        self.reading = True
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self.reading = False
        self.reads += 1
        if not self.chunks:
            self.ended = True
            return b""
        chunk = self.chunks.pop(0)
        if isinstance(chunk, Exception):
            raise chunk
        if max_bytes is not None and len(chunk) > max_bytes:
            self.chunks.insert(0, chunk[max_bytes:])
        return chunk[:max_bytes]

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def read_to_end(stream: trio.abc.ReceiveStream, size: int | None = None) -> bytes:
    parts = []
    while part := await stream.receive_some(size):
        parts.append(part)
    return b"".join(parts)


def budget_of(
    memory: int = 1000, spill: int = 10, disk: int = 1000, folder: str = ""
) -> BodyBudget:
    return BodyBudget(
        BodyConfig(body_memory=memory, body_spill_size=spill, body_disk=disk, body_dir=folder)
    )


def files() -> int:
    """Open files that have no name any more."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            count += os.readlink(f"/proc/self/fd/{fd}").endswith("(deleted)")
    return count


def assert_nothing_left(budget: BodyBudget, files_before: int) -> None:
    assert (budget.memory, budget.disk) == (0, 0)
    assert files() == files_before
