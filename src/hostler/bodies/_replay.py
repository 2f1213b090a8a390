"""Streams that can be sent again."""

from __future__ import annotations

import trio

from ..call import Body, BodyConsumed
from ._budget import BodyBudget, NotKept, NotKeptReason
from ._kept import Kept

REPLAY_LIMIT = 1024 * 1024
"""Bytes of a streamed body that are kept for another attempt. A runner without a free slot takes
at most what its flow control lets in before it says so (64 KiB at first, for gRPC), which is far
less."""


class ReplayBody(Body):
    """A streamed body whose first ``limit`` bytes can be sent again, as far as ``budget`` (by
    default one of its own) has room.

    What is read of ``source`` is kept, so that the next ``open`` starts over. Once more than
    ``limit`` bytes were read, or there is no room, nothing is kept any more, memory stays flat
    however large the body is, and ``open`` raises `BodyConsumed`. One stream is in use at a time:
    opening the next ends the one before, and raises `trio.BusyResourceError` while that one is
    being read. Whoever makes it has to close it.

    Cancelling a read of ``source`` must lose nothing, as holds for Trio's own streams. A failure
    of the source is raised from every later read that gets so far. Closing a stream, or the body,
    leaves the source open, which belongs to whoever made it.
    """

    def __init__(
        self,
        source: trio.abc.ReceiveStream,
        limit: int = REPLAY_LIMIT,
        budget: BodyBudget | None = None,
    ) -> None:
        self._source = source
        self._limit = limit
        self._budget = budget or BodyBudget()
        self._kept: Kept | None = Kept(self._budget)
        self._keeps_more = True
        self._size = 0
        self._failure: Exception | None = None
        self._complete = False
        self._reading = False
        self._reader: _ReplayStream | None = None

    def __repr__(self) -> str:
        state = "complete" if self._complete else "open"
        kept = "nothing" if self._kept is None else "everything"
        return f"<ReplayBody {state} read={self._size} kept={kept}>"

    def open(self) -> trio.abc.ReceiveStream:
        if self._reading:
            raise trio.BusyResourceError("a stream of this body is being read")
        if self._kept is None:
            raise BodyConsumed("the body was read, and not kept")
        if self._reader is not None:
            self._reader.detach()
        self._reader = _ReplayStream(self)
        return self._reader

    def open_last(self) -> trio.abc.ReceiveStream:
        """Like ``open``, but keep nothing more: there is no next stream once it was read on."""
        stream = self.open()
        self._keeps_more = False
        return stream

    @property
    def data(self) -> bytes | None:
        """The whole body, once all of it was read and kept in memory."""
        return self._kept.data if self._complete and self._kept is not None else None

    @property
    def replayable(self) -> bool:
        return self._kept is not None

    async def aclose(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.aclose()

    async def read(self, offset: int, max_bytes: int | None) -> bytes:
        """Bytes at ``offset``, for the one stream in use."""
        if self._reading:
            raise trio.BusyResourceError("a stream of this body is being read")
        self._reading = True
        try:
            if self._kept is not None and offset < self._kept.size:
                return await self._kept.read(offset, max_bytes)
            if offset < self._size:  # going on with the source would leave bytes out
                raise trio.ClosedResourceError("the body was closed")
            return await self._read_source(max_bytes)
        finally:
            self._reading = False

    async def _read_source(self, max_bytes: int | None) -> bytes:
        if self._failure is not None:
            raise self._failure
        if self._complete:
            return b""
        try:
            chunk = bytes(await self._source.receive_some(max_bytes))
        except Exception as error:
            self._failure = error
            raise
        self._complete = not chunk
        self._size += len(chunk)
        if chunk and self._kept is not None:
            await self._keep(self._kept, chunk)
        return chunk

    async def _keep(self, kept: Kept, chunk: bytes) -> None:
        """Cancelled, it has kept the chunk, and the stream will find it where it left off."""
        if not self._keeps_more:
            await self.aclose()
        elif self._size > self._limit:
            await self._give_up("too_big")
        else:
            try:
                await kept.append(chunk)
            except NotKept as error:
                await self._give_up(error.reason)

    async def _give_up(self, reason: NotKeptReason) -> None:
        self._budget.not_kept[reason] += 1
        await self.aclose()


class _ReplayStream(trio.abc.ReceiveStream):
    """Reads what the body keeps (which grows with what this stream itself reads), then on."""

    def __init__(self, body: ReplayBody) -> None:
        self._body: ReplayBody | None = body
        self._offset = 0

    def detach(self) -> None:
        """Another stream was opened: this one must not touch the source again."""
        self._body = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._body is None:
            raise trio.ClosedResourceError("another stream of this body was opened")
        chunk = await self._body.read(self._offset, max_bytes)
        self._offset += len(chunk)
        return chunk

    async def aclose(self) -> None:
        self.detach()
        await trio.lowlevel.checkpoint()
