"""Client connection to a function's socket: stale checks, response limits, surplus bytes."""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
import select
import socket
import time

import h11
import structlog
import trio

from ..errors import APIError
from ..headers import (
    HOP_BY_HOP,
    SECRET,
    canonical_header,
    end_to_end,
    end_to_end_pairs,
    have_secret,
)
from ..models import Call
from ..protocol import BODY_PIECE, Headers
from .plain import Pairs, read_response_head, write_fields

log = structlog.get_logger(__name__)

KEEP_ALIVE = 1.0
"""Seconds after which an unused connection is not used again; Fn's value. Function kits close
idle connections after 5 s and more, and a request must not cross with that."""

DEFAULT_MAX_HEAD = 10 * 2**20
"""Bytes of a response head when FN_MAX_HDR_RESPONSE_SIZE is 0: the limit of Go's HTTP client."""

_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)


class FunctionBroke(Exception):
    """The function closed the connection, or what it sent is not HTTP."""


class StaleConnection(FunctionBroke):
    """There is no connection that could carry the request: the function has got nothing of it."""


class HeadTooBig(Exception):
    """The response head is over the limit."""


class ClientConnection:
    """One connection: h11's state machine over a socket. One exchange at a time.

    A plain exchange, as most are, does without h11: it learns of the request (`_catch_up`) if the
    answer is not plain. Pieces of a body never need it.
    """

    def __init__(self, plain: socket.socket, max_head: int) -> None:
        self._plain = plain
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(plain))
        self._arrived = select.poll()
        self._arrived.register(plain, select.POLLIN)
        self._max_head = max_head
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_head)
        self._idle_since = trio.current_time()
        self._head_seen = False
        self._unseen: FunctionRequestHead | None = None
        """Of the request, if h11 knows nothing of it."""
        self._framed = False
        """The pieces of the request's body are not written by h11."""
        self._sent = False
        """All of such a request."""
        self._arrived_body = b""
        """What is here of a plain answer's body and was not received."""
        self._left = 0
        """Bytes that are to come of it."""
        self._interrupted = False
        self.whole_body: bytes | None = None
        """Of an answer that was received, if all of its body came with the head."""
        self.surplus = False
        """Whether the function has sent bytes that are part of no response."""

    def expired(self, now: float) -> bool:
        """Whether it was idle for too long."""
        return now - self._idle_since > KEEP_ALIVE

    def begin(self, head: FunctionRequestHead, body: bytes | None = None) -> bytes:
        """Write the head of a request, and all of it with a ``body``, unless the function has
        closed the connection or sent bytes that nobody has asked for: those would be read as the
        answer. Returns what is left to `write`, as the function has not read enough.

        Raises `StaleConnection` if it has done that. What arrives from here on is the answer:
        HTTP/1.1 has nothing but the order to tell one response from another (RFC 9112, section
        9.3.2)."""
        data = head.without_body() if body is None else head.with_body(body)
        self._framed, self._sent = data is not None, body is not None
        if data is not None:
            self._unseen = head
        else:
            data = self._encode(head, body)
        self._check_quiet()
        try:
            # Not through Trio: no other task runs since the check, nor before the answer is
            # waited for.
            sent = self._plain.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise StaleConnection(str(error)) from error
        return data[sent:] if sent < len(data) else b""

    def _encode(self, head: FunctionRequestHead, body: bytes | None) -> bytes:
        events: list[h11.Event] = [head.event()]
        if body is not None:
            events += [h11.Data(data=body), h11.EndOfMessage()]
        return b"".join(data for event in events if (data := self._h11.send(event)))

    def _catch_up(self, answer: bytes) -> None:
        """Let h11 have the exchange from here on."""
        assert self._unseen is not None
        self._h11.send(self._unseen.event())
        if self._sent:
            self._h11.send(h11.EndOfMessage())
        self._unseen = None
        self._h11.receive_data(answer)

    async def send_piece(self, data: bytes) -> None:
        """Write a piece of the request's body, which is not empty. Raises `FunctionBroke` if the
        function does not read any more. A checkpoint only if it has to wait."""
        if not self._framed:
            await self.write(self._h11.send(h11.Data(data=data)) or b"")
            return
        parts = (b"%x\r\n" % len(data), data, b"\r\n")
        try:
            sent = self._plain.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise FunctionBroke(str(error)) from error
        for part in parts:
            if sent < len(part):
                await self.write(memoryview(part)[sent:])
            sent = max(0, sent - len(part))

    async def send_end(self) -> None:
        """Write the end of the request's body. Raises as `send_piece`."""
        data: bytes | None = b"0\r\n\r\n"
        if self._unseen is None:
            data = self._h11.send(h11.EndOfMessage())
        await self.write(data or b"")
        self._sent = True

    async def write(self, data: bytes | memoryview) -> None:
        """Write ``data`` as it is. Raises as `send_piece`."""
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise FunctionBroke(str(error.__cause__ or error)) from error

    def _check_quiet(self) -> None:
        # Not through Trio: this neither waits nor is a checkpoint.
        if not self._arrived.poll(0):
            return
        try:
            data = self._plain.recv(1, _PEEK)
        except BlockingIOError:
            return
        except OSError as error:
            raise StaleConnection(str(error)) from error
        self.surplus = bool(data)
        raise StaleConnection("sends what it was not asked for" if data else "closed")

    async def receive_head(self) -> ResponseHead:
        """The head of the final response. Raises `FunctionBroke` or `HeadTooBig`, and
        `trio.ClosedResourceError` if it is interrupted."""
        if self._unseen is not None:
            data = await self._read()
            plain = read_response(data, self._max_head)
            if plain is not None:
                head, body = plain
                self._left = (head.length or 0) - len(body)
                if self._left:
                    self._arrived_body = body
                else:
                    self.whole_body = body
                return head
            self._catch_up(data)
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                self._head_seen = True
                self._check_size(event)
                return ResponseHead.of(event)
            if not isinstance(event, h11.InformationalResponse):
                raise FunctionBroke("closed before the response")

    async def receive_body(self) -> bytes:
        """The next piece of a body that was not whole with its head, b"" at its end. Raises
        `FunctionBroke`."""
        if self._unseen is not None:
            return await self._plain_body()
        event = await self._next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return b""
        raise FunctionBroke("closed within the response")

    async def _plain_body(self) -> bytes:
        if self._arrived_body:
            data, self._arrived_body = self._arrived_body, b""
            return data
        if not self._left:
            return b""
        # No more than is its own: what comes behind it is surplus.
        data = await self._read(min(self._left, BODY_PIECE))
        if not data:
            raise FunctionBroke("closed within the response")
        self._left -= len(data)
        return data

    def skip_received(self) -> None:
        """Drop what has arrived of a body that nobody wants."""
        try:
            while isinstance(self._h11.next_event(), h11.Data):
                pass
        except h11.RemoteProtocolError:
            pass  # then `finish` refuses to reuse the connection

    def finish(self, now: float) -> bool:
        """Get ready for the next exchange, as one is over ``now``; false if there can't be one.

        There can't if the request was not completely written, if either side asked for a close,
        or if there are bytes beyond the end of the response.
        """
        if self._unseen is None:
            self.surplus = bool(self._h11.trailing_data[0])
            if self.surplus or (
                self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE
            ):
                return False
            self._h11.start_next_cycle()
            self._head_seen = False
        elif not self._sent or self._left:
            return False
        self._unseen = self.whole_body = None
        self._idle_since = now
        return True

    def interrupt(self) -> None:
        """Have `receive_head` raise `trio.ClosedResourceError` if it waits, or would have to. The
        connection is of no use after that, but open."""
        self._interrupted = True  # for who has been woken already, and finds that more is to come
        trio.lowlevel.notify_closing(self._plain)

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
                self._h11.receive_data(await self._read())
            elif isinstance(event, h11.Event):
                return event
            else:
                raise FunctionBroke("answers beyond the end of its response")

    async def _read(self, most: int = BODY_PIECE) -> bytes:
        try:
            # Not through Trio's stream, which tries before it waits: there is nothing yet.
            while True:
                if self._interrupted:
                    await trio.lowlevel.checkpoint_if_cancelled()  # where a body is read
                    raise trio.ClosedResourceError
                await trio.lowlevel.wait_readable(self._plain)
                try:
                    return self._plain.recv(most)
                except BlockingIOError:
                    continue
        except OSError as error:
            raise FunctionBroke(str(error)) from error


