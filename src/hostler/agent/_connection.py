"""HTTP/1.1 connections to one function, kept alive from one request to the next."""

from __future__ import annotations

import socket

import h11
import structlog
import trio

from hostler._iofs import FunctionSocket

log = structlog.get_logger(__name__)

KEEP_ALIVE = 1.0
"""Seconds after which an unused connection is not used again; Fn's value. Function kits close
idle connections after 5 s and more, and a request must not cross with that."""

DEFAULT_MAX_HEAD = 10 * 2**20
"""Bytes of a response head when FN_MAX_HDR_RESPONSE_SIZE is 0: the limit of Go's HTTP client."""

_READ_SIZE = 64 * 1024


class FunctionBroke(Exception):
    """The function closed the connection, or what it sent is not HTTP."""


class Stale(FunctionBroke):
    """There is no connection that could carry the request: the function has got nothing of it."""


class HeadTooBig(Exception):
    """The response head is over the limit."""


class Connection:
    """One connection: h11's state machine over a socket. One exchange at a time."""

    def __init__(self, plain: socket.socket, max_head: int) -> None:
        self._plain = plain
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(plain))
        self._max_head = max_head
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_head)
        self._idle_since = trio.current_time()
        self._head_seen = False
        self.surplus = False
        """Whether the function has sent bytes that are part of no response."""

    def __repr__(self) -> str:
        return f"<Connection {self._h11.our_state} {self._h11.their_state}>"

    @property
    def expired(self) -> bool:
        """Whether it was idle for too long."""
        return trio.current_time() - self._idle_since > KEEP_ALIVE

    async def begin(self, *events: h11.Event) -> None:
        """Write the begin of a request, or all of it, unless the function has closed the
        connection or sent bytes that nobody has asked for: those would be read as the answer.

        Raises `Stale` then, and `FunctionBroke` if the function stops to read in the midst of it.
        What arrives from here on is the answer: HTTP/1.1 has nothing but the order to tell one
        response from another (RFC 9112, section 9.3.2).
        """
        data = self._encode(*events)
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_quiet()
        try:
            # The first attempt to write is made at once: no other task runs since the check.
            sent = await self._stream.socket.send(data)
        except OSError as error:
            raise Stale(str(error)) from error
        if sent < len(data):
            await self._write(data[sent:])

    async def send(self, event: h11.Event) -> None:
        """Write a further part of the request. Raises `FunctionBroke` if the function does not
        read any more."""
        await self._write(self._encode(event))

    def _encode(self, *events: h11.Event) -> bytes:
        return b"".join(data for event in events if (data := self._h11.send(event)))

    async def _write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise FunctionBroke(str(error.__cause__ or error)) from error

    def _check_quiet(self) -> None:
        try:
            # Not through Trio: this neither waits nor is a checkpoint.
            data = self._plain.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise Stale(str(error)) from error
        self.surplus = bool(data)
        raise Stale("sends what it was not asked for" if data else "closed")

    async def receive_head(self) -> h11.Response:
        """The head of the final response. Raises `FunctionBroke` or `HeadTooBig`."""
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                self._head_seen = True
                self._check_size(event)
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise FunctionBroke("closed before the response")

    async def receive_body(self) -> bytes:
        """The next piece of the body, b"" at its end. Raises `FunctionBroke`."""
        event = await self._next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return b""
        raise FunctionBroke("closed within the response")

    def skip_received(self) -> None:
        """Drop what has arrived of a body that nobody wants."""
        try:
            while isinstance(self._h11.next_event(), h11.Data):
                pass
        except h11.RemoteProtocolError:
            pass  # then `finish` refuses to reuse the connection

    def finish(self) -> bool:
        """After an exchange: get ready for the next one; false if there can't be one.

        There can't if the request was not completely written, if either side asked for a close,
        or if there are bytes beyond the end of the response.
        """
        self.surplus = bool(self._h11.trailing_data[0])
        if self.surplus or (
            self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE
        ):
            return False
        self._h11.start_next_cycle()
        self._head_seen = False
        self._idle_since = trio.current_time()
        return True

    def close(self) -> None:
        """Close at once. Idempotent."""
        self._stream.socket.close()  # trio's, which wakes who waits on it

    def _check_size(self, head: h11.Response) -> None:
        # h11 looks at what is incomplete only; a head that came in one piece is measured here:
        # each line with its separator and line end.
        size = sum(len(name) + len(value) + 4 for name, value in head.headers)
        if size > self._max_head:
            raise HeadTooBig

    async def _next_event(self) -> h11.Event:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                if error.error_status_hint == 431 and not self._head_seen:
                    raise HeadTooBig from error
                raise FunctionBroke(str(error)) from error
            if event is h11.NEED_DATA:
                await self._read()
            elif isinstance(event, h11.Event):
                return event
            else:
                raise FunctionBroke("answers beyond the end of its response")

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some(_READ_SIZE)
        except trio.BrokenResourceError as error:
            raise FunctionBroke(str(error.__cause__ or error)) from error
        self._h11.receive_data(data)


class Channel:
    """The way to one container's function: at most one connection, made when needed.

    Surplus bytes may come at any time, also when the next request was written and they can't be
    told from its answer. So once a function has sent some, each request gets a new connection.
    """

    def __init__(self, function_socket: FunctionSocket, first: socket.socket, max_head: int):
        self._socket = function_socket
        self._max_head = max_head or DEFAULT_MAX_HEAD
        self._kept: Connection | None = Connection(first, self._max_head)
        self._trusted = True

    def connection(self) -> Connection:
        """A connection for one exchange, to be handed to `settle`.

        Raises `Stale` if the function does not accept one.
        """
        kept, self._kept = self._kept, None
        if kept is not None:
            if not kept.expired:
                return kept
            kept.close()
        return self._connect()

    def replace(self, stale: Connection) -> Connection:
        """A new connection in the place of one that is `Stale`. Raises as `connection`."""
        self.settle(stale, reusable=False)
        return self._connect()

    def settle(self, connection: Connection, *, reusable: bool) -> None:
        """Keep ``connection`` for the next exchange if it is ``reusable`` and there can be one,
        else close it."""
        finished = reusable and connection.finish()
        if connection.surplus and self._trusted:
            self._trusted = False
            log.warning("function sends bytes after its response, or unasked")
        if finished and self._trusted:
            assert self._kept is None
            self._kept = connection
        else:
            connection.close()

    def _connect(self) -> Connection:
        try:
            return Connection(self._socket.connect(), self._max_head)
        except OSError as error:
            raise Stale(str(error)) from error

    def close(self) -> None:
        """Idempotent."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self._socket.close()
