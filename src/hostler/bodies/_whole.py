"""Bodies that outlive their request."""

from __future__ import annotations

import trio

from ..call import Body, BodyConsumed
from ..errors import APIError, RequestTooBig, ServerBusy
from ._budget import BodyBudget, NotKept
from ._kept import Kept
from ._replay import ReplayBody


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

    def __repr__(self) -> str:
        if self._kept is None:
            return "<whole body, closed>"
        return f"<whole body size={self._kept.size} on_disk={self._kept.on_disk}>"

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
