"""Bodies in memory."""

from __future__ import annotations

import trio

from ..call import Body, BodyConsumed, BytesStream
from ._budget import BodyBudget


class CountedBody(Body):
    """A body in memory that came whole with its request. It counts until it is closed."""

    def __init__(self, data: bytes, budget: BodyBudget) -> None:
        self._data: bytes | None = data
        self._budget = budget
        budget.memory += len(data)

    def open(self) -> trio.abc.ReceiveStream:
        if self._data is None:
            raise BodyConsumed("the body was closed")
        return BytesStream(self._data)

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
