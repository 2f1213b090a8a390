"""The head of the request that a function gets, and of the response that its caller gets."""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
import time

import h11

from hostler._plain_http import Pairs, read_response_head, write_fields
from hostler.errors import APIError
from hostler.headers import (
    HOP_BY_HOP,
    SECRET,
    canonical_header,
    end_to_end,
    end_to_end_pairs,
    have_secret,
)
from hostler.models import Call
from hostler.protocol import Headers

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


class BadHeader(APIError):
    """A header of the call can't be sent over HTTP."""

    default_code = 400
    default_message = "Invalid request header"


class RequestHead:
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
