"""grpclib's connection, protocol and stream as both ends need them: its public classes, and no
private name of them.

What is different from grpclib's own:

* After a GOAWAY the running streams go on (RFC 9113, section 6.8). Streams that the peer did not
  look at are marked, which makes them safe to retry.
* The connection never runs out of credit before its streams, so a reader that has stopped can't
  stop the other streams of the connection.
* Whatever a peer sends, the worst that happens is that its own connection is closed: an exception
  that leaves a protocol callback would end the whole trio-asyncio loop.
* A vanished peer is noticed by pings. Then the connection is aborted: closing would wait for data
  to be sent that nobody takes.

A stream is grpclib's below and Trio-flavoured above. grpclib's processor tells it what happened by
synchronous calls, in the thread that Trio runs in: the calls change the state and set a Trio event,
and Trio tasks call h2 and the transport directly. Nothing crosses from one flavour to the other,
and there is no asyncio task that could be left over or be cancelled by somebody else.

Flow control: chunks are credited to the peer when messages that need them are read. The unread rest
is at most the stream's window, and keeps at most `HELD` times as much in memory. Data to be sent
waits in ``_unsent`` until the peer's windows and the transport take it; `send` waits until then.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, cast

import attrs
import structlog
import trio
from grpclib import protocol as grpclib_protocol
from grpclib.config import Configuration
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
    WindowUpdated,
)
from h2.events import Event as H2Event
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from .. import _fast
from ..config.addresses import peer_address
from ..protocol import AttemptObserver, Commit, TryCall
from .buffers import PREFIX, Buffer, split
from .http2 import FloodBudget, Flooded, ServerH2, WireH2, with_setting
from .loop import Loop
from .status import (
    INTERNAL,
    MAX_MESSAGE,
    UNAVAILABLE,
    UNIMPLEMENTED,
    HeaderList,
    PeerFinished,
    StreamBroken,
    StreamEnd,
    broken_by_reset,
    too_large,
)
from .transport import TrioTransport

_STEPS = 8
"""Messages that a task may send or receive before the others get their turn."""

_WRITE_SIZE = 128 * 1024
"""Bytes that are collected for one write to the transport."""


class HandOver:
    """Tells ``observer`` when the transport has ``frame``."""

    done = False

    def __init__(self, observer: AttemptObserver, frame: TryCall | Commit) -> None:
        self._observer = observer
        self._reserves = isinstance(frame, TryCall) and frame.reserve

    def note(self) -> None:
        """The transport has it. Synchronous."""
        self.done = True
        if self._reserves:
            self._observer.asked()
        else:
            self._observer.committed()


class WireStream(grpclib_protocol.Stream):
    """Both ends use it. One task may receive while another one sends; not two of a kind."""

    connection: WireConnection
    known_id: int

    def init_stream(self, stream_id: int, connection: grpclib_protocol.Connection) -> None:
        self.id = self.known_id = stream_id
        self.inbox = MessageBuffer(self._credit)
        self.buffer = self.inbox  # type: ignore[assignment]
        self.broken: StreamEnd | None = None
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
        self._when_sent: tuple[int, HandOver] | None = None
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
        self.break_off(StreamEnd(UNAVAILABLE, reason))

    def reset_received(self, error_code: int) -> None:
        """The peer reset the stream, or broke the protocol on it."""
        self.break_off(broken_by_reset(error_code))

    def break_off(self, broken: StreamEnd) -> None:
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

    async def receive(self) -> Buffer | None:
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
                    raise StreamBroken(StreamEnd(INTERNAL, "the stream ended within a message"))
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

    async def hand_over(self, position: int, handed: HandOver) -> None:
        """Wait until all up to ``position`` has been handed to the transport. ``handed`` is told at
        that moment, perhaps before this waits; one task at a time.

        Trio-flavoured. Raises `StreamBroken` or `PeerFinished`. When it is cancelled before that
        moment, it never comes: the rest of what was queued is not sent, so that the stream is good
        for nothing but to be reset.
        """
        self._when_sent = (position, handed)
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
            _, handed = self._when_sent
            self._when_sent = None
            handed.note()
            self._wake_handing_over()

    def _wake_handing_over(self) -> None:
        """Only when it is done, or can't be done any more: a task that was woken can't withdraw."""
        if self._handing_over is not None:
            task, self._handing_over = self._handing_over, None
            trio.lowlevel.reschedule(task)

    async def wait_sent(self, position: int) -> None:
        """Wait until all up to ``position`` has been handed to the transport.

        Trio-flavoured. Raises `StreamBroken` or `PeerFinished`. Can be cancelled: what was queued
        is still sent, in whole messages."""
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
        """Raises `StreamBroken` or `PeerFinished` if nothing can be sent any more."""
        if self.broken:
            raise StreamBroken(self.broken)
        if self._peer_finished():
            raise PeerFinished("the peer has ended the stream")

    def _peer_finished(self) -> bool:
        # Only a server's end is the end of the exchange; a client may half-close and listen.
        return self.ended and self.connection.client_side

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
        self.connection.h2.send_headers(self.known_id, headers, end_stream=end)
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
            self.connection.h2.reset_stream(self.known_id, error_code=ErrorCodes.NO_ERROR)
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
            self.connection.h2.end_stream(self.known_id)
            self.connection.flush()
            self.end_sent = True

    def reset_now(self, error_code: ErrorCodes) -> None:
        """Reset the stream, if it is not closed already."""
        self._unsent.clear()
        if self.closable:
            self.connection.h2.reset_stream(self.known_id, error_code=error_code)
            self.connection.flush()

    @property
    def closable(self) -> bool:
        connection = self.connection
        return not connection.transport.is_closing() and connection.h2.has_stream(self.known_id)


log = structlog.get_logger(__name__)

_P = ParamSpec("_P")

STREAM_WINDOW = 512 * 1024
"""Bytes that a peer may send on a stream ahead of its reader: four messages of a large body, so
that it need not be told of each that was read."""

MAX_FRAME = 128 * 1024
"""Bytes that a peer may put into one HTTP/2 frame: a message of a large body. With the 16 KiB that
all must take it would be eight."""

MAX_STREAMS = 2048
"""Streams that a server allows on one connection. Times STREAM_WINDOW: under the largest window
that a connection can have."""

MAX_HEAD = 16 * 1024
"""Bytes of a stream's headers, as HTTP/2 counts them. A load balancer's are a few hundred."""

CONNECTION_WINDOW = 2**31 - 1

SHARED_CALLS_SETTING = 0xF0E5
"""The HTTP/2 setting by which a server says how many calls one ``EngageMany`` stream may carry at
once. Numbers from 0xf000 are for experiments (RFC 7540, section 11.3), those not known are ignored
(RFC 9113, section 6.5.2). A setting is there before the first call, costs nothing, and is not
passed on by a proxy, behind which the next stream may find another runner."""

RESET_BURST, RESET_RATE = float(MAX_STREAMS), 200.0
"""Streams that a client may reset before they were answered: at once (all of a load balancer's
callers may leave in the same moment), and for each second. Each stream that was answered allows
one more."""

EMPTY_RESET = 4
"""How many such streams one counts for that was reset before its first message came. Good clients
send that with the head."""

CLIENT_RESET_BURST = RESET_BURST / 2
"""What our own clients allow themselves of it. They open no stream while there is less than one for
each that is open, so that no server has to cut them off, however many callers leave: not even if
all that is open on a connection (a quarter of this) is reset at once, and had no message. The rest
is for resets that reach a server together although they were not sent together."""

YOUNG = 1.0
"""Seconds after which the reset of a stream is not counted: it has had its work, and a client can't
have more such streams in that time than it may open at once."""

CUT_SECONDS = 0.5
"""How long answers still go out on a connection whose client has used up a budget. Nothing of it is
read any more."""

FRAMES_IN_TURN, STREAMS_IN_TURN = 32, 4
"""Frames, other than plain DATA, and heads of new streams of one connection that are read before
all others have their turn: half a millisecond's work. A call needs some turns, each of which may be
behind one of a flood."""

_UNKNOWN_LIMIT = 100
"""Streams to open before the peer has said how many it allows (RFC 9113, section 6.5.2, advises
peers to allow at least these)."""


class WireConnection(grpclib_protocol.Connection):
    """State that streams share. ``limit`` streams may be open at once."""

    limit = _UNKNOWN_LIMIT
    shared_calls = 0
    """Calls that the peer takes on one ``EngageMany`` stream; 0 = it has no such method."""

    def __init__(self, protocol: WireProtocol, h2: WireH2, transport: asyncio.Transport) -> None:
        super().__init__(h2, transport, config=Configuration().__for_server__())
        self.h2 = h2
        self.transport = transport
        self.streams: dict[int, WireStream] = {}
        """Those that are open, by their ids."""
        self.call_soon = protocol.call_soon
        self.cut = protocol.cut
        self.write: Callable[[list[Buffer]], None] = transport.writelines
        self.is_cut = False
        """Nothing that has come is looked at any more."""
        self.shared_streams = 0
        """Of a server: ``EngageMany`` streams that are open."""
        self.waiting = 0
        """Of a server: calls without their try or their first data that have a task."""
        self.client_side = bool(h2.config.client_side)
        burst = CLIENT_RESET_BURST if self.client_side else RESET_BURST
        self.resets = FloodBudget(
            "streams that were reset before they were answered", burst=burst, rate=RESET_RATE
        )
        """Of streams, and of calls on shared ones."""

    def note_answered(self) -> None:
        """A stream, or a call, was answered."""
        self.resets.earn(1)

    def note_left(self, *, answered: bool, begun: bool = True) -> None:
        """Of a client: a stream, or a call, is over; see `CLIENT_RESET_BURST`."""
        if answered:
            self.resets.earn(1)
        else:
            self.resets.take(1 if begun else EMPTY_RESET)

    def note_reset(self, opened_at: float, *, begun: bool, by_peer: bool = True) -> None:
        """A stream or call of a client, of which the first message has come if it has ``begun``,
        was reset by the client, or for what the client sent on it. Raises `Flooded` if that has
        happened too often."""
        if by_peer and trio.current_time() - opened_at > YOUNG:
            return
        self.resets.spend(1 if begun else EMPTY_RESET)

    def create_stream(self, **kwargs: Any) -> WireStream:
        return WireStream(self, self.h2, self.transport, **kwargs)

    def release(self, stream: WireStream) -> None:
        """Forget a stream that is over, and credit what of it nobody has read."""
        del self.streams[stream.known_id]
        if not self.is_closing():
            self.ack(stream.known_id, stream.inbox.unacked_size())

    def drop(self, stream: WireStream) -> None:
        """Forget a stream of a client that was answered at once. Unlike `release` it sends nothing:
        the answer goes out with those to others."""
        del self.streams[stream.known_id]
        assert isinstance(self.h2, ServerH2)
        self.h2.take_back(stream.inbox.unacked_size())

    def flush(self) -> None:
        if (output := self.h2.output()) and not self.transport.is_closing():
            self.write(output)

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def close(self) -> None:
        # The base class drops the transport here, which streams may still ask for its state.
        self.transport.close()

    def send_goaway(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Tell the peer to open no more streams. Past h2, which would close its own state."""
        last = self.h2.highest_inbound_stream_id
        if not self.transport.is_closing():
            frame = GoAwayFrame(0, last_stream_id=last, error_code=code)
            self.transport.write(frame.serialize())


