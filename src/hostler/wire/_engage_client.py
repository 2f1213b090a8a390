"""An LB's end of an engagement: on a stream of its own, or on one that it shares."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import attrs
import structlog
import trio

from hostler.protocol import (
    BegunEngagement,
    ClientEngagement,
    Commit,
    Data,
    EngagementEnded,
    NotSent,
    RunnerFrame,
    TryCall,
)

from . import _codec as codec
from ._broken import PeerDone, StreamBroken
from ._client_stream import StreamBlock, decoded, receive_buffer
from ._data_codec import encode_data
from ._engage_codec import encode_try
from ._messages import data_messages, data_parts, with_prefix
from ._pool import ConnectionPool, Slot
from ._shared_client import ClientStream, SharedEngagement
from ._status import HeaderList
from ._stream import WireStream

log = structlog.get_logger(__name__)

SHARE_LIMIT = 32 * 1024
"""Bytes of a call's ``TryCall`` and body, above which it gets a stream of its own. What HTTP/2 does
for a stream costs as much as some 100 KiB of body; and half of a batch leaves room for others."""


@attrs.frozen
class Begin:
    """What an engagement begins with."""

    try_call: TryCall
    first: Data | None
    request_id: str
    deadline: float
    """`trio.current_time`; infinite = none."""
    on_commit: Callable[[], None]


@attrs.frozen
class Sharing:
    """Which calls may share a stream: those of up to ``limit`` bytes, and with ``streamed`` also
    those whose body is not there yet."""

    limit: int
    streamed: bool

    def takes(self, first: Data | None, size: int) -> bool:
        """``size`` is that of the encoded ``TryCall``."""
        if first is None:
            return self.streamed and size <= self.limit
        whole = first.eof or self.streamed
        return whole and size + len(first.data) <= self.limit


@attrs.frozen
class Way:
    """How engagements get to a runner."""

    pool: ConnectionPool
    address: str
    headers: Callable[[str, str], HeaderList]
    """Makes those of a method with a request id."""
    sharing: Sharing

    def shared_stream(self, slot: Slot) -> ClientStream | None:
        """The stream for small calls on this connection; ``None`` if the runner does not know such
        streams, or has no more room on it. Raises `NotSent`."""
        limit = slot.protocol.connection.shared_calls
        shared = slot.shared
        if shared is None:
            if not limit or not slot.may_share:
                return None
            headers = self.headers("EngageMany", "")
            shared = slot.shared = ClientStream(slot, headers, self.address)
        return shared if shared.engagements < limit else None

    def begin(
        self,
        make: Callable[[], TryCall],
        first: Data,
        request_id: str,
        deadline: float,
        on_commit: Callable[[], None],
    ) -> BegunEngagement | None:
        """See `RunnerClient.begin`: for small calls, on a stream that can take them now."""
        if len(first.data) > self.sharing.limit or (slot := self.pool.acquire_now()) is None:
            return None
        engagement = None
        try:
            shared = self.shared_stream(slot)
            if shared is None:
                return None
            frames = [encode_try(make()), encode_data(first)]
            size = len(frames[0])
            if not self.sharing.takes(first, size) or not shared.takes_now(size + len(frames[1])):
                return None
            engagement = SharedEngagement(self, slot, shared, request_id, deadline)
            engagement.begin(frames)
        except NotSent:  # who waits is told why
            return None
        finally:
            if engagement is None:
                self.pool.release(slot)
        on_commit()
        return engagement


class EngageBlock(AbstractAsyncContextManager[ClientEngagement]):
    """What `RunnerClient.engage` returns. (A class, because a generator costs several times as
    much, and each call has one of these.)"""

    def __init__(self, way: Way, begin: Begin) -> None:
        self._way = way
        self._begin = begin
        self._leave: Callable[[], None]

    async def __aenter__(self) -> ClientEngagement:
        begin = self._begin
        encoded = codec.encode_client(begin.try_call)
        slot = await self._way.pool.acquire()
        if self._way.sharing.takes(begin.first, len(encoded)):
            engagement = await self._share(slot, encoded)
            if engagement is not None:
                return engagement
        return await self._engage(slot, encoded)

    async def __aexit__(self, *_: object) -> None:
        """Not a checkpoint."""
        self._leave()

    async def _share(self, slot: Slot, encoded: bytes) -> SharedEngagement | None:
        """Begin the call on the connection's shared stream; ``None`` if that is not possible."""
        begin = self._begin
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            shared = self._way.shared_stream(slot)
        except BaseException:
            self._way.pool.release(slot)
            raise
        if shared is None:
            return None
        frames = [encoded]
        if begin.first is not None:
            frames += data_parts(begin.first)
        engagement = SharedEngagement(self._way, slot, shared, begin.request_id, begin.deadline)
        self._leave = engagement.leave
        try:
            await engagement.hand_over(frames, begin.on_commit)
        except BaseException:
            engagement.leave()
            raise
        return engagement

    async def _engage(self, slot: Slot, encoded: bytes) -> ClientEngagement:
        """Begin the call on a stream of its own."""
        begin, way = self._begin, self._way
        headers = way.headers("Engage", begin.request_id)
        block = StreamBlock(way.pool, headers, begin.deadline)
        stream = block.open_on(slot)
        self._leave = block.leave
        try:
            message = with_prefix(encoded)
            await _hand_over(stream, way.address, message, begin.first, begin.on_commit)
        except BaseException:
            block.leave()
            raise
        return _Engagement(stream, way.address)


async def _hand_over(
    stream: WireStream,
    address: str,
    message: bytes,
    first: Data | None,
    on_sent: Callable[[], None],
) -> None:
    """Send ``message``, and ``first`` with it, and wait until the transport has ``message``.

    ``on_sent`` is called at that moment. Raises `NotSent` if it certainly did not come.
    """
    sent = False

    def note() -> None:
        nonlocal sent
        sent = True
        on_sent()

    # From here to the hand-over nothing waits: a scope that has ended by now sends nothing, one
    # that ends later finds the commit made.
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        stream.check_writable()
        # One write for both, so a small call is a single packet.
        rest = [part for parts in data_messages(first) for part in parts] if first else []
        position = stream.put(message, *rest) - sum(map(len, rest))
        await stream.hand_over(position, note)
    except StreamBroken as error:
        if not sent:
            raise NotSent(f"runner {address}: {error}") from error
    except PeerDone:
        pass  # with a status, which receive() reports


class _Engagement(ClientEngagement):
    def __init__(self, stream: WireStream, address: str) -> None:
        self._stream = stream
        self._address = address

    async def send(self, frame: Data) -> None:
        try:
            for message in data_messages(frame):
                await self._stream.send(*message)
        except (StreamBroken, PeerDone) as error:
            raise EngagementEnded(str(error)) from error

    async def commit(self, first: Data | None, *, on_commit: Callable[[], None]) -> None:
        commit = with_prefix(codec.encode_client(Commit(with_data=first is not None)))
        await _hand_over(self._stream, self._address, commit, first, on_commit)

    async def receive(self) -> RunnerFrame | None:
        while True:
            message = await receive_buffer(self._stream, self._address)
            if message is None:
                return None
            frame = decoded(codec.decode_runner, message, self._address)
            if frame is not None:
                return frame
            log.warning("unknown frame skipped", runner=self._address, size=len(message))
