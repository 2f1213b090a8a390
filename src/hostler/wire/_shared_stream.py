"""One ``EngageMany`` stream: what both ends of it share.

Nothing here is a task. What comes is dealt out to the calls in the callback that brings it; what
calls want to say is collected until the end of the scheduler's turn, and then goes out in one
message, one write. A call that is alone does not wait for others, and a few are enough (`ENOUGH`).

Bounds: each call's credit, ``max_unread`` bytes of all calls together, and at most one batch that
waits for the transport.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator

import structlog

from ._broken import Broken, StreamBroken
from ._budget import Flood
from ._buffers import PREFIX
from ._codec import CodecError
from ._envelope import Envelope, decode_batch
from ._shared_call import SharedCall
from ._status import INTERNAL, MAX_MESSAGE, RESOURCE_EXHAUSTED, UNDECODABLE
from ._stream import WireStream

log = structlog.get_logger(__name__)

OVERHEAD = 256
"""Bytes of an envelope beside its frames, at most."""
BATCH = 64 * 1024
"""Bytes that are collected for one message; the last frame may go beyond it."""
ENOUGH = 4
"""Calls that begin, or end, which are sent without waiting for the rest of the turn. One write for
all would be the cheapest, but then LB and runner take turns: each waits until the other is through
with all calls of a turn. (Measured with 2 to 16; from 4 on the writes no longer cost more.)"""
MAX_FRAME = MAX_MESSAGE - 2 * BATCH
"""Bytes of a frame, so that a batch with it is a message that peers take."""


class SharedStream(ABC):
    """One end of a stream that carries many calls. All methods are synchronous."""

    client_side: bool
    in_turn: int
    """Envelopes that are read before others have their turn; negative = all that have come."""

    def __init__(self, stream: WireStream, peer: str, *, max_unread: int) -> None:
        self.calls: dict[int, SharedCall] = {}
        """Those that have begun and are not over, by their number."""
        self.unread = 0
        """Bytes that came for calls and were not read yet."""
        self.pending = 0
        """Bytes that calls have put and that were not taken yet, and what their frames cost."""
        self.over = False
        self._stream = stream
        self._peer = peer
        self._max_unread = max_unread
        self._ready: deque[SharedCall] = deque()
        self._scheduled = False
        self._last_number = 0
        self._half_closed = False
        self._undealt: Iterator[Envelope] = iter(())
        """Of the batch that is read."""
        self._left_in_turn = self.in_turn
        self.waits_turn = False
        """There may be more to read, after others."""
        stream.on_input = self._on_input
        stream.on_room = self._flush

    # --- what is different at the ends ---

    @abstractmethod
    def _unknown(self, envelope: Envelope) -> None:
        """An envelope for a call that is not there. Raises `CodecError` if there can't be one,
        `StreamBroken` if there are too many."""

    @abstractmethod
    def note_late(self, envelope: Envelope) -> None:
        """An envelope has come for a call that is over, or that does not begin."""

    @abstractmethod
    def _ended(self) -> None:
        """The peer has ended the stream in good order."""

    @abstractmethod
    def _failed(self) -> None:
        """The stream is over, and its calls have been told."""

    @abstractmethod
    def _check_response(self) -> None:
        """Called before each batch that has come. Raises `StreamBroken`."""

    # --- sending ---

    def queue(self, call: SharedCall, *, now: bool = False) -> None:
        """Have ``call`` asked for what it has to say at the end of this turn; with ``now``, at
        once if no other calls could have to say something then, or enough of them do already."""
        if call.queued or self.over:
            return
        call.queued = True
        self._ready.append(call)
        if now and (len(self.calls) <= 1 or len(self._ready) >= ENOUGH):
            self._flush()
        elif not self._scheduled:
            self._scheduled = True
            self._stream.connection.call_soon(self._flush)

    def takes_now(self, size: int) -> bool:
        """Whether frames of ``size`` bytes that a new call puts are sent in this turn, behind what
        others have put."""
        if self.over:
            return False
        return self.pending + size + OVERHEAD * (len(self._ready) + 1) <= self._stream.room()

    def _flush(self) -> None:
        self._scheduled = False
        while self._ready and (room := self._stream.room()):
            self._send_batch(room)

    def flush_all(self) -> None:
        """Hand everything to the stream, whether or not that can send it now."""
        while self._ready:
            self._send_batch()

    def _send_batch(self, room: int = BATCH) -> None:
        """Of up to ``room`` bytes, if there is so much: what goes beyond it would wait below, and
        could not be withdrawn any more."""
        taken, parts, size = [], [b""], 0
        if room > BATCH:
            room = BATCH
        while self._ready and size < room:
            call = self._ready.popleft()
            call.queued = False
            part = call.take(room - size, self._next_number)
            if part:
                self.calls[call.number] = call
                taken.append(call)
                parts.append(part)
                size += len(part)
            if call.has_more:  # behind the others
                call.queued = True
                self._ready.append(call)
        if taken:
            parts[0] = PREFIX.pack(0, size)
            self._stream.put(b"".join(parts))
        for call in taken:
            call.sent()
            if not call.attended and call.is_over:
                self.forget(call)

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def forget(self, call: SharedCall) -> None:
        """Nobody waits for ``call`` any more, and the other end has been told all."""
        call.discard()
        self.calls.pop(call.number, None)

    # --- what comes; called by the stream ---

    def _on_input(self) -> None:
        if not self.waits_turn:
            self.read_on()

    def read_on(self) -> None:
        """Deal out what is here, as much as is this stream's turn."""
        stream, self.waits_turn = self._stream, False
        if self.over or stream.connection.is_cut:
            return
        try:
            while True:
                for envelope in self._undealt:
                    self._deal_out(envelope)
                    self._left_in_turn -= 1
                    if not self._left_in_turn and not stream.broken:
                        self._left_in_turn, self.waits_turn = self.in_turn, True
                        stream.connection.call_soon(self.read_on)
                        return
                if (message := stream.receive_nowait()) is None:
                    break
                self._check_response()
                self._undealt = iter(decode_batch(message))
        except CodecError as error:
            log.warning("undecodable message", peer=self._peer, reason=str(error))
            self.fail(Broken(INTERNAL, UNDECODABLE))
        except StreamBroken as error:
            self.fail(error.broken)
        except Flood as flood:
            stream.connection.cut(str(flood))
        if self.over:
            return
        if stream.broken:
            self.fail(stream.broken)
        elif stream.ended and not self._half_closed:
            self._half_closed = True
            self._ended()

    def _deal_out(self, envelope: Envelope) -> None:
        call = self.calls.get(envelope.call)
        if call is None:
            self._unknown(envelope)
            return
        call.deliver(envelope)
        if not call.attended and call.is_over:
            self.forget(call)
        if self.unread > self._max_unread:
            text = f"more than {self._max_unread} bytes of calls that nobody has read"
            raise self.too_much(text)

    def too_much(self, text: str) -> StreamBroken:
        """What ends a stream whose peer keeps no limit."""
        log.warning("peer sends too much", peer=self._peer, reason=text)
        return StreamBroken(Broken(RESOURCE_EXHAUSTED, text))

    def fail(self, broken: Broken) -> None:
        """The stream is over, and all its calls with it. Idempotent."""
        if self.over:
            return
        self.detach()
        for call in [*self.calls.values(), *self._ready]:
            call.break_off(broken)
        self._ready.clear()
        self._failed()

    def detach(self) -> None:
        """Nothing more is done for the stream."""
        self.over = True
        self._stream.on_input = self._stream.on_room = None
