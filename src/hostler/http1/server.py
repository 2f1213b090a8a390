"""Server connection: requests of one client in order, each an exchange with an application; limits
and idle connections.

A plain request, as most are, is not given to h11, nor is its response, if that is plain too. h11
learns of such a request (`ServerConnection.catch_up`) as soon as something else is to be done for
it.
"""

from __future__ import annotations

import math
import os
import select
import socket
import struct
from contextlib import suppress
from http.client import responses
from typing import Protocol

import h11
import structlog
import trio

from .._asgi.replies import JSON_TYPE, error_document
from .._asgi.request_body import READ_AHEAD, BodyTimeout
from .._asgi.types import GoneListener, Handler, Message, RawHeader, RawHeaders, Scope, as_extension
from ..config import NodeConfig
from ..protocol import BODY_PIECE
from .disconnects import DisconnectWatcher
from .plain import PlainHead, http_date, write_head, write_response
from .request import (
    ChunkLines,
    Heads,
    RequestHead,
    fault_of,
    framing_fault,
    head_size,
    head_too_large,
)

LOOKS = 64
"""Looks at idle connections in the shorter of their times, at most. So a connection may wait longer
by that part of the time."""


async def close_idle(server: ConnectionOwner) -> None:
    """Close connections that have waited for a request for ``http_idle_timeout``, until cancelled.
    A client that has never sent a request has the time of a head for it, as in Fn, if that is less:
    it connected to send it."""
    later = server.config.http_idle_timeout
    first = min(later, server.config.request_header_read_timeout)
    if math.isinf(first):
        return
    while True:
        # Who begins to wait meanwhile is due in the shorter of the times, or later.
        now = trio.current_time()
        due = now + first
        for connection in server.connections:
            due = min(due, connection.idle_until(later if connection.served else first))
        # Each look costs as much as there are connections: not one look for each of them.
        await trio.sleep_until(max(due, now + first / LOOKS))


log = structlog.get_logger(__name__)

_H11Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]

LINGER_SECONDS = 5.0
LINGER_TOTAL_SECONDS = 30.0

LINGER_BYTES = 64 * 1024 * 1024
"""How long a connection is kept that was answered before its request was complete: until its client
sends nothing for so long, for so long altogether, and for so many bytes. Closed at once, the kernel
would reset it, and who writes all before he reads would get no answer. (The times are nginx's.)"""

LINGER_DRAIN_SECONDS = 1.0
"""The same in a drain."""

PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
FIRST_PROBE_SECONDS = 0.1

PROBE_SECONDS = 1.0
"""What a client is sent whose side has ended while its request is served, and when: one that has
gone resets the connection for it. Others skip it: clients of HTTP/1.1 have to, and this is the one
interim response that all know. Not at once, so that those who wait for short calls never see it;
and again, since nothing tells that a client goes whose side has ended before. Where none may be
sent, the response does the same, and a client counts as gone if it gets none of it for so long."""

FIRST_SECONDS = 1.0
"""How long a connection that has just been made is kept in a drain for its first request."""


class ConnectionOwner(Protocol):
    """The server, as a connection sees it."""

    config: NodeConfig
    draining: bool
    connections: set[ServerConnection]
    disconnects: DisconnectWatcher
    heads: Heads

    def handler(self, head: RequestHead) -> Handler: ...


