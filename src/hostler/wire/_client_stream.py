"""A stream of a client, and what it makes of the answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import structlog
import trio
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from hostler.protocol import EngagementFailed, NotSent

from . import _codec as codec
from ._broken import StreamBroken
from ._buffers import Buffer
from ._connection import WireProtocol
from ._pool import ConnectionPool, Slot
from ._status import (
    INTERNAL,
    OK,
    UNDECODABLE,
    HeaderList,
    bad_response,
    encode_timeout,
    status_of_end,
)
from ._stream import WireStream

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_Data = TypeVar("_Data", bytes, Buffer)


class StreamBlock:
    """A new stream, open for the length of the block; it is reset if it has not ended then.

    Its headers go out with the first message. (A class, because a generator costs several times
    as much, and each call has one of these.)
    """

    def __init__(
        self, pool: ConnectionPool, headers: HeaderList, deadline: float = math.inf
    ) -> None:
        self._pool = pool
        self._headers = headers
        self._deadline = deadline

    async def __aenter__(self) -> WireStream:
        """Trio-flavoured. Raises `NotSent`."""
        return self.open_on(await self._pool.acquire())

    def open_on(self, slot: Slot) -> WireStream:
        """Open it on a connection that was acquired for it. Raises `NotSent`."""
        self._slot = slot
        if self._deadline != math.inf:  # only now: waiting for a connection took its share
            left = encode_timeout(self._deadline - trio.current_time())
            self._headers.append(("grpc-timeout", left))
        try:
            self._stream = open_stream(slot.protocol, self._headers)
        except BaseException:
            self._pool.release(slot)
            raise
        self._unregister = slot.protocol.processor.register(self._stream)
        return self._stream

    async def __aexit__(self, *_: object) -> None:
        """Not a checkpoint."""
        self.leave()

    def leave(self) -> None:
        stream = self._stream
        finished = stream.ended and not stream.inbox.unread
        stream.reset_now(ErrorCodes.NO_ERROR if finished else ErrorCodes.CANCEL)
        stream.connection.note_left(answered=finished, begun=stream.all_sent)
        self._unregister()
        self._pool.release(self._slot)


def open_stream(protocol: WireProtocol, headers: HeaderList) -> WireStream:
    """Synchronous on purpose: between the choice of a stream id and its use nobody may run."""
    connection = protocol.connection
    stream = connection.create_stream()
    try:
        stream_id = connection.h2.get_next_available_stream_id()
        connection.h2.send_headers(stream_id, headers)
    except ProtocolError as error:  # (also: all ids are used up)
        protocol.draining = True
        raise NotSent(f"runner {protocol.peer}: cannot open a stream: {error}") from error
    stream.init_stream(stream_id, connection)
    return stream


async def receive(stream: WireStream, address: str) -> bytes | None:
    """The next message, ``None`` after the status OK."""
    message = await receive_buffer(stream, address)
    return message if message is None else bytes(message)


async def receive_buffer(stream: WireStream, address: str) -> Buffer | None:
    """As `receive`, perhaps a view."""
    try:
        message = await stream.receive_buffer()
    except StreamBroken as error:
        if error.broken.unprocessed:
            raise NotSent(f"runner {address} did not look at the call: {error}") from error
        # What a proxy answers makes no sense as messages.
        bad = bad_response(dict(stream.headers)) if stream.headers else None
        raise EngagementFailed(*(bad or (error.broken.status, error.broken.text))) from error
    if message is None:
        headers, trailers = dict(stream.headers or ()), dict(stream.trailers or ())
        status, text = status_of_end(headers, trailers)
        if status != OK:
            raise EngagementFailed(status, text)
    elif not stream.response_is_good:
        if bad := bad_response(dict(stream.headers or ())):
            raise EngagementFailed(*bad)
        stream.response_is_good = True
    return message


def decoded(decode: Callable[[_Data], _T], data: _Data, address: str) -> _T:
    try:
        return decode(data)
    except codec.CodecError as error:
        log.warning("undecodable message", runner=address, reason=str(error))
        raise EngagementFailed(INTERNAL, UNDECODABLE) from error
