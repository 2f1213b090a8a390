"""The LB's end of a shared stream: one for each connection, opened by its first small call."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from h2.errors import ErrorCodes

from ..._fast import BegunEngagement
from ...protocol import (
    UNOBSERVED,
    AttemptObserver,
    Commit,
    Data,
    EngagementEnded,
    EngagementFailed,
    NotSent,
    RunnerFrame,
)
from ..codec import messages as codec
from ..codec.fast import decode_runner
from ..codec.messages import data_parts
from ..connection import MAX_STREAMS, HandOver
from ..connection_pool import ConnectionPool, ConnectionSlot, decoded, open_stream
from ..status import (
    OK,
    UNAVAILABLE,
    HeaderList,
    PeerFinished,
    StreamBroken,
    StreamEnd,
    bad_response,
    status_of_end,
)
from .envelope import Envelope
from .stream import CALL_WINDOW, MuxCall, MuxStream

log = structlog.get_logger(__name__)

_CANCEL = ErrorCodes.CANCEL


class MuxClientStream(MuxStream):
    client_side = True
    in_turn = -1

    def __init__(self, slot: ConnectionSlot, headers: HeaderList, address: str) -> None:
        """Synchronous; the headers go out with the first batch. Raises `NotSent`."""
        protocol = slot.protocol
        stream = open_stream(protocol, headers)
        self._slot = slot
        limit = min(protocol.connection.shared_calls, MAX_STREAMS)
        super().__init__(stream, address, max_unread=limit * CALL_WINDOW)

    def _unknown(self, envelope: Envelope) -> None:
        if envelope.call > self.last_number:
            raise codec.CodecError(f"call {envelope.call} has never begun")

    def note_late(self, envelope: Envelope) -> None:
        """Runners waste nobody's time."""

    def _check_response(self) -> None:
        stream = self.stream
        if not stream.response_is_good:
            if bad := bad_response(dict(stream.headers or ())):
                raise StreamBroken(StreamEnd(*bad))
            stream.response_is_good = True

    def _ended(self) -> None:
        headers, trailers = dict(self.stream.headers or ()), dict(self.stream.trailers or ())
        status, text = status_of_end(headers, trailers)
        if status == OK:
            status, text = UNAVAILABLE, "the runner ended the stream of the call"
        self.fail(StreamEnd(status, text))

    def _failed(self) -> None:
        stream, slot = self.stream, self._slot
        slot.shared = None
        if slot.protocol.usable:
            # It announced what it does not do. Calls of this connection get streams of their own.
            log.warning("runner ended a shared stream", runner=self.peer)
            slot.may_share = False
        stream.reset_now(ErrorCodes.NO_ERROR if stream.ended else ErrorCodes.CANCEL)
        stream.connection.release(stream)


class MuxEngagement(BegunEngagement):
    """A call on a shared stream. It begins with the first frames that are handed over."""

    observer: AttemptObserver = UNOBSERVED
    """Told of a later `Commit`."""

    def __init__(
        self,
        pool: ConnectionPool,
        slot: ConnectionSlot,
        shared: MuxStream,
        request_id: str,
        deadline: float,
    ) -> None:
        """It has ``slot`` of ``pool`` from now on."""
        self._address = shared.peer
        self._pool = pool
        self._slot = slot
        self._shared = shared
        shared.engagements += 1
        self._call = MuxCall(shared, request_id=request_id, deadline=deadline)

    def begin(self, frames: Sequence[bytes]) -> None:
        """Have ``frames`` sent in this turn of the scheduler. For a stream that `takes_now`."""
        self._call.put(frames, now=True)

    async def hand_over(self, frames: Sequence[bytes], handed: HandOver) -> None:
        """Send ``frames``, and wait until the transport has the first of them, which ``handed`` is
        told. Raises `NotSent` if that certainly did not happen."""
        try:
            await self._call.hand_over(frames, handed)
        except StreamBroken as error:
            raise NotSent(f"runner {self._address}: {error}") from error
        except PeerFinished:
            pass  # with a status, which receive() reports

    def leave(self) -> None:
        """The runner cancels the call unless it has ended."""
        self._shared.engagements -= 1
        call = self._call
        if call.number:  # else nothing was sent
            self._slot.protocol.connection.note_left(answered=call.ended is not None)
        call.reset(_CANCEL)
        call.leave()
        self._pool.release(self._slot)

    def cut(self) -> None:
        self._call.reset(_CANCEL)
        self._call.break_off(StreamEnd(UNAVAILABLE, "the attempt was cut off"))

    async def send(self, frame: Data) -> None:
        try:
            for part in data_parts(frame):
                await self._call.send((part,))
        except (StreamBroken, PeerFinished) as error:
            raise EngagementEnded(str(error)) from error

    async def commit(self, first: Data | None) -> None:
        commit = Commit(with_data=first is not None)
        frames = [codec.encode_client(commit)]
        if first is not None:
            frames += data_parts(first)
        await self.hand_over(frames, HandOver(self.observer, commit))

    @property
    def ended(self) -> bool:
        call = self._call
        end = call.ended
        return end is not None and end.status == OK and not call.unread

    def receive_ready(self) -> RunnerFrame | None:
        while (message := self._call.pop()) is not None:
            if (frame := decode_runner(message) or self._decoded(message)) is not None:
                return frame
        return None

    async def receive(self) -> RunnerFrame | None:
        while True:
            try:
                message = await self._call.receive()
            except StreamBroken as error:
                if error.broken.unprocessed or not self._call.number:
                    text = f"runner {self._address} did not look at the call: {error}"
                    raise NotSent(text) from error
                raise EngagementFailed(error.broken.status, error.broken.text) from error
            if message is None:
                end = self._call.ended
                if end is not None and end.status != OK:
                    raise EngagementFailed(end.status, end.text)
                return None
            if (frame := decode_runner(message) or self._decoded(message)) is not None:
                return frame

    def _decoded(self, message: bytes) -> RunnerFrame | None:
        """A message of another shape than most."""
        frame = decoded(codec.decode_runner, message, self._address)
        if frame is None:
            log.warning("unknown frame skipped", runner=self._address, size=len(message))
        return frame
