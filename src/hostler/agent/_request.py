"""The head of the request that a function gets, and of the response that its caller gets."""

from __future__ import annotations

import datetime as dt
import functools
import math
import time

import attrs
import h11

from hostler._plain_http import Pairs, write_fields
from hostler.errors import APIError
from hostler.frames import Headers
from hostler.headers import end_to_end, end_to_end_pairs
from hostler.models import Call

_OWN = frozenset({"Content-Length", "Fn-Call-Id", "Fn-Deadline", "Host"})
"""Headers of the client that the agent's own replace. The body is a stream of unknown length,
as in Fn, so that the client's ``Content-Length`` is no use either."""


class BadHeader(APIError):
    """A header of the call can't be sent over HTTP."""

    default_code = 400
    default_message = "Invalid request header"


@attrs.frozen
class RequestHead:
    """The head of a request. ``lines`` are its headers as they are sent; ``None`` = they are for
    h11 to write."""

    fields: Pairs
    lines: bytes | None

    def event(self) -> h11.Request:
        """For h11. Raises `BadHeader`."""
        try:
            return h11.Request(method="POST", target="/call", headers=self.fields)
        except h11.LocalProtocolError as error:
            raise BadHeader(message=f"Invalid request header: {error}") from error

    def with_body(self, body: bytes) -> bytes | None:
        """The whole request as h11 writes it, if that is known."""
        if self.lines is None:
            return None
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return b"POST /call HTTP/1.1\r\n%b\r\n%b0\r\n\r\n" % (self.lines, chunk)


def request_head(model: Call, seconds: float) -> RequestHead:
    """The head for ``model``, whose function has ``seconds`` from now. Raises `BadHeader`."""
    fields: Pairs = [
        (b"Host", b"localhost"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Fn-Call-Id", model.id.encode()),
        (b"Fn-Deadline", deadline(time.time() + seconds)),
    ]
    for name, values in end_to_end(model.headers).items():
        if name not in _OWN:
            encoded = name.encode()
            fields.extend((encoded, value.encode()) for value in values)
    head = RequestHead(fields, write_fields(fields))
    if head.lines is None:
        head.event()  # to find out what is wrong before the function has anything of the call
    return head


def deadline(unix_time: float) -> bytes:
    """RFC 3339 in whole seconds, which every function kit can read. Rounded up: the function
    must not believe that it has less time than it really has."""
    return _rfc3339(math.ceil(unix_time))


@functools.lru_cache(maxsize=64)  # most calls have that of another one
def _rfc3339(seconds: int) -> bytes:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()


@attrs.frozen
class ResponseHead:
    """The head of a response. ``length`` is the announced size of its body, if there is one."""

    status: int
    fields: Pairs
    length: int | None

    @classmethod
    def of(cls, event: h11.Response) -> ResponseHead:
        # (h11 has checked its form)
        lengths = (int(value) for name, value in event.headers if name == b"content-length")
        return cls(event.status_code, event.headers.raw_items(), next(lengths, None))

    def for_caller(self) -> Headers:
        """The headers that are for the function's caller."""
        return end_to_end_pairs([(name.decode(), _text(value)) for name, value in self.fields])


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