class StreamHandler(Protocol):
    """What serves the streams of a connection."""

    def accept(self, stream: WireStream, headers: HeaderList) -> None:
        """Serve a new stream, up to its `WireConnection.release`. Synchronous."""


class _Processor(grpclib_protocol.EventsProcessor):
    connection: WireConnection
    handler: StreamHandler | None  # type: ignore[assignment]
    streams: dict[int, WireStream]  # type: ignore[assignment]

    def __init__(self, protocol: WireProtocol) -> None:
        super().__init__(protocol.handler, protocol.connection)
        self.streams = protocol.connection.streams
        self._protocol = protocol

    def process_request_received(self, event: RequestReceived) -> None:
        assert self.handler is not None  # h2 itself refuses requests that come from a server
        stream = self.connection.create_stream(stream_id=event.stream_id)
        self.connection.streams[stream.known_id] = stream
        self.handler.accept(stream, cast(HeaderList, event.headers))

    def process(self, event: H2Event) -> None:
        if process := getattr(self, "processors", {}).get(type(event)):
            process(event)

    def process_data_received(self, event: DataReceived) -> None:
        self.data_received(event.stream_id, event.data, event.flow_controlled_length)

    def data_received(self, stream_id: int, data: Buffer, flow_size: int) -> None:
        if (stream := self.streams.get(stream_id)) is None:
            self.connection.ack(stream_id, flow_size)
        else:
            stream.add_data(data, flow_size)

    def process_window_updated(self, event: WindowUpdated) -> None:
        if event.stream_id:
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                stream.room_made()
        else:
            self.pump_all()

    def process_remote_settings_changed(self, event: RemoteSettingsChanged) -> None:
        settings = self.connection.h2.remote_settings
        self.connection.limit = settings.max_concurrent_streams
        self.connection.shared_calls = settings.get(SHARED_CALLS_SETTING, 0)
        self._protocol.settings_received()
        self.pump_all()

    def pump_all(self) -> None:
        for stream in list(self.streams.values()):
            stream.room_made()

    def process_stream_reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.reset_received(int(event.error_code or 0))
            if not self._protocol.client_side:
                by_peer = bool(event.remote_reset)
                self.connection.note_reset(stream.opened_at, begun=stream.begun, by_peer=by_peer)

    def process_connection_terminated(self, event: ConnectionTerminated) -> None:
        last = event.last_stream_id or 0
        self._protocol.draining = True
        code = int(event.error_code or 0)
        said = (event.additional_data or b"")[:80].decode("latin-1")
        text = f"the peer is going away (code {code}, {said!r})"
        if code != ErrorCodes.NO_ERROR:
            log.warning("peer ended the connection", peer=self._protocol.peer, reason=text)
        if self._protocol.client_side:
            for stream_id, stream in list(self.streams.items()):
                if stream_id > last:
                    stream.break_off(StreamEnd(UNAVAILABLE, text, unprocessed=True))
        self._protocol.on_change()

    def close(self, reason: str = "connection closed") -> None:
        self._protocol.draining = True
        self.connection.close()
        for stream in list(self.streams.values()):
            stream.__terminated__(reason)


