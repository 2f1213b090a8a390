"""Request bodies: in memory, and streams that can be sent again."""

from __future__ import annotations

import math

import trio

from .abc import Body
from .errors import HostlerError, RequestTooBig

REPLAY_LIMIT = 1024 * 1024
"""Bytes of a streamed body that are kept for another attempt. A runner without a free slot takes
at most what its flow control lets in before it says so (64 KiB at first, for gRPC), which is far
less."""


class BodyConsumed(HostlerError):
    """The body was partly sent and can't be sent again."""


class BytesBody(Body):
    """A body in memory."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    def open(self) -> trio.abc.ReceiveStream:
        return _BytesStream(self._data)

    @property
    def data(self) -> bytes:
        return self._data


class _BytesStream(trio.abc.ReceiveStream):
    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        size = len(self._rest) if max_bytes is None else max_bytes
        chunk, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return chunk

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class ReplayBody(Body):
    """A streamed body whose first ``limit`` bytes can be sent again.

    What is read of ``source`` is kept, so that the next ``open`` starts over. Once more than
    ``limit`` bytes were read nothing is kept any more, memory stays flat however large the body
    is, and ``open`` raises `BodyConsumed`. One stream is in use at a time: opening the next
    ends the one before, and raises `trio.BusyResourceError` while that one is being read.

    Cancelling a read of ``source`` must lose nothing, as holds for Trio's own streams. A failure
    of the source is raised from every later read that gets so far. Closing a stream leaves the
    source open, which belongs to whoever made it.
    """

    def __init__(self, source: trio.abc.ReceiveStream, limit: int = REPLAY_LIMIT) -> None:
        self._source = source
        self._limit = limit
        self._kept: list[bytes] | None = []
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
            raise BodyConsumed(f"more than {self._limit} bytes of the body were already sent")
        if self._reader is not None:
            self._reader.detach()
        self._reader = _ReplayStream(self, self._kept)
        return self._reader

    @property
    def data(self) -> bytes | None:
        """The whole body, once all of it was read and kept."""
        if not self._complete or self._kept is None:
            return None
        if len(self._kept) > 1:
            # A new list: a stream that replays the old one keeps its place in it.
            self._kept = [b"".join(self._kept)]
        return self._kept[0] if self._kept else b""

    @property
    def replayable(self) -> bool:
        return self._kept is not None

    async def read_source(self, max_bytes: int | None) -> bytes:
        """The next new bytes, for the one stream in use."""
        if self._failure is not None:
            raise self._failure
        if self._complete:
            return b""
        if self._reading:
            raise trio.BusyResourceError("a stream of this body is being read")
        self._reading = True
        try:
            chunk = bytes(await self._source.receive_some(max_bytes))
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._reading = False
        self._complete = not chunk
        self._size += len(chunk)
        if self._size > self._limit:
            self._kept = None
        elif self._kept is not None and chunk:
            self._kept.append(chunk)
        return chunk


class _ReplayStream(trio.abc.ReceiveStream):
    """Replays ``kept`` (which grows with what this stream itself reads), then reads on."""

    def __init__(self, body: ReplayBody, kept: list[bytes]) -> None:
        self._body: ReplayBody | None = body
        self._replay = list(kept)
        self._replay.reverse()

    def detach(self) -> None:
        """Another stream was opened: this one must not touch the source again."""
        self._body = None
        self._replay.clear()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._replay:
            return self._take(max_bytes)
        if self._body is None:
            raise trio.ClosedResourceError("another stream of this body was opened")
        return await self._body.read_source(max_bytes)

    def _take(self, max_bytes: int | None) -> bytes:
        chunk = self._replay.pop()
        if max_bytes is not None and len(chunk) > max_bytes:
            self._replay.append(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        return chunk

    async def aclose(self) -> None:
        self.detach()
        await trio.lowlevel.checkpoint()


async def read_whole(body: Body, limit: float = math.inf) -> BytesBody:
    """Read ``body`` to its end, into memory. Raises `RequestTooBig` over ``limit`` bytes, and
    what a failing read raises."""
    if body.data is not None:
        return _checked(body.data, limit)
    parts: list[bytes] = []
    size = 0
    async with body.open() as stream:
        while chunk := await stream.receive_some():
            size += len(chunk)
            if size > limit:
                raise RequestTooBig
            parts.append(bytes(chunk))
    return BytesBody(b"".join(parts))


def _checked(data: bytes, limit: float) -> BytesBody:
    if len(data) > limit:
        raise RequestTooBig.known(len(data), int(limit))
    return BytesBody(data)