class ServerConnection:
    """Serves the requests of one client, one after the other.

    `idle` connections may be closed without harm by `close_if_idle`.
    """

    def __init__(self, client: ClientSocket, owner: ConnectionOwner) -> None:
        self._client = client
        self.owner = owner
        self._h11: h11.Connection | None = None
        self.idle = True
        self._idle_since = trio.current_time()
        self.served = False
        """There was a request, if only a part of it."""
        self.scope = trio.CancelScope()
        """Its end. While there is a request only the application cancels it."""
        self._ending = False
        """The wait for a request has an end, by a drain or since it was long."""
        self._last: tuple[PlainHead, RequestHead] | None = None
        self._head: _H11Event = h11.NEED_DATA
        self._raw_head = b""
        """The same, as it was sent."""
        self._unseen: PlainHead | None = None
        """Of the present request, if h11 knows nothing of it."""
        self._lingering: trio.CancelScope | None = None
        self.peer = client.peer
        self.fd = client.fd
        self.probe_at = math.inf
        self._exchange: ServerExchange | None = None
        self._ended = False
        """The client sends nothing any more."""
        self._sending = False
        """It does not take what it is sent, for the moment."""
        self._sent = self._sent_before = 0
        """How often it was sent something: now, and when it was asked last."""
        self._gone = False
        self._on_gone: list[GoneListener] = []

    @property
    def h11(self) -> h11.Connection:
        """Made when it is needed: many connections never do."""
        if self._h11 is None:
            self._h11 = h11.Connection(
                h11.SERVER, max_incomplete_event_size=self.owner.heads.max_head
            )
        return self._h11

    def _has_more(self) -> bool:
        """Whether h11 has bytes behind the present request."""
        return self._h11 is not None and bool(self._h11.trailing_data[0])

    async def run(self) -> None:
        """Serve until either side is done. An error in it never leaves it."""
        unread = False
        """Of a request that was answered as it was cut off."""
        self.owner.connections.add(self)
        try:
            self.owner.disconnects.add(self)
            if self.owner.draining:  # accepted at the last moment
                self.close_if_idle()
            while True:
                with self.scope:
                    while (exchange := await self._next()) is not None:
                        self.served = True
                        self._exchange = exchange
                        try:
                            await exchange.run()
                        finally:
                            unread = exchange.answered and not exchange.is_read
                            self._forget(exchange)
                        if self.owner.draining or not exchange.reusable:
                            if exchange.answered:
                                await self._linger(complete=exchange.is_read)
                            return
                        if self._unseen is None:
                            self.h11.start_next_cycle()
                        unread = False
                        self.idle = True
                    return
                if not self.idle or self._ending:
                    break
                # An agent has ended while it was answered: the client was not told of an end.
                self.scope = trio.CancelScope()
            if unread and not self._gone:
                with trio.move_on_after(LAST_SECONDS, shield=True):
                    await self._linger()
        except OSError as error:
            log.debug("connection lost", reason=str(error))
        except Exception:  # one client must not end the others
            log.exception("connection failed")
        finally:
            self.owner.connections.discard(self)
            self.owner.disconnects.remove(self)
            self._client.close()

    def _forget(self, exchange: ServerExchange) -> None:
        """It has ended, in whatever way."""
        self._exchange = None
        self._on_gone.clear()
        self.probe_at = math.inf
        if not exchange.answered and exchange.looks_complete:
            self._client.reset_on_close()

    def end(self) -> None:
        """The time for a drain is over: break off what is served. What was not answered at all
        until then gets an answer."""
        self._ending = True
        self.scope.cancel()

    @property
    def ends(self) -> bool:
        """Whether what is served was cancelled while its client is there."""
        return self.scope.cancel_called and not self._gone

    def note_end(self, reset: bool) -> None:
        """See `Watched`."""
        self._ended = True
        if reset:
            self._note_gone()
        elif self._on_gone:
            asks = self._exchange is not None and self._exchange.takes_interim
            seconds = FIRST_PROBE_SECONDS if asks else PROBE_SECONDS
            self._sent_before = self._sent
            self.owner.disconnects.probe_later(self, seconds)

    def _note_gone(self) -> None:
        self._gone = True
        for listener in self._on_gone:
            listener.note_gone()
        self._on_gone.clear()

    def probe(self) -> None:
        """Find out whether the client has gone: then the news comes as a reset."""
        sent, self._sent_before = self._sent_before, self._sent
        there = sent != self._sent or self._sending
        if self._exchange is not None and self._exchange.takes_interim:
            try:
                there = self._client.send_now(PROBE) in (0, len(PROBE))
            except ClientGone:
                there = False
        if there:
            self.owner.disconnects.probe_later(self, PROBE_SECONDS)
        else:
            self._note_gone()

    def tell_gone(self, listener: GoneListener) -> None:
        """Tell ``listener`` when the client goes while the present request lasts; at once if it
        has.

        One that ends its side, and does no more, has not gone, unless that can't be found out: it
        speaks HTTP/1.0, or its response has begun, and there is no more of it for a while."""
        if self._gone:
            listener.note_gone()
            return
        self._on_gone.append(listener)
        if self._ended:
            self.note_end(False)

    def close_if_idle(self) -> None:
        """Close it if no request is there. The first one may still be on its way; of later ones
        clients know that the connection may be closed before (RFC 9112, section 9.5)."""
        if self._lingering is not None:
            end = trio.current_time() + LINGER_DRAIN_SECONDS
            self._lingering.deadline = min(self._lingering.deadline, end)
            return
        if not self.idle or self._has_more() or self._client.is_readable():
            return
        self._ending = True
        if not self.served:
            self.scope.deadline = trio.current_time() + FIRST_SECONDS
        else:
            self.scope.cancel()

    def idle_until(self, seconds: float) -> float:
        """When it will have waited for a request for so long. Close it if that is over, unless a
        request is there unread, since the process stood still."""
        if not self.idle or self._ending:
            return math.inf
        until = self._idle_since + seconds
        if trio.current_time() < until:
            return until
        self.give_way()
        return math.inf

    def give_way(self) -> bool:
        """Close it if it waits for a request, and none is here unread. Whether it does."""
        if not self.idle or self._ending or self._client.is_readable():
            return False
        self.idle = False
        self._ending = True
        self.scope.cancel()
        return True

    @property
    def worth(self) -> tuple[bool, float]:
        """Grows with what an idle connection is worth: whether it ever had a request, and when."""
        return self.served, self._idle_since

    async def _next(self) -> ServerExchange | None:
        """The next request; ``None`` if there is none or it can't be answered otherwise than by
        the error that was sent."""
        self._unseen = None
        if self._h11 is not None and self._has_more():
            await trio.lowlevel.checkpoint_if_cancelled()
            self._begins()
            return await self._by_h11()
        # The first has most often come with the connection.
        data = None if self.served else self._client.read_now()
        if data is None:
            self._idle_since = trio.current_time()
            data = await self._client.read()
            if self._ending and self.scope.cancel_called:
                return None
        self._begins()
        if not data:
            return None
        if (plain := self._plain(data)) is not None:
            return plain
        self.h11.receive_data(data)
        return await self._by_h11()

    def _plain(self, data: bytes) -> ServerExchange | None:
        """``data`` if it is one plain request, or the begin of one, and nothing else."""
        found = self._last
        if found is None or not data.startswith(found[0].raw):
            found = self._last = self.owner.heads.read(data)
            if found is None:
                return None
        plain, head = found
        body = data[len(plain.raw) :]
        left = plain.length - len(body)
        if left < 0:
            return None
        self._unseen = plain
        return ServerExchange(self, head, body, left, plain.closes)

    async def _by_h11(self) -> ServerExchange | None:
        """The next request, of which h11 has got some."""
        try:
            self._read_head()
            with trio.move_on_after(self.owner.config.request_header_read_timeout) as waiting:
                while self._head is h11.NEED_DATA:
                    self.h11.receive_data(await self._client.read())
                    self._read_head()
            if waiting.cancelled_caught:
                await self._refuse(408, "Request header read timed out")
                return None
        except h11.RemoteProtocolError as error:
            await self._refuse(*fault_of(error, self.owner.heads.max_head))
            return None
        event = self._head
        if not isinstance(event, h11.Request):
            return None
        # h11 refuses only what grows over the limit before it is complete.
        if head_size(event) > self.owner.heads.max_head:
            await self._refuse(431, head_too_large(self.owner.heads.max_head))
            return None
        if (fault := framing_fault(event, self._raw_head)) is not None:
            await self._refuse(*fault)
            return None
        return ServerExchange(self, RequestHead.of(event, self.owner.heads.scheme))

    def _begins(self) -> None:
        self.idle = False
        if self._ending:
            self._ending = False
            self.scope.deadline = math.inf

    def catch_up(self, left: int) -> None:
        """Let h11 have the present request from here on: what it has to know of it, and how much
        of its body is ``left``."""
        head, self._unseen = self._unseen, None
        assert head is not None
        closes = b"connection: close\r\n" if head.closes else b""
        self.h11.receive_data(
            b"%b / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%b\r\n"
            % (head.method, left, closes)
        )
        self.h11.next_event()
        if not left:
            self.h11.next_event()

    def _read_head(self) -> None:
        """Have h11 read a head of what it has got."""
        before = self.h11.trailing_data[0]
        self._head = self.h11.next_event()
        self._raw_head = before[: len(before) - len(self.h11.trailing_data[0])]

    async def _refuse(self, status: int, text: str) -> None:
        """Answer what is no request, and let go."""
        if self.h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = error_document(text)
        headers = [(b"content-type", JSON_TYPE), (b"content-length", b"%d" % len(body))]
        data = write_response(status, headers, body, closes=True)
        assert data is not None
        await self.send_all(data)
        await self._linger()

    async def read(self, most: int = BODY_PIECE) -> bytes:
        """What the client sends next, up to ``most`` bytes; b"" at its end. Raises `ClientGone`."""
        return await self._client.read(most)

    async def send_last(self, data: bytes) -> None:
        """The end of a response: like `send_all`, but no turn of the scheduler if the kernel takes
        it all at once. What comes after it, the wait for the next request, is one."""
        if self._gone:
            await trio.lowlevel.checkpoint()
        self._sent += 1
        sent = self._client.send_now(data)
        if sent < len(data):
            await self.send_all(memoryview(data)[sent:])

    async def send_all(self, data: bytes | memoryview) -> None:
        """Raises `ClientGone`, also if the client does not take it in time."""
        await trio.lowlevel.checkpoint()
        self._sent += 1
        sent = self._client.send_now(data)
        if sent == len(data):  # as nearly always: it needs no limit
            return
        limit = self.owner.config.response_write_timeout
        rest = memoryview(data)[sent:]
        self._sending = True
        try:
            while rest:
                received = self._client.received
                with trio.move_on_after(limit) as waiting:
                    await trio.lowlevel.wait_writable(self.fd)
                # One that still sends its request may not read before it has sent it all.
                if waiting.cancelled_caught and self._client.received == received:
                    raise ClientGone(f"the client took no data for {limit} s")
                rest = rest[self._client.send_now(rest) :]
        finally:
            self._sending = False
            self._sent += 1

    async def _linger(self, *, complete: bool = False) -> None:
        """Let the client read its answer before the connection goes, if it still sends. It does
        unless its request is ``complete``, or h11 says so."""
        complete = complete or self.h11.their_state in (h11.DONE, h11.CLOSED, h11.MUST_CLOSE)
        if complete and not self._has_more() and not self._client.holds_data():
            return
        self._client.send_eof()
        received = 0
        with trio.move_on_after(LINGER_TOTAL_SECONDS) as self._lingering:
            if self.owner.draining:
                self.close_if_idle()
            while received < LINGER_BYTES:
                with trio.move_on_after(LINGER_SECONDS) as quiet:
                    received += len(data := await self._client.read())
                if quiet.cancelled_caught or not data:
                    return