_OWN = frozenset({"Content-Length", "Fn-Call-Id", "Fn-Deadline", "Host"})
"""Headers of the client that the agent's own replace. The body is a stream of unknown length,
as in Fn, so that the client's ``Content-Length`` is no use either."""

_CACHED_LINE = 256
"""Characters of a header that is kept as it is written: most requests have those of another one."""

_NOT_KEPT = frozenset(map(canonical_header, SECRET))

_CACHED_HEAD, _CACHED_HEADS = 1024, 256
"""Bytes of a response's head that is kept with what it says, which most responses share, and how
many of them."""

_PLAIN_ID = re.compile(r"[0-9A-Za-z_-]+", re.ASCII)

_HEAD = (
    b"POST /call HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    b"Fn-Call-Id: %b\r\nFn-Deadline: %b\r\n%b\r\n"
)

_REQUEST = _HEAD + b"%b0\r\n\r\n"


class BadHeader(APIError, code=400, text="Invalid request header"):
    """A header of the call can't be sent over HTTP."""


class FunctionRequestHead:
    """The head of a request. Raises `BadHeader` if HTTP can't carry it."""

    def __init__(self, model: Call, seconds: float) -> None:
        """For ``model``, whose function has ``seconds`` from now."""
        self._id = model.id
        self._deadline = deadline(time.time() + seconds)
        headers = model.headers
        # (A copy that nearly always is the same.)
        self._headers = headers if HOP_BY_HOP.isdisjoint(headers) else end_to_end(headers)
        self._lines = self._written() if _PLAIN_ID.fullmatch(model.id) else None
        if self._lines is None:
            self.event()  # to find out what is wrong before the function has anything of the call

    def _written(self) -> bytes | None:
        """The call's own headers as they are sent; ``None`` = they are for h11 to write."""
        lines: list[bytes] = []
        for name, values in self._headers.items():
            if name in _OWN:
                continue
            for value in values:
                kept = len(name) + len(value) <= _CACHED_LINE and name not in _NOT_KEPT
                line = _cached_line(name, value) if kept else _line(name, value)
                if line is None:
                    return None
                lines.append(line)
        return b"".join(lines)

    def event(self) -> h11.Request:
        """For h11. Raises `BadHeader`."""
        fields: Pairs = [
            (b"Host", b"localhost"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Fn-Call-Id", self._id.encode()),
            (b"Fn-Deadline", self._deadline),
        ]
        for name, values in self._headers.items():
            if name not in _OWN:
                fields.extend((name.encode(), value.encode()) for value in values)
        try:
            return h11.Request(method="POST", target="/call", headers=fields)
        except h11.LocalProtocolError as error:
            raise BadHeader(message=f"Invalid request header: {error}") from error

    def without_body(self) -> bytes | None:
        """The head as h11 writes it, if that is known. Pieces of a body have to follow."""
        if self._lines is None:
            return None
        return _HEAD % (self._id.encode(), self._deadline, self._lines)

    def with_body(self, body: bytes) -> bytes | None:
        """The whole request as h11 writes it, if that is known."""
        if self._lines is None:
            return None
        return _REQUEST % (
            self._id.encode(),
            self._deadline,
            self._lines,
            b"%x\r\n%b\r\n" % (len(body), body) if body else b"",
        )


def _line(name: str, value: str) -> bytes | None:
    return write_fields([(name.encode(), value.encode())])


_cached_line = functools.lru_cache(maxsize=1024)(_line)


def deadline(unix_time: float) -> bytes:
    """RFC 3339 in whole seconds, which every function kit can read. Rounded up: the function
    must not believe that it has less time than it really has."""
    return _rfc3339(math.ceil(unix_time))


@functools.lru_cache(maxsize=64)  # most calls have that of another one
def _rfc3339(seconds: int) -> bytes:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()


class ResponseHead:
    """The head of a response. ``length`` is the announced size of its body, if there is one."""

    def __init__(self, status: int, fields: Pairs, length: int | None) -> None:
        self.status = status
        self.length = length
        self._fields = fields

    @classmethod
    def of(cls, event: h11.Response) -> ResponseHead:
        # (h11 has checked its form)
        lengths = (int(value) for name, value in event.headers if name == b"content-length")
        return cls(event.status_code, event.headers.raw_items(), next(lengths, None))

    @functools.cached_property
    def for_caller(self) -> Headers:
        """The headers that are for the function's caller."""
        pairs = [(name.decode(), _text(value)) for name, value in self._fields]
        return tuple(end_to_end_pairs(pairs))


def read_response(data: bytes, max_head: int) -> tuple[ResponseHead, bytes] | None:
    """Head and body if ``data`` is one plain response (`read_response_head`), or the begin of one
    with all of its head, which is not longer than ``max_head``, and nothing else."""
    end = data.find(b"\r\n\r\n") + 4
    if not 4 <= end <= max_head:
        return None
    raw = data[:end]
    head = _known_responses.get(raw) or _plain_response(raw)
    if head is None or head.length is None or len(data) - end > head.length:
        return None
    return head, data[end:]


def _plain_response(raw: bytes) -> ResponseHead | None:
    found = read_response_head(raw)
    if found is None:
        return None
    head = ResponseHead(200, *found)
    if len(raw) <= _CACHED_HEAD and not have_secret(head.for_caller):
        if len(_known_responses) >= _CACHED_HEADS:
            _known_responses.clear()
        _known_responses[raw] = head
    return head


_known_responses: dict[bytes, ResponseHead] = {}


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
