"""A shared stream and its calls: batching, credit, ends.

Nothing here is a task. What comes is dealt out to the calls in the callback that brings it; what
calls want to say is collected until the end of the scheduler's turn, and then goes out in one
message, one write. A call that is alone does not wait for others, and a few are enough (`ENOUGH`).

Bounds: each call's credit, ``max_unread`` bytes of all calls together, and at most one batch that
waits for the transport.

A `MuxCall` has the place of a `WireStream` of a plain ``Engage``: it keeps frames that came, frames
that are to go, the credit for both, and how the call ended. What is to go waits in the call until
the shared stream takes it along (`take`), so that it stays bounded per call, and a call without
credit holds up no other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import structlog
import trio
from h2.errors import ErrorCodes

from ..._concurrency.signal import Signal
from ..buffers import PREFIX
from ..codec.messages import CodecError
from ..connection import HandOver, WireStream
from ..http2 import Flooded
from ..status import (
    INTERNAL,
    MAX_MESSAGE,
    RESOURCE_EXHAUSTED,
    UNDECODABLE,
    PeerFinished,
    StreamBroken,
    StreamEnd,
    broken_by_reset,
)
from .envelope import CallEnd, Envelope, decode_batch, encode

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


class MuxStream(ABC):
    """One end of a stream that carries many calls. All methods are synchronous."""

    client_side: bool
    in_turn: int
    """Envelopes that are read before others have their turn; negative = all that have come."""

    def __init__(self, stream: WireStream, peer: str, *, max_unread: int) -> None:
        self.calls: dict[int, MuxCall] = {}
        """Those that have begun and are not over, by their number."""
        self.unread = 0
        """Bytes that came for calls and were not read yet."""
        self.pending = 0
        """Bytes that calls have put and that were not taken yet, and what their frames cost."""
        self.over = False
        self.engagements = 0
        """Of a load balancer: those that have not been left."""
        self.stream = stream
        self.peer = peer
        self._max_unread = max_unread
        self._ready: deque[MuxCall] = deque()
        self._scheduled = False
        self.last_number = 0
        self._half_closed = False
        self._undealt: Iterator[Envelope] = iter(())
        """Of the batch that is read."""
        self._left_in_turn = self.in_turn
        self.waits_turn = False
        """There may be more to read, after others."""
        stream.on_input = self.on_input
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

    def queue(self, call: MuxCall, *, now: bool = False) -> None:
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
            self.stream.connection.call_soon(self._flush)

    def takes_now(self, size: int) -> bool:
        """Whether frames of ``size`` bytes that a new call puts are sent in this turn, behind what
        others have put."""
        if self.over:
            return False
        return self.pending + size + OVERHEAD * (len(self._ready) + 1) <= self.stream.room()

    def _flush(self) -> None:
        self._scheduled = False
        while self._ready and (room := self.stream.room()):
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
            part = call.take(room - size)
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
            self.stream.put(b"".join(parts))
        for call in taken:
            call.sent()
            if not call.attended and call.is_over:
                self.forget(call)

    def forget(self, call: MuxCall) -> None:
        """Nobody waits for ``call`` any more, and the other end has been told all."""
        call.discard()
        self.calls.pop(call.number, None)

    # --- what comes; called by the stream ---

    def on_input(self) -> None:
        if not self.waits_turn:
            self.read_on()

    def read_on(self) -> None:
        """Deal out what is here, as much as is this stream's turn."""
        stream, self.waits_turn = self.stream, False
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
            log.warning("undecodable message", peer=self.peer, reason=str(error))
            self.fail(StreamEnd(INTERNAL, UNDECODABLE))
        except StreamBroken as error:
            self.fail(error.broken)
        except Flooded as flood:
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
        log.warning("peer sends too much", peer=self.peer, reason=text)
        return StreamBroken(StreamEnd(RESOURCE_EXHAUSTED, text))

    def fail(self, broken: StreamEnd) -> None:
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
        self.stream.on_input = self.stream.on_room = None


