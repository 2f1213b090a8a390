"""Streamed bodies whose kept prefix, or whole, can be sent again."""

from __future__ import annotations

from bisect import bisect_right

import trio

from ..calls import Body, BodyConsumed
from ..errors import APIError, RequestTooBig, ServerBusy
from .disk import SpillFile
from .memory import BodyBudget, NotKept, NotKeptReason

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
        """A stream from the first byte, which ends the stream before it. Synchronous. Raises
        `BodyConsumed` and `trio.BusyResourceError` as said above."""
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


async def keep_whole(body: Body, budget: BodyBudget, limit: float) -> Body:
    """Read ``body`` to its end, close it, and return one of the same bytes that depends on
    nothing else. The caller has to close that one.

    Raises `RequestTooBig` over ``limit`` bytes, `ServerBusy` if the node has no room for it,
    an internal error if its disk is broken or can only be read (the log has it), and what a failing
    read raises. Keeps nothing if it fails or is cancelled.
    """
    data = body.data
    if data is not None and len(data) > limit:
        raise RequestTooBig.known(len(data), int(limit))
    kept = Kept(budget)
    try:
        if data is not None:
            await body.aclose()
            if data:
                await kept.append(data)
        else:
            await _read_all(body, kept, limit)
            await body.aclose()
    except BaseException as error:
        await kept.aclose()
        if isinstance(error, NotKept):
            budget.not_kept[error.reason] += 1
            raise (APIError if error.lasts else ServerBusy) from error
        raise
    return _WholeBody(kept)


async def _read_all(body: Body, kept: Kept, limit: float) -> None:
    # Kept once is enough: not by the body as well.
    stream = body.open_last() if isinstance(body, ReplayBody) else body.open()
    async with stream:
        while chunk := await stream.receive_some():
            if kept.size + len(chunk) > limit:
                raise RequestTooBig
            await kept.append(bytes(chunk))


class _WholeBody(Body):
    """A body that is kept from its first byte to its last."""

    def __init__(self, kept: Kept) -> None:
        self._kept: Kept | None = kept

    def open(self) -> trio.abc.ReceiveStream:
        if self._kept is None:
            raise BodyConsumed("the body was closed")
        return _KeptStream(self._kept)

    @property
    def data(self) -> bytes | None:
        return None if self._kept is None else self._kept.data

    @property
    def replayable(self) -> bool:
        return self._kept is not None

    async def aclose(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.aclose()


class _KeptStream(trio.abc.ReceiveStream):
    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._offset = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._kept.closed:  # it must not look like the end of the body
            raise trio.ClosedResourceError("the body was closed")
        if self._offset >= self._kept.size:
            return b""
        chunk = await self._kept.read(self._offset, max_bytes)
        self._offset += len(chunk)
        return chunk

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


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
