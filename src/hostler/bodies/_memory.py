"""Bodies in memory."""

from __future__ import annotations

import trio

from ..abc import Body
from ..errors import HostlerError
from ._budget import BodyBudget


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


class CountedBody(Body):
    """A body in memory that came whole with its request. It counts until it is closed."""

    def __init__(self, data: bytes, budget: BodyBudget) -> None:
        self._data: bytes | None = data
        self._budget = budget
        budget.memory += len(data)

    def open(self) -> trio.abc.ReceiveStream:
        if self._data is None:
            raise BodyConsumed("the body was closed")
        return _BytesStream(self._data)

    @property
    def data(self) -> bytes | None:
        return self._data

    @property
    def replayable(self) -> bool:
        return self._data is not None

    async def aclose(self) -> None:
        data, self._data = self._data, None
        if data is not None:
            self._budget.memory -= len(data)


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