CALL_WINDOW = 256 * 1024
"""Credit that each end of a call begins with, in bytes; a part of the protocol."""

FRAME_COST = 32
"""Credit that a frame takes beside its length, so that empty frames can't pile up without end."""

MAX_CREDIT = 2**31 - 1

MAX_TIMEOUT_MS = 2**32 - 1
"""49 days."""

_GRANT = CALL_WINDOW // 2
"""Credit of what was read, at which the peer is told."""

_STEPS = 8
"""Frames that a task may receive before the others get their turn."""


class MuxCall:
    """One task may receive while another one sends; not two of a kind."""

    expired = False
    """Its deadline has passed, of which this end was to take note."""
    broken: StreamEnd | None = None
    ended: CallEnd | None = None
    """How the peer ended the call, or said that it sends no more."""
    taken = False
    """A frame of the peer was taken, so that something may have come of it."""
    queued = False
    """Whether it stands in the shared stream's queue."""
    opened_at = 0.0
    """Of a server: when the client has begun it."""
    attended = True
    """Whether somebody works for it at this end."""
    on_broken: Callable[[], None] | None = None
    _allowed = CALL_WINDOW
    """What the peer may still send, as far as it can know."""
    _read = 0
    """Credit of frames that were read and have not been granted anew."""
    _pending = 0
    """Credit that the outbox is going to take."""
    _credit = CALL_WINDOW
    _handed: HandOver | None = None
    _waiter: trio.lowlevel.Task | None = None
    """The task in `hand_over`."""
    _taken = False
    """Frames were taken along just now."""
    _grant = 0
    _end: CallEnd | None = None
    _reset = 0
    _done = False
    """Nothing can be sent any more: the end or a reset is on its way, or sent."""
    _receiver: trio.lowlevel.Task | None = None
    """The task in `receive`."""
    _progress: Signal | None = None
    """For whoever waits to send more."""
    _steps = 0

    def __init__(
        self,
        shared: MuxStream,
        *,
        number: int = 0,
        request_id: str = "",
        deadline: float = math.inf,
    ) -> None:
        self.number = number
        """0 = not begun: the other end knows nothing of it."""
        self.request_id = request_id
        self.deadline = deadline
        self._shared = shared
        self._inbox: deque[bytes] = deque()
        self._outbox: list[bytes] = []

    # --- what the peer says; synchronous ---

    def deliver(self, envelope: Envelope) -> None:
        """Take what has come for this call."""
        if self._done or self.ended:
            self._shared.note_late(envelope)
            if self._done and envelope.reset:
                self._drop_outbox()
                self._end, self._reset = None, 0
            return
        allowed = self._allowed
        for frame in envelope.frames:
            if allowed <= 0:
                self.reset(ErrorCodes.FLOW_CONTROL_ERROR)
                self.break_off(StreamEnd(INTERNAL, "the peer sent more than it had credit for"))
                break
            allowed -= len(frame) + FRAME_COST
            self._inbox.append(frame)
        self._shared.unread += self._allowed - allowed
        self._allowed = allowed
        if self.broken:
            return
        if envelope.credit:
            self._credit = min(self._credit + envelope.credit, MAX_CREDIT)
            self._note_progress()
            if self._outbox:
                self._shared.queue(self)
        if envelope.end is not None:
            self.ended = envelope.end
            self._wake()
        if envelope.reset:
            self.break_off(broken_by_reset(envelope.reset))
        self._wake_receiver()

    def end_received(self, end: CallEnd) -> None:
        """The peer sends no more; what it has sent can still be read."""
        if self.ended is None:
            self.ended = end
            self._wake_receiver()
            self._wake()

    def break_off(self, broken: StreamEnd) -> None:
        """End the call here; everybody who waits for it learns why. The first reason stays."""
        if self.broken is None and not self._peer_finished():
            self.broken = broken
        self._drop_outbox()
        self._done = True
        if self.on_broken is not None:
            self.on_broken()
        self._wake_receiver()
        self._wake()

    def expire(self) -> None:
        """The deadline has passed. Who works for the call is cancelled."""
        self.expired = True
        if self.on_broken is not None:
            self.on_broken()

    def _peer_finished(self) -> bool:
        return self.ended is not None and self._shared.client_side

    # --- receiving ---

    @property
    def unread(self) -> bool:
        """Whether something came that was not received."""
        return bool(self._inbox)

    async def receive(self) -> bytes | None:
        """The next frame; ``None`` when the peer has sent all, see ``ended``.

        Trio-flavoured. Raises `StreamBroken`, after the frames that came before. Can be cancelled
        without losing data.
        """
        self._steps += 1
        if not self._steps % _STEPS:
            await trio.lowlevel.checkpoint()
        elif self._inbox or self.ended is not None or self.broken:
            await trio.lowlevel.checkpoint_if_cancelled()
        while (frame := self.pop()) is None:
            if self.ended is not None:
                return None
            if self.broken:
                raise StreamBroken(self.broken)
            self._receiver = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_receiving)
        return frame

    def pop(self) -> bytes | None:
        """The next frame if it is here."""
        if not self._inbox:
            return None
        frame = self._inbox.popleft()
        self.taken = True
        cost = len(frame) + FRAME_COST
        self._shared.unread -= cost
        self._read += cost
        if self._read >= _GRANT and not self._done and self.ended is None:
            self._grant += self._read
            self._allowed += self._read
            self._read = 0
            self._shared.queue(self)
        return frame

    def _stop_receiving(self, _: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake_receiver(self) -> None:
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            trio.lowlevel.reschedule(receiver)

    def leave(self) -> None:
        """Nobody works for the call at this end any more."""
        self.attended = False
        if self.is_over:
            self._shared.forget(self)

    def discard(self) -> None:
        """Nobody is going to read what is there."""
        while self._inbox:
            self._shared.unread -= len(self._inbox.popleft()) + FRAME_COST

    # --- sending ---

    def put(self, frames: Sequence[bytes], *, flush: bool = True, now: bool = False) -> None:
        """Queue encoded frames. Synchronous, never blocks. Without ``flush`` they may wait for
        what comes next on this call; ``now`` as for `MuxStream.queue`."""
        if self._done:
            return
        self._outbox.extend(frames)
        size = sum(map(len, frames)) + FRAME_COST * len(frames)
        self._pending += size
        self._shared.pending += size
        if flush:
            self._shared.queue(self, now=now)

    async def send(self, frames: Sequence[bytes]) -> None:
        """Queue ``frames`` and wait until they were handed to the transport.

        Trio-flavoured. Raises `StreamBroken` or `PeerFinished`. When it is cancelled, what was
        queued is still sent, and the next one waits for it: leftovers can't pile up."""
        self.check_writable()
        while self._outbox:
            await self._wait_progress()
        self.put(frames)
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._outbox:
            await self._wait_progress()
        self.check_writable()

    async def flush(self) -> None:
        """Wait until the call's credit covers all that is queued, so that it is going to be sent
        without any doing of the peer's. As `send`."""
        while not self.covered:
            self._shared.queue(self)
            await self._wait_progress()
        self.check_writable()

    @property
    def covered(self) -> bool:
        """Whether the call's credit covers all that is queued."""
        return self._pending <= self._credit or not self._pending

    async def hand_over(self, frames: Sequence[bytes], handed: HandOver) -> None:
        """Queue ``frames`` when nothing else is queued, and wait until the first was handed to the
        transport. ``handed`` is told at that moment.

        Trio-flavoured. Raises `StreamBroken` or `PeerFinished` if it never comes. When it is
        cancelled before, nothing is sent. (And not after: who waits has been told then.)"""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_writable()
        self._handed = handed
        self.put(frames, now=True)
        try:
            while self._handed is not None:
                self.check_writable()
                self._waiter = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._withdraw)
        finally:
            self._handed = None
        await trio.lowlevel.checkpoint_if_cancelled()

    def _withdraw(self, _: object) -> trio.lowlevel.Abort:
        """The task that hands over is cancelled. It learns of it in its next turn; what is sent
        until then would be committed, although the attempt is over."""
        self._waiter = self._handed = None
        self._drop_outbox()
        return trio.lowlevel.Abort.SUCCEEDED

    def _note_progress(self) -> None:
        if self._progress is not None:
            self._progress.note()

    def _wake(self) -> None:
        self._note_progress()
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            trio.lowlevel.reschedule(waiter)

    async def _wait_progress(self) -> None:
        self.check_writable()
        if self._progress is None:
            self._progress = Signal()
        await self._progress.wait()

    def check_writable(self) -> None:
        """Raises `StreamBroken` or `PeerFinished` if nothing can be sent any more."""
        if self.broken:
            raise StreamBroken(self.broken)
        if self._peer_finished():
            raise PeerFinished("the peer has ended the call")

    def finish(self, end: CallEnd) -> None:
        """End the call from the runner's side, behind what is queued; a call whose reader left
        without taking all of it is reset."""
        if self._done:
            return
        if not self.covered:
            self.reset(ErrorCodes.CANCEL)
            return
        self._end = end
        self._done = True
        self._shared.queue(self, now=True)

    def reset(self, code: ErrorCodes) -> None:
        """Break off at the other end, unless that has ended the call. Never raises."""
        if self._done:
            return
        if self._outbox:
            self._drop_outbox()
        self._done = True
        if self.number and not self._peer_finished():
            self._reset = code
            self._shared.queue(self)

    def _drop_outbox(self) -> None:
        self._outbox.clear()
        self._shared.pending -= self._pending
        self._pending = 0

    # --- called by the shared stream ---

    def take(self, budget: int) -> bytes:
        """The next envelope: frames of up to ``budget`` bytes and the credit for them, at least
        one; empty if there is nothing that may be sent."""
        if budget >= self._pending <= self._credit:  # nearly always
            frames, cost = self._outbox, self._pending
            self._outbox = []
        else:
            frames, cost = self._take_some(budget)
        self._credit -= cost
        self._pending -= cost
        self._shared.pending -= cost
        end = None if self._outbox else self._end
        if not (frames or end or self._reset or self._grant):
            return b""
        request_id, timeout_ms = "", 0
        if not self.number:
            self._shared.last_number += 1
            self.number = self._shared.last_number
            request_id = self.request_id
            if self.deadline != math.inf:
                left = self.deadline - trio.current_time()
                timeout_ms = min(max(1, math.ceil(left * 1000)), MAX_TIMEOUT_MS)
        grant, reset = self._grant, self._reset
        self._taken = bool(frames)
        self._grant = self._reset = 0
        if end is not None:
            self._end = None
        return encode(self.number, frames, request_id, grant, end, reset, timeout_ms)

    def _take_some(self, budget: int) -> tuple[list[bytes], int]:
        """Frames, and the credit for them."""
        count = cost = 0
        for frame in self._outbox:
            if self._credit <= cost or budget <= 0:
                break
            size = len(frame)
            cost += size + FRAME_COST
            budget -= size
            count += 1
        frames, self._outbox = self._outbox[:count], self._outbox[count:]
        return frames, cost

    @property
    def has_more(self) -> bool:
        """Whether `take` has something to give."""
        return bool((self._outbox and self._credit > 0) or self._grant or self._reset)

    @property
    def is_over(self) -> bool:
        """Whether nobody is interested in it at either end."""
        if self.attended:
            return False
        told = self._done and not (self._outbox or self._end or self._reset)
        return told or self._peer_finished()

    def sent(self) -> None:
        """What was taken has been handed to the transport."""
        if self._taken and self._handed is not None:
            handed, self._handed = self._handed, None
            handed.note()
        if self._waiter is not None or self._progress is not None:
            self._wake()