def _contained(
    callback: Callable[Concatenate[WireProtocol, _P], None],
) -> Callable[Concatenate[WireProtocol, _P], None]:
    """A callback of the loop that ends its connection where it would end the loop: what it raises
    is logged, once for each connection."""

    @functools.wraps(callback)
    def contained(self: WireProtocol, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            callback(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  (logged there)
            self.fail(callback.__name__, error)

    return contained


class WireProtocol(grpclib_protocol.H2Protocol):
    """One connection, from its transport's start to its loss."""

    connection: WireConnection
    processor: _Processor

    def __init__(
        self,
        handler: StreamHandler | None,
        *,
        loop: Loop,
        client_side: bool,
        keepalive: Keepalive,
        shared_calls: int = 0,
    ) -> None:
        # latin-1 never fails to decode; header values that matter are ASCII.
        h2_config = H2Configuration(
            client_side=client_side,
            header_encoding="latin-1",
            validate_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_inbound_headers=False,
            normalize_outbound_headers=False,
        )
        super().__init__(cast(Any, handler), Configuration(), h2_config)
        self.client_side = client_side
        self.peer = ""
        self.context: ssl.SSLContext | None = None
        """What a client's connection was opened with."""
        self.heard = False
        """Whether anything came from the peer since the last check."""
        self.draining = False
        """No new streams: the peer said GOAWAY, or we did."""
        self.lost = trio.Event()
        self.lost_reason: BaseException | None = None
        self.ready = trio.Event()
        """The peer's settings have come: it speaks HTTP/2. Also set when the connection is lost."""
        self._loop = loop
        self._keepalive = keepalive
        self._shared_calls = shared_calls
        self._timer: asyncio.TimerHandle | None = None
        self._closing_reason = ""
        self._failed = False
        self._trio_side: TrioTransport | None = None
        """Of a plaintext connection."""
        self._read_error: OSError | None = None
        self.turns = trio.Lock()
        """Of a server, whose connections share one: who reads on in this turn of the scheduler, of
        all that have more to read. Else a hundred floods would take a hundred times as long."""
        self._unread = b""
        """Of a server: what has come and was not looked at, or not as a whole."""
        self._more = False

    @property
    def usable(self) -> bool:
        """Whether new streams can be opened. A transport may be closing without having said so."""
        return not self.draining and not self.connection.is_closing()

    def on_change(self) -> None:
        """Called when streams may have become possible or impossible."""

    # --- asyncio's side; nothing may be raised here ---

    @_contained
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        h2 = (WireH2 if self.client_side else ServerH2)(self.h2_config)
        # First of all, so that whatever fails from here on can be aborted.
        self.connection = WireConnection(self, h2, cast(asyncio.Transport, transport))
        self.processor = _Processor(self)
        self.peer = peer_address(transport.get_extra_info("peername"))
        self._keepalive.set_options(transport.get_extra_info("socket"))
        if transport.get_extra_info("sslcontext") is None:
            if _fast.enabled:
                self._trio_side = TrioTransport(self, self._loop, self.connection.transport)
                self.connection.write = self._trio_side.write
            if self.client_side:
                # What the socket does not take waits where it can be withdrawn, not in asyncio's
                # hands: of a runner that is frozen, such calls are tried elsewhere. (TLS has
                # buffers of its own.)
                self.connection.transport.set_write_buffer_limits(high=0)
        h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = STREAM_WINDOW
        h2.local_settings[SettingCodes.MAX_FRAME_SIZE] = h2.max_inbound_frame_size = MAX_FRAME
        if self.client_side:
            h2.local_settings[SettingCodes.ENABLE_PUSH] = 0
        else:
            h2.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = MAX_STREAMS
            h2.local_settings[SettingCodes.MAX_HEADER_LIST_SIZE] = MAX_HEAD
            h2.decoder.max_header_list_size = MAX_HEAD
        h2.local_settings.acknowledge()
        h2.initiate_connection()
        if self._shared_calls:
            first = with_setting(h2.data_to_send(), SHARED_CALLS_SETTING, self._shared_calls)
            self.connection.transport.write(first)
        h2.increment_flow_control_window(CONNECTION_WINDOW - h2.inbound_flow_control_window)
        self.connection.flush()
        self._timer = self._loop.call_later(self._keepalive.interval, self._check_idle)

    @_contained
    def data_received(self, data: bytes) -> None:
        self.heard = True
        if not self.client_side:
            self._unread = self._unread + data if self._unread else data
            if self._serve_turn() and self._trio_side is None:
                self.connection.transport.pause_reading()
                loop: Any = self._loop  # trio-asyncio's, which has no annotations
                loop.trio_as_future(self._read_on_tls)
            return
        try:
            events = self.connection.h2.read(data, self.processor)
        except ProtocolError:
            log.debug("protocol error", peer=self.peer, exc_info=True)
            self.processor.close("Protocol error")
            return
        for event in events:
            self.processor.process(event)
        self.connection.flush()

    def read_on(self) -> bool:
        """Read on in what is here; whether there is more."""
        more = False
        try:
            more = self._more and self._serve_turn()
        except Exception as error:  # noqa: BLE001  (logged there)
            self.fail("read_on", error)
        return more

    async def _read_on_tls(self) -> None:
        async with self.turns:
            pass
        while self.read_on():
            async with self.turns:
                pass
        if not self._is_cut() and not self.connection.is_closing():
            self.connection.transport.resume_reading()

    def _serve_turn(self) -> bool:
        """Read what a client has sent, but not so much that others have to wait for long; whether
        there is more to read."""
        if self._is_cut():
            return False
        h2, processor = self.connection.h2, self.processor
        assert isinstance(h2, ServerH2)
        data, at, self._more = self._unread, 0, False
        last = h2.highest_inbound_stream_id + 2 * STREAMS_IN_TURN
        try:
            for _ in range(FRAMES_IN_TURN):
                stop, events = h2.step(data, at, processor)
                for event in events:
                    processor.process(event)
                if stop == at or stop == len(data) or self._is_cut():
                    at = stop
                    break
                at = stop
                if h2.highest_inbound_stream_id >= last:
                    self._more = True
                    break
            else:
                self._more = True
        except ProtocolError:
            log.debug("protocol error", peer=self.peer, exc_info=True)
            processor.close("Protocol error")
            at = len(data)
        except Flooded as flood:
            self.cut(str(flood))
            at = len(data)
        self._unread = b"" if self._is_cut() else data[at:]
        self.connection.flush()
        return self._more

    @_contained
    def read_failed(self, error: OSError) -> None:
        self._read_error = error
        self.connection.transport.abort()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Have something called after what is due now. An error in it ends the connection."""
        if self._trio_side is not None:
            self._trio_side.call_soon(callback)
        else:
            self._loop.call_soon(self.run, callback)

    @_contained
    def run(self, callback: Callable[[], None]) -> None:
        callback()

    @_contained
    def pause_writing(self) -> None:
        super().pause_writing()

    @_contained
    def resume_writing(self) -> None:
        super().resume_writing()
        self.call_soon(self.processor.pump_all)  # not in the midst of asyncio's write: see _loop

    @_contained
    def connection_lost(self, exc: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._trio_side is not None:
            self._trio_side.stop()
        exc = exc or self._read_error
        self.lost_reason = exc
        reason = self._closing_reason or (f"connection lost: {exc}" if exc else "connection closed")
        # First the facts: whoever waits for them must not depend on what follows.
        self.draining = True
        self.lost.set()
        self.ready.set()
        try:
            self.processor.close(reason)
        finally:
            self.on_change()

    def fail(self, during: str, error: Exception) -> None:
        """Abort on a mistake of our own."""
        if not self._failed:
            self._failed = True
            log.error("connection failed", during=during, peer=self.peer, exc_info=error)
            # Later: some of asyncio's transports can't bear an abort in the midst of a callback.
            self._loop.call_soon(self._abort_failed)

    @_contained
    def _abort_failed(self) -> None:
        self.abort("internal error")

    # --- for the owner ---

    def settings_received(self) -> None:
        self.ready.set()
        self.on_change()

    def cut(self, reason: str) -> None:
        """Read nothing more of a client that wastes the server's time, and close its connection
        after a moment in which answers go out. Idempotent."""
        if self.connection.is_cut:
            return
        self.connection.is_cut = self.draining = True
        self._unread = b""
        log.warning("client cut off", peer=self.peer, reason=reason)
        self.connection.send_goaway(ErrorCodes.ENHANCE_YOUR_CALM)
        if self._trio_side is not None:
            self._trio_side.stop_reading()
        elif not self.connection.is_closing():
            self.connection.transport.pause_reading()
        self._loop.call_later(CUT_SECONDS, self._end_cut, reason)

    def _is_cut(self) -> bool:
        return self.connection.is_cut  # (type checkers believe that it stays as it was)

    @_contained
    def _end_cut(self, reason: str) -> None:
        self.abort(reason)

    def close(self, reason: str) -> None:
        """Break off all streams and close once all is sent. `lost` is set when that is done."""
        self._closing_reason = self._closing_reason or reason
        self.draining = True
        self.processor.close(reason)

    def abort(self, reason: str) -> None:
        """Close without sending what is left. No-op before the connection is made: whoever makes
        it closes it then."""
        if not hasattr(self, "connection"):
            return
        self._closing_reason = self._closing_reason or reason
        self.draining = True
        self.connection.transport.abort()
        self.processor.close(reason)

    # --- keepalive ---

    @_contained
    def _check_idle(self) -> None:
        closing = self.connection.is_closing()
        if self.heard and not closing:
            self.heard = False
            self._timer = self._loop.call_later(self._keepalive.interval, self._check_idle)
            return
        if not closing:  # else it only waits for the peer to take the rest, and takes no ping
            self.connection.h2.ping(b"hostler.")
            self.connection.flush()
        self._timer = self._loop.call_later(self._keepalive.timeout, self._check_answer)

    @_contained
    def _check_answer(self) -> None:
        if self.connection.is_closing():
            self.abort("did not close in time")
        elif not self.heard:
            text = f"no answer to a ping within {self._keepalive.timeout:g} s"
            log.warning("peer has vanished", peer=self.peer, reason=text)
            self.abort(text)
        else:
            self.heard = False
            self._timer = self._loop.call_later(self._keepalive.interval, self._check_idle)


CREDIT = 256 * 1024
"""Bytes that are credited to the peer at once while there are more to read: half of a stream's
window. By single frames a peer that is ahead would be told of each, and send the next alone."""

LEAST_CREDIT = 128 * 1024
"""And when there is nothing more to read: small messages are not worth it, one by one."""

_HEAD = PREFIX.size


class MessageBuffer:
    """In the role of grpclib's ``Buffer``. ``credit`` is told how many bytes of chunks were taken,
    when that is worth telling the peer."""

    def __init__(self, credit: Callable[[int], None]) -> None:
        self._credit = credit
        self._chunks: deque[tuple[Buffer, int]] = deque()
        self._uncredited = 0
        """Bytes of chunks that were taken."""
        self._begun: list[Buffer] = []
        """Of the next message, what was taken; more of it is still to come."""
        self._begun_size = 0

    def add(self, data: Buffer, flow_size: int) -> None:
        """A chunk, and the credit that it has cost."""
        self._chunks.append((data, flow_size))

    def unacked_size(self) -> int:
        """What is still to be credited to the connection when the stream is released."""
        return self._uncredited + sum(size for _, size in self._chunks)

    @property
    def unread(self) -> bool:
        """Whether there are chunks that were not taken."""
        return bool(self._chunks)

    @property
    def within(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._begun_size)

    @property
    def begun_size(self) -> int:
        """Bytes of an incomplete message that were taken."""
        return self._begun_size

    def next(self) -> Buffer | None:
        """The next message if it is complete, perhaps as a view of a chunk. Raises `StreamBroken`
        for one that is too large, before it has come, or compressed."""
        if not self._begun_size:
            if not self._chunks:
                return None
            # Most come as one chunk, alone.
            data = self._chunks[0][0]
            size = len(data) - _HEAD
            if size >= 0 and PREFIX.unpack_from(data) == (0, size):
                self._take_chunk()
                return data[_HEAD:]
        while self._begun_size < self._need():
            if not self._chunks:
                return None
            if chunk := self._take_chunk():
                self._begun.append(chunk)
                self._begun_size += len(chunk)
        return self._take()

    def _take_chunk(self) -> Buffer:
        data, flow_size = self._chunks.popleft()
        self._uncredited += flow_size
        if self._uncredited >= (CREDIT if self._chunks else LEAST_CREDIT):
            self._credit(self._uncredited)
            self._uncredited = 0
        return data

    def _need(self) -> int:
        """Bytes that must have been taken before the next step."""
        if self._begun_size < _HEAD:
            return _HEAD
        if len(self._begun[0]) < _HEAD:
            self._begun = [b"".join(self._begun)]
        compressed, size = PREFIX.unpack_from(self._begun[0])
        if size > MAX_MESSAGE:
            raise StreamBroken(StreamEnd(*too_large(size)))
        if compressed:
            raise StreamBroken(StreamEnd(UNIMPLEMENTED, "grpc: compression is not supported"))
        return _HEAD + int(size)

    def _take(self) -> Buffer:
        """The message. The next one may begin behind it, in the same chunk."""
        *parts, last = self._begun
        rest = self._begun_size - self._need()
        stop = len(last) - rest
        self._begun, self._begun_size = [last[stop:]] if rest else [], rest
        if not parts:
            return last[_HEAD:stop]
        first = memoryview(parts[0])[_HEAD:]
        return b"".join((first, *parts[1:], memoryview(last)[:stop]))


@attrs.frozen
class Keepalive:
    """When an idle connection is checked. Seconds.

    A ping goes out after ``interval`` without any data from the peer, and the connection is given
    up after ``timeout`` without an answer: a vanished peer is noticed within their sum.
    The default interval stays above the five minutes that grpc servers demand unless told
    otherwise; they end the connections of clients that ask more often. Hosts that are gone from
    the network are noticed earlier by the kernel, whose probes grpc does not count: within
    ``vanished``, or 2 if it is less, on idle connections and on those with unanswered data.
    """

    interval: float = 310.0
    timeout: float = 20.0
    vanished: float = 30.0

    def socket_options(self) -> dict[str, int]:
        """The options of a TCP socket, by name.

        Linux counts probes by TCP_KEEPCNT only without TCP_USER_TIMEOUT (RFC 5482), which it
        compares when it sends a probe, and only after the first: hence one interval less.
        """
        probe = max(1, int(self.vanished / 5))
        return {
            "TCP_KEEPIDLE": probe,
            "TCP_KEEPINTVL": probe,
            "TCP_KEEPCNT": 5,
            "TCP_USER_TIMEOUT": max(1000, int((self.vanished - probe) * 1000)),
        }

    def set_options(self, sock: socket.socket) -> None:
        """Set those of a connected socket, which is to send at once what it is given."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in self.socket_options().items():
            option = getattr(socket, name, None)  # (Linux has them all)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


DEFAULT_KEEPALIVE = Keepalive()