LAST_SECONDS = 1.0
"""How long a client has for the answer that its request has ended with a drain's time."""


class ServerExchange:
    """One request and its response: the two callables that ASGI wants, and an `OwnServer`.

    ``plain_body`` is there if the request is plain: what has come of its body, of which ``left``
    bytes are to come. h11 knows nothing of it then, and ``closes`` says whether it is the last of
    its connection."""

    # (Most stay as they are.)
    _body_given = False
    _status = 0
    _fields: RawHeaders
    _begun = False
    _late = False
    _bad_body: h11.RemoteProtocolError | None = None
    _continuing: trio.Event | None = None
    _chunk_lines: ChunkLines | None = None
    """Of a chunked body."""
    _due: int | None = None
    """Bytes of body that the response still has to have, if its head was plain."""
    answered = False
    """The response is complete."""

    def __init__(
        self,
        connection: ServerConnection,
        head: RequestHead,
        plain_body: bytes | None = None,
        left: int = 0,
        closes: bool = False,
    ) -> None:
        self._connection = connection
        self._head = head
        self._plain = plain_body is not None
        self._closes = closes
        self._left = left
        self._body_here = self._plain and not left
        self._chunks: list[bytes] = [plain_body] if plain_body and left else []
        self.body = None if left else plain_body
        self.connection_scope = connection.scope
        self.tell_gone = connection.tell_gone

    @property
    def looks_complete(self) -> bool:
        """A part of the response may have been sent, whose end is the end of the connection."""
        return not self.answered and self._begun and self._head.version == "1.0"

    @property
    def takes_interim(self) -> bool:
        """Whether an interim response may be sent: the response has not begun."""
        return not self._begun and self._head.version != "1.0"

    @property
    def is_read(self) -> bool:
        """The client has nothing more to say of this request, for all that is known here."""
        return self._plain and self._body_here

    @property
    def reusable(self) -> bool:
        if not self.answered:
            return False
        if self._plain:
            return self._body_here and not self._closes
        http = self._connection.h11
        return http.our_state is h11.DONE and http.their_state is h11.DONE

    async def run(self) -> None:
        """Let the application answer. Raises `ClientGone`."""
        if not self._body_here:
            await self._take_small_body()
        head = self._head
        try:
            handler = head.handler
            if handler is None:
                handler = head.handler = self._connection.owner.handler(head)
            await handler(self)
        except ClientGone:
            raise
        except Exception:
            log.exception("the application failed")
            await self._last_resort(500, "internal server error")
        except trio.Cancelled:
            if self._connection.ends:
                with trio.move_on_after(LAST_SECONDS, shield=True), suppress(ClientGone):
                    await self._last_resort(503, "The server is shutting down")
            raise
        else:
            if self._bad_body is not None:
                await self._last_resort(self._bad_body.error_status_hint, str(self._bad_body))

    async def _take_small_body(self) -> None:
        """That of a call is taken whole before the application is asked, so that a client which is
        slow to send it costs little more than one which is slow with its head. Others have limits
        of their own."""
        config = self._connection.owner.config
        try:
            if not self._plain:
                if any(name == b"transfer-encoding" for name, _ in self._head.fields):
                    self._chunk_lines = ChunkLines()
                    self._chunk_lines.check(self._connection.h11.trailing_data[0])
                self._pull()
            if not self._body_here and self._declared() <= min(
                READ_AHEAD, config.max_request_size or READ_AHEAD
            ):
                with trio.move_on_after(config.request_body_read_timeout) as waiting:
                    while not self._body_here:
                        await self._more_body()
                self._late = waiting.cancelled_caught
        except h11.RemoteProtocolError as error:
            self._bad_body = error
        except ClientGone:
            self._body_given = True
        if self._body_here:
            self.body = b"".join(self._chunks)

    def _declared(self) -> float:
        """Bytes of the body; infinite if they are not known, or will not come by themselves."""
        if not self._head.target.startswith(CALL_PATHS) or self._waits_for_100:
            return math.inf
        lengths = (value for name, value in self._head.fields if name == b"content-length")
        return int(next(lengths, 0)) or math.inf

    @property
    def _waits_for_100(self) -> bool:
        return not self._plain and self._connection.h11.they_are_waiting_for_100_continue

    def scope(self) -> Scope:
        return self._head.scope(self._connection.peer, as_extension(self))

    async def receive(self) -> Message:
        """The next piece of the body; after it, and after trouble with it, the disconnect.

        Raises `BodyTimeout` for a small body that was late."""
        if self._late:
            raise BodyTimeout
        try:
            while not self._chunks and not self._body_given:
                if self._body_here:
                    break
                await self._more_body()
        except (h11.RemoteProtocolError, ClientGone) as error:
            if isinstance(error, h11.RemoteProtocolError):
                self._bad_body = error
            self._body_given = True
            return {"type": "http.disconnect"}
        if self._body_given:
            if not self.answered and self._bad_body is None:
                await self._wait_gone()
            return {"type": "http.disconnect"}
        body = b"".join(self._chunks) if self.body is None else self.body
        self._chunks.clear()
        self._body_given = self._body_here
        return {"type": "http.request", "body": body, "more_body": not self._body_here}

    async def _more_body(self) -> None:
        if self._bad_body is not None:
            raise self._bad_body
        if self._plain:
            data = await self._connection.read(min(self._left, BODY_PIECE))
            if self._plain:  # the response may have become h11's meanwhile
                self._take(data)
                return
            self._connection.h11.receive_data(data)
            self._pull()
            return
        if self._waits_for_100 and not self._begun:
            self._continuing = trio.Event()
            try:
                response = h11.InformationalResponse(status_code=100, headers=[])
                await self._connection.send_all(self._connection.h11.send(response) or b"")
            finally:
                self._continuing.set()
        data = await self._connection.read()
        if self._chunk_lines is not None:
            self._chunk_lines.check(data)
        self._connection.h11.receive_data(data)
        self._pull()

    def _take(self, data: bytes) -> None:
        """The next piece of a plain body."""
        if not data:
            text = f"peer closed connection, {self._left} bytes short of the body"
            raise h11.RemoteProtocolError(text)
        self._chunks.append(data)
        self._left -= len(data)
        self._body_here = not self._left

    def _pull(self) -> None:
        """Take the part of the body that h11 already has."""
        while not self._body_here and not self._plain:
            event = self._connection.h11.next_event()
            if isinstance(event, h11.Data):
                self._chunks.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._body_here = True
            else:
                return

    async def _wait_gone(self) -> None:
        """Return when the client has closed its side. What it sends is its next request, and is
        not looked at."""
        gone = _Gone()
        self._connection.tell_gone(gone)
        await gone.event.wait()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            # (Each may be a list, too.)
            self._fields = [(name, value) for name, value in message.get("headers", ())]
            await trio.lowlevel.checkpoint_if_cancelled()  # the body is sent next
            return
        assert self._status, "a body came before the response's start"
        assert not self.answered, "a body came after the response's end"
        body, more = message.get("body", b""), message.get("more_body", False)
        if not more and not self._begun:
            await self.answer(self._status, self._fields, body)
            return
        data = self._plain_piece(body, more=more)
        if data is None:
            data = self._encode(body, more=more)
        if not data:
            await trio.lowlevel.checkpoint()
        elif more:
            if self._continuing is not None:
                await self._continuing.wait()
            await self._connection.send_all(data)
        else:
            await self._connection.send_last(data)
        self.answered = not more

    async def answer(
        self, status: int, headers: RawHeaders, body: bytes, usual: tuple[RawHeader, ...] = ()
    ) -> None:
        data: bytes | None = None
        if self._plain:
            closes = self._note_close()
            data = write_response(status, headers, body, usual=usual, closes=closes)
        if data is None:
            self._status, self._fields = status, [*headers, *usual]
            data = self._encode(body, more=False)
            if self._continuing is not None:
                await self._continuing.wait()
        self._begun = True
        await self._connection.send_last(data)
        self.answered = True

    def _note_close(self) -> bool:
        """Whether the connection ends with this answer."""
        self._closes = self._closes or self._connection.owner.draining or not self._body_here
        return self._closes

    def _plain_piece(self, body: bytes, *, more: bool) -> bytes | None:
        """The next part of a plain response, of which the head tells the length."""
        if not self._plain:
            return None
        data = body
        if not self._begun:
            found = write_head(self._status, self._fields, closes=self._note_close())
            if found is None:
                return None
            head, self._due = found
            self._begun = True
            data = head + body
        assert self._due is not None
        self._due -= len(body)
        if self._due < 0 or (self._due and not more):
            raise RuntimeError("the body of a response is not as long as its head says")
        return data

    def _complete_head(self) -> None:
        if not any(name.lower() == b"date" for name, _ in self._fields):
            self._fields.append((b"date", http_date()))
        if not self._body_here or self._connection.owner.draining:
            self._fields.append((b"connection", b"close"))

    def _encode(self, body: bytes, *, more: bool) -> bytes:
        """The next part of the response, by h11."""
        if self._plain:
            self._plain = False
            self._connection.catch_up(self._left)
        events: list[h11.Event] = []
        if not self._begun:
            self._complete_head()
            reason = reason_of(self._status)
            head = h11.Response(status_code=self._status, headers=self._fields, reason=reason)
            self._begun = True
            events.append(head)
        if body and not self._bodiless():
            events.append(h11.Data(data=body))
        if not more:
            events.append(h11.EndOfMessage())
        return b"".join(data for event in events if (data := self._connection.h11.send(event)))

    def _bodiless(self) -> bool:
        return self._head.method == b"HEAD" or self._status in (204, 304)

    async def _last_resort(self, status: int, text: str) -> None:
        if not self._begun:
            body = error_document(text)
            headers = [(b"content-type", JSON_TYPE), (b"content-length", b"%d" % len(body))]
            await self.answer(status, headers, body)


