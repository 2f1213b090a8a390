"""One HTTP/2 stream with gRPC messages, grpclib's below and Trio-flavoured above.

grpclib's processor tells a stream of what happened by synchronous calls, in the thread that Trio
runs in. So nothing has to cross from one flavour to the other: the calls below change the state
and set a Trio event, and Trio tasks call h2 and the transport directly. No asyncio task exists
for a stream, hence none can be left over or be cancelled by somebody else.

Flow control: received chunks are credited to the peer when messages that need them are being read.
The unread rest is at most the stream's window, and keeps at most `HELD` times as much in memory.
What is to be sent waits in ``_unsent`` until the peer's windows and the transport take it; `send`
waits until they have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio
from grpclib import protocol as grpclib_protocol
from h2.errors import ErrorCodes

from ._broken import Broken, PeerDone, StreamBroken, broken_by_reset
from ._buffers import Buffer, split
from ._h2 import ServerH2
from ._inbox import Inbox
from ._status import INTERNAL, UNAVAILABLE, HeaderList

if TYPE_CHECKING:
    from ._connection import WireConnection

_STEPS = 8
"""Messages that a task may send or receive before the others get their turn."""
_WRITE_SIZE = 128 * 1024
"""Bytes that are collected for one write to the transport."""


class WireStream(grpclib_protocol.Stream):
    """Both ends use it. One task may receive while another one sends; not two of a kind."""

    connection: WireConnection
    known_id: int

    def init_stream(self, stream_id: int, connection: grpclib_protocol.Connection) -> None:
        self.id = self.known_id = stream_id
        self.inbox = Inbox(self._credit)
        self.buffer = self.inbox  # type: ignore[assignment]
        self.broken: Broken | None = None
        self.ended = False
        """The peer has sent all it is going to."""
        self.opened_at = 0.0
        """Of a server: when the client has opened it."""
        self.begun = False
        """Of a server: its first message has come, and somebody serves it."""
        self.taken = False
        """A message of the peer was taken, so that something may have come of it."""
        self.end_sent = False
        self._response_started = False
        self.response_is_good = False
        """Of a client: the response's headers were looked at."""
        self.cancel_scope = trio.CancelScope()
        """Of the task that serves the stream; unused by clients."""
        self._changed = trio.Event()
        self._unsent: deque[Sequence[Buffer]] = deque()
        self._queued = self._sent = 0
        self._when_sent: tuple[int, Callable[[], None]] | None = None
        self._handing_over: trio.lowlevel.Task | None = None
        """The task in `hand_over`, while it waits."""
        self._steps = 0
        self._progress = trio.Event()
        self.on_input: Callable[[], None] | None = None
        """Called, instead of waking a receiver, when something has come or the stream is over."""
        self.on_room: Callable[[], None] | None = None
        """Called when the peer or the transport may take more."""
        connection.streams_started += 1

    # --- called by grpclib, synchronously ---

    def add_data(self, data: Buffer, flow_size: int) -> None:
        self.inbox.add(data, flow_size)
        if self.on_input is not None:
            self.on_input()
        else:
            self._changed.set()

    def __ended__(self) -> None:
        self.ended = True
        self._wake()

    def __terminated__(self, reason: str) -> None:
        self.break_off(Broken(UNAVAILABLE, reason))

    def reset_received(self, error_code: int) -> None:
        """The peer reset the stream, or broke the protocol on it."""
        self.break_off(broken_by_reset(error_code))

    def break_off(self, broken: Broken) -> None:
        """End the stream here; everybody who waits for it learns why. The first reason stays."""
        if self.broken is None and not self._peer_finished():
            self.broken = broken
        self._unsent.clear()
        self.cancel_scope.cancel()
        self._wake()

    async def _checkpoint(self) -> None:
        """Let others run, but not for each message of a few: that would cost more than most
        messages themselves."""
        self._steps += 1
        if self._steps % _STEPS:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    def _wake(self) -> None:
        self._changed.set()
        self._progress.set()
        self._wake_handing_over()
        if self.on_input is not None:
            self.on_input()

    def room_made(self) -> None:
        """The peer's windows, or the transport, may take more."""
        self.pump()
        if self.on_room is not None:
            self.on_room()

    # --- receiving ---

    async def receive(self) -> bytes | None:
        """The next message; as `receive_buffer`."""
        message = await self.receive_buffer()
        return message if message is None else bytes(message)

    async def receive_buffer(self) -> Buffer | None:
        """The next message, perhaps as a view of what was read; ``None`` at the end of the peer's
        side.

        Trio-flavoured. Raises `StreamBroken`; a message over ``MAX_MESSAGE`` is refused by its
        length prefix, before it is buffered. Complete messages that arrived before a break are
        delivered first. Can be cancelled without losing data.
        """
        await self._checkpoint()
        while (message := self._next()) is None:
            if self.ended:
                if self.inbox.within:
                    raise StreamBroken(Broken(INTERNAL, "the stream ended within a message"))
                return None
            if self.broken:
                raise StreamBroken(self.broken)
            self._changed = trio.Event()
            await self._changed.wait()
        return message

    def receive_nowait(self) -> bytes | None:
        """The next message if it is complete. Raises `StreamBroken` as `receive` does."""
        message = self.inbox.next()
        if message is None:
            return None
        self.taken = True
        return message if type(message) is bytes else bytes(message)

    def _next(self) -> Buffer | None:
        message = self.inbox.next()
        if message is not None:
            self.taken = True
        return message

    def _credit(self, size: int) -> None:
        if not self.connection.is_closing():
            self.connection.ack(self.known_id, size)

    # --- sending ---

    def put(self, *parts: Buffer, flush: bool = True) -> int:
        """Queue framed data, and send what can be sent now.

        Synchronous, never blocks. Returns the position to give to `wait_sent`. Without ``flush``
        the last part may stay behind until something else is sent on the connection.
        """
        if self.broken or self.end_sent:
            return self._queued
        connection = self.connection
        size = len(parts[0]) if len(parts) == 1 else sum(map(len, parts))
        self._queued += size
        if (
            not self._unsent
            and connection.write_ready.is_set()
            and not connection.transport.is_closing()
            and connection.h2.send_whole(self.known_id, parts, size)
        ):
            self._sent += size
            if flush:
                connection.flush()
            self._progress.set()
            if self._when_sent is not None:
                self._report_sent()
        else:
            self._unsent.append(parts)
            self.pump(flush=flush)
        return self._queued

    async def hand_over(self, position: int, on_sent: Callable[[], None]) -> None:
        """Wait until all up to ``position`` has been handed to the transport. ``on_sent`` is called
        in that moment, perhaps before this waits; one task at a time.

        Trio-flavoured. Raises `StreamBroken` or `PeerDone`. When it is cancelled before that
        moment, it never comes: the rest of what was queued is not sent, so that the stream is good
        for nothing but to be reset.
        """
        self._when_sent = (position, on_sent)
        self._report_sent()
        try:
            while self._when_sent is not None:
                self.check_writable()
                self._handing_over = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._withdraw)
        finally:
            self._when_sent = None
        await self._checkpoint()
        self.check_writable()

    def _withdraw(self, _: object) -> trio.lowlevel.Abort:
        """The task that hands over is cancelled. It learns of it in its next turn; what is sent
        until then would be committed, although the attempt is over."""
        self._handing_over = self._when_sent = None
        self._unsent.clear()
        return trio.lowlevel.Abort.SUCCEEDED

    def _report_sent(self) -> None:
        if self._when_sent is not None and self._sent >= self._when_sent[0]:
            _, on_sent = self._when_sent
            self._when_sent = None
            on_sent()
            self._wake_handing_over()

    def _wake_handing_over(self) -> None:
        """Only when it is done, or can't be done any more: a task that was woken can't withdraw."""
        if self._handing_over is not None:
            task, self._handing_over = self._handing_over, None
            trio.lowlevel.reschedule(task)

    async def wait_sent(self, position: int) -> None:
        """Wait until all up to ``position`` has been handed to the transport.

        Trio-flavoured. Raises `StreamBroken` or `PeerDone`. Can be cancelled: what was queued is
        still sent, in whole messages.
        """
        await self._checkpoint()
        if self._sent >= position:
            self.check_writable()
            return
        while self._sent < position:
            self.check_writable()
            self._progress = trio.Event()
            await self._progress.wait()

    async def send(self, *parts: Buffer, flush: bool = True) -> None:
        """Queue framed data and wait until it was handed to the transport; as `wait_sent`.
        ``flush`` as for `put`."""
        self.check_writable()
        # Earlier leftovers of cancelled sends go first, so that they can't pile up.
        if self._unsent:
            await self.wait_sent(self._queued)
        await self.wait_sent(self.put(*parts, flush=flush))

    def check_writable(self) -> None:
        """Raises `StreamBroken` or `PeerDone` if nothing can be sent any more."""
        if self.broken:
            raise StreamBroken(self.broken)
        if self._peer_finished():
            raise PeerDone("the peer has ended the stream")

    def _peer_finished(self) -> bool:
        # Only a server's end is the end of the exchange; a client may half-close and listen.
        return self.ended and bool(self._h2_connection.config.client_side)

    def room(self) -> int:
        """Bytes that would be sent at once of what is put now; not negative."""
        connection = self.connection
        if (
            self._unsent
            or self.broken
            or self.end_sent
            or connection.transport.is_closing()
            or not connection.write_ready.is_set()
        ):
            return 0
        window = connection.h2.window(self.known_id)
        return window if window > 0 else 0  # (a peer may take back what it has granted)

    def pump(self, *, flush: bool = True) -> None:
        """Send as much as the peer's windows and the transport take. Synchronous. ``flush`` as
        for `put`."""
        connection = self.connection
        h2 = connection.h2
        stream_id = self.known_id
        before = flushed = self._sent
        while self._unsent and connection.write_ready.is_set() and self.closable:
            limit = h2.room(stream_id)
            if limit <= 0:
                break
            parts = self._unsent.popleft()
            size = sum(map(len, parts))
            if size > limit:
                parts, rest = split(parts, limit)
                self._unsent.appendleft(rest)
                size = limit
            h2.send_parts(stream_id, parts, size)
            self._sent += size
            if self._sent - flushed >= _WRITE_SIZE:
                connection.flush()
                flushed = self._sent
        if flush or self._unsent:
            connection.flush()
        if self._sent != before:
            self._progress.set()
            self._report_sent()

    def _put_headers(self, headers: HeaderList, *, end: bool = False) -> None:
        """Headers or trailers, to go out with what comes next. Not subject to flow control.
        No-op on a closed stream."""
        if not self.closable or self.end_sent:
            return
        self._h2_connection.send_headers(self.known_id, headers, end_stream=end)
        self.end_sent = end

    def start_response(self, headers: HeaderList) -> None:
        """Put a response's headers before the data that comes next, unless that was done."""
        if not self._response_started:
            self._put_headers(headers)
            self._response_started = True

    def answer_now(self, head: bytes, message: bytes, tail: bytes) -> bool:
        """Answer a stream, of which nothing was answered, with one message, and end it; whether
        that can be done at once. ``head`` and ``tail`` are header blocks as `ServerH2.answer` takes
        them."""
        connection = self.connection
        h2 = connection.h2
        if (
            self.broken
            or connection.transport.is_closing()
            or not connection.write_ready.is_set()
            or not isinstance(h2, ServerH2)
            or not h2.answer(self.known_id, head, message, tail)
        ):
            return False
        self.end_sent = True
        return True

    def finish(self, headers: HeaderList, trailers: HeaderList) -> None:
        """End a response. A client that could still send is told to stop (RFC 9113, 8.1)."""
        if self._unsent:  # of a service that was cancelled while it waited for the peer
            self.reset_now(ErrorCodes.CANCEL)
            return
        self._put_headers(trailers if self._response_started else headers + trailers, end=True)
        if self.closable:
            self._h2_connection.reset_stream(self.known_id, error_code=ErrorCodes.NO_ERROR)
        self.connection.flush()

    @property
    def all_sent(self) -> bool:
        """Whether something was queued, and all of it was handed to the transport."""
        return 0 < self._queued == self._sent

    async def flush(self) -> None:
        """Wait until all that was queued has been handed to the transport; as `wait_sent`."""
        await self.wait_sent(self._queued)

    def end_now(self) -> None:
        """Half-close. The caller has seen all data sent."""
        if self.closable and not self.end_sent:
            self._h2_connection.end_stream(self.known_id)
            self.connection.flush()
            self.end_sent = True

    def reset_now(self, error_code: ErrorCodes) -> None:
        """Reset the stream, if it is not closed already."""
        self._unsent.clear()
        if self.closable:
            self._h2_connection.reset_stream(self.known_id, error_code=error_code)
            self.connection.flush()

    @property
    def closable(self) -> bool:
        connection = self.connection
        return not connection.transport.is_closing() and connection.h2.has_stream(self.known_id)
