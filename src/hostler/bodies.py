"""Request bodies: in memory, and streams that can be sent again."""

from __future__ import annotations

import trio

from .abc import Body
from .errors import HostlerError


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