class _Gone:
    def __init__(self) -> None:
        self.event = trio.Event()

    def note_gone(self) -> None:
        self.event.set()


def reason_of(status: int) -> bytes:
    """The reason phrase; empty if HTTP has none for it."""
    return responses.get(status, "").encode("ascii")


Address = tuple[str, int]


class ClientGone(OSError):
    """The client has closed the connection, or did not take a part of its response in time."""


class ClientSocket:
    """A client's socket, without Trio's stream around it. It belongs to one task, which is the only
    one to wait for it, and closes it.

    A stream sets options of each socket that Linux lets it inherit, tries before it waits, and
    takes turns of the scheduler to be closed: that was two thirds of what a new connection
    cost."""

    def __init__(self, sock: socket.socket, peer: Address | None) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.received = 0
        """Bytes."""

    def read_now(self, most: int = BODY_PIECE) -> bytes | None:
        """What is here, up to ``most`` bytes, b"" at the client's end, ``None`` if nothing is.
        Raises `ClientGone`."""
        try:
            data = os.read(self.fd, most)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ClientGone("the client has gone") from error
        self.received += len(data)
        return data

    async def read(self, most: int = BODY_PIECE) -> bytes:
        """What comes next, up to ``most`` bytes; b"" at the client's end. Raises `ClientGone`.
        Cancelled, it has taken nothing."""
        # It does not try before it waits: mostly there is nothing yet.
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            data = self.read_now(most)
            if data is not None:
                return data

    def send_now(self, data: bytes | memoryview) -> int:
        """How many bytes of it the kernel has taken. Raises `ClientGone`."""
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone("the client has gone") from error

    def is_readable(self) -> bool:
        """Whether something has arrived: bytes, or the end."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def holds_data(self) -> bool:
        """Whether bytes have arrived that were not read."""
        if not self.is_readable():
            return False
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def send_eof(self) -> None:
        """Nothing more is sent. Raises `OSError`."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset_on_close(self) -> None:
        """Make the coming end of the connection one that can't be taken for that of a response."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """At once: nobody waits for it (Trio need not be told), and what was sent still goes out.
        Idempotent."""
        self._sock.close()


UNLIMITED_HEAD_BYTES = 1_048_576
"""Bytes of a request head without a limit of one's own: that of Go's server, hence of Fn's."""

INVOKE_PATH = "/invoke/"
TRIGGER_PATH = "/t/"

CALL_PATHS = (INVOKE_PATH.encode(), TRIGGER_PATH.encode())
"""Beginnings of the targets that call functions."""
