"""One call on a shared stream, as either end keeps it.

In the place that `WireStream` has for a plain ``Engage``: frames that came, frames that are to go,
the credit for both, and how the call ended. What is to go waits here until the shared stream takes
it along (`take`), so that it stays bounded per call, and a call without credit holds up no other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio
from h2.errors import ErrorCodes

from hostler._concurrency.signal import Change

from ._broken import Broken, PeerDone, StreamBroken, broken_by_reset
from ._envelope import CallEnd, Envelope, encode
from ._status import INTERNAL

if TYPE_CHECKING:
    from ._shared_stream import SharedStream

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


class SharedCall:
    """One task may receive while another one sends; not two of a kind."""

    expired = False
    """Its deadline has passed, of which this end was to take note."""
    broken: Broken | None = None
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
    _on_sent: Callable[[], None] | None = None
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
    _progress: Change | None = None
    """For whoever waits to send more."""
    _steps = 0

    def __init__(
        self,
        shared: SharedStream,
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
                self.break_off(Broken(INTERNAL, "the peer sent more than it had credit for"))
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

    def break_off(self, broken: Broken) -> None:
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
        what comes next on this call; ``now`` as for `SharedStream.queue`."""
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

        Trio-flavoured. Raises `StreamBroken` or `PeerDone`. When it is cancelled, what was queued
        is still sent, and the next one waits for it: leftovers can't pile up.
        """
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

    async def hand_over(self, frames: Sequence[bytes], on_sent: Callable[[], None]) -> None:
        """Queue ``frames`` when nothing else is queued, and wait until the first was handed to the
        transport. ``on_sent`` is called at that moment.

        Trio-flavoured. Raises `StreamBroken` or `PeerDone` if it never comes. When it is cancelled
        before, nothing is sent. (And not after: who waits has been told then.)
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_writable()
        self._on_sent = on_sent
        self.put(frames, now=True)
        try:
            while self._on_sent is not None:
                self.check_writable()
                self._waiter = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._withdraw)
        finally:
            self._on_sent = None
        await trio.lowlevel.checkpoint_if_cancelled()

    def _withdraw(self, _: object) -> trio.lowlevel.Abort:
        """The task that hands over is cancelled. It learns of it in its next turn; what is sent
        until then would be committed, although the attempt is over."""
        self._waiter = self._on_sent = None
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
            self._progress = Change()
        await self._progress.wait()

    def check_writable(self) -> None:
        """Raises `StreamBroken` or `PeerDone` if nothing can be sent any more."""
        if self.broken:
            raise StreamBroken(self.broken)
        if self._peer_finished():
            raise PeerDone("the peer has ended the call")

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

    def take(self, budget: int, number: Callable[[], int]) -> bytes:
        """The next envelope: frames of up to ``budget`` bytes and the credit for them, at least
        one; empty if there is nothing that may be sent. ``number`` makes one for a new call."""
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
            self.number = number()
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
        if self._taken and self._on_sent is not None:
            on_sent, self._on_sent = self._on_sent, None
            on_sent()
        if self._waiter is not None or self._progress is not None:
            self._wake()
