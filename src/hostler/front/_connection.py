"""One HTTP/1.1 connection, one request after the other.

A plain request, as most are, is not given to h11, nor is its response, if that is plain too. h11
learns of such a request (`Connection.catch_up`) as soon as something else is to be done for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import h11
import structlog
import trio

from hostler._asgi import JSON_TYPE, Handler, error_document
from hostler._plain_http import PlainHead
from hostler.config import NodeConfig
from hostler.protocol import BODY_PIECE

from ._dates import http_date
from ._departures import Departures
from ._exchange import LAST_SECONDS, Exchange, reason_of
from ._framing import framing_fault, head_size
from ._idle import IdleWatch
from ._limits import within
from ._request import Heads, RequestHead
from ._socket import ClientGone, ClientSocket

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


class Owner(Protocol):
    """The server, as a connection sees it."""

    config: NodeConfig
    draining: bool
    departures: Departures
    idle_watch: IdleWatch
    heads: Heads

    def handler(self, head: RequestHead) -> Handler: ...


class Connection:
    """Serves the requests of one client, one after the other.

    `idle` connections may be closed without harm by `close_if_idle`.
    """

    def __init__(self, client: ClientSocket, owner: Owner) -> None:
        self._client = client
        self.owner = owner
        self._h11: h11.Connection | None = None
        self.idle = True
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
        self._exchange: Exchange | None = None
        self._ended = False
        """The client sends nothing any more."""
        self._sending = False
        """It does not take what it is sent, for the moment."""
        self._sent = self._sent_before = 0
        """How often it was sent something: now, and when it was asked last."""
        self._gone = False
        self._on_gone: list[Callable[[], None]] = []

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
        """Serve until either side is done. Raises nothing but a cancellation."""
        try:
            self.owner.departures.add(self._client.fd, self._note_end)
            while await self._serve():
                # An agent has ended while it was answered: the client was not told of an end.
                self.owner.idle_watch.remove(self)
                self.scope = trio.CancelScope()
        except OSError as error:
            log.debug("connection lost", reason=str(error))
        finally:
            self.owner.idle_watch.remove(self)
            self.owner.departures.remove(self._client.fd)
            self._client.close()

    async def _serve(self) -> bool:
        """Serve requests; whether there may be more after the end of the scope."""
        unread = False
        """Of a request that was answered as it was cut off."""
        with self.scope:
            while (exchange := await self._next()) is not None:
                self.served = True
                self._exchange = exchange
                try:
                    await exchange.run()
                finally:
                    self._exchange = None
                    unread = exchange.answered and not exchange.is_read
                    self._on_gone.clear()
                    if self._ended:
                        self.owner.departures.forget(self._client.fd)
                    if not exchange.answered and exchange.looks_complete:
                        self._client.reset_on_close()
                if self.owner.draining or not exchange.reusable:
                    if exchange.answered:
                        await self._linger(complete=exchange.is_read)
                    return False
                if self._unseen is None:
                    self.h11.start_next_cycle()
                self.idle = True
            return False
        goes_on = self.idle and not self._ending
        if unread and not (goes_on or self._gone):
            with trio.move_on_after(LAST_SECONDS, shield=True):
                await self._linger()
        return goes_on

    def end(self) -> None:
        """The time for a drain is over: break off what is served. What was not answered at all
        until then gets an answer."""
        self._ending = True
        self.scope.cancel()

    @property
    def ends(self) -> bool:
        """Whether what is served was cancelled while its client is there."""
        return self.scope.cancel_called and not self._gone

    def _note_end(self, reset: bool) -> None:
        self._ended = True
        if reset:
            self._note_gone()
        elif self._on_gone:
            asks = self._exchange is not None and self._exchange.takes_interim
            seconds = FIRST_PROBE_SECONDS if asks else PROBE_SECONDS
            self._sent_before = self._sent
            self.owner.departures.later(self._client.fd, seconds, self._probe)

    def _note_gone(self) -> None:
        self._gone = True
        for told in self._on_gone:
            told()
        self._on_gone.clear()

    def _probe(self) -> None:
        """Find out whether the client has gone: then the news comes as a reset."""
        sent, self._sent_before = self._sent_before, self._sent
        there = sent != self._sent or self._sending
        if self._exchange is not None and self._exchange.takes_interim:
            try:
                there = self._client.send_now(PROBE) in (0, len(PROBE))
            except ClientGone:
                there = False
        if there:
            self.owner.departures.later(self._client.fd, PROBE_SECONDS, self._probe)
        else:
            self._note_gone()

    def tell_gone(self, told: Callable[[], None]) -> None:
        """Call ``told`` (which must not block or raise) when the client goes while the present
        request lasts; at once if it has.

        One that ends its side, and does no more, has not gone, unless that can't be found out: it
        speaks HTTP/1.0, or its response has begun, and there is no more of it for a while."""
        if self._gone:
            told()
            return
        self._on_gone.append(told)
        if self._ended:
            self._note_end(False)

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

    def idle_too_long(self) -> None:
        """No request has come in time; unless it is there unread, since the process stood still."""
        if self._client.is_readable():
            return
        self._ending = True
        self.scope.cancel()

    async def _next(self) -> Exchange | None:
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
            self.owner.idle_watch.add(self)
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

    def _plain(self, data: bytes) -> Exchange | None:
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
        return Exchange(self, head, body, left, plain.closes)

    async def _by_h11(self) -> Exchange | None:
        """The next request, of which h11 has got some."""
        try:
            self._read_head()
            if self._head is h11.NEED_DATA and not await within(
                self.owner.config.request_header_read_timeout, self._rest_of_head
            ):
                await self._refuse(408, "Request header read timed out")
                return None
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint, str(error))
            return None
        event = self._head
        if not isinstance(event, h11.Request):
            return None
        # h11 refuses only what grows over the limit before it is complete.
        if head_size(event) > self.owner.heads.max_head:
            await self._refuse(431, "Receive buffer too long")
            return None
        if (fault := framing_fault(event, self._raw_head)) is not None:
            await self._refuse(*fault)
            return None
        return Exchange(self, RequestHead.of(event))

    def _begins(self) -> None:
        self.idle = False
        self.owner.idle_watch.remove(self)
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

    async def _rest_of_head(self) -> None:
        while self._head is h11.NEED_DATA:
            await self._fill()
            self._read_head()

    async def _fill(self) -> None:
        self.h11.receive_data(await self._client.read())

    async def _refuse(self, status: int, text: str) -> None:
        """Answer what is no request, and let go."""
        if self.h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = error_document(text)
        head = h11.Response(
            status_code=status,
            reason=reason_of(status),
            headers=[
                (b"content-type", JSON_TYPE),
                (b"content-length", b"%d" % len(body)),
                (b"date", http_date()),
                (b"connection", b"close"),
            ],
        )
        data = [self.h11.send(head), self.h11.send(h11.Data(data=body))]
        await self.send_all(b"".join(part for part in data if part))
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
            while True:
                moved = self._client.moved
                if await within(limit, self._client.send_all, rest):
                    return
                # One that still sends its request may not read before it has sent it all.
                if self._client.moved == moved:
                    raise ClientGone(f"the client took no data for {limit} s")
                rest = self._client.unsent
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
