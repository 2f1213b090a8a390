"""The request body of an engagement, read off the wire as the function takes it."""

from __future__ import annotations

import trio

from ..abc import Body
from ..bodies import BodyConsumed
from ..errors import ProtocolError
from ..protocol import Data, ServerEngagement

EXPECTED_DATA = "Protocol failure: expected ClientMsg_Data"


async def receive_data(engagement: ServerEngagement) -> Data:
    """The next frame, which has to be data: a `ProtocolError` otherwise."""
    frame = await engagement.receive()
    if not isinstance(frame, Data):
        raise ProtocolError(EXPECTED_DATA)
    return frame


class EngagementBody(Body):
    """Can be opened once: what the function took is not kept.

    Nothing is read ahead. A function that reads slowly, or a call that waits for a slot, thereby
    stops the LB from sending (HTTP/2 flow control). Not to be read once the engagement is over.
    """

    def __init__(self, engagement: ServerEngagement, first: Data) -> None:
        self._stream: _EngagementStream | None = _EngagementStream(engagement, first)

    def open(self) -> trio.abc.ReceiveStream:
        if self._stream is None:
            raise BodyConsumed("the body of an engagement can be read once")
        stream, self._stream = self._stream, None
        return stream


class _EngagementStream(trio.abc.ReceiveStream):
    def __init__(self, engagement: ServerEngagement, first: Data) -> None:
        self._engagement = engagement
        self._rest: bytes | memoryview = first.data
        self._eof = first.eof

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._rest and not self._eof:
            frame = await receive_data(self._engagement)
            self._rest, self._eof = frame.data, frame.eof
        rest = self._rest
        if max_bytes is None or len(rest) <= max_bytes:
            self._rest = b""
            return bytes(rest)
        self._rest = memoryview(rest)[max_bytes:]
        return bytes(rest[:max_bytes])

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
