"""The head of the request that a function gets, and of the response that its caller gets."""

from __future__ import annotations

import datetime as dt
import math
import time

import h11

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


def request_head(model: Call, seconds: float) -> h11.Request:
    """The head for ``model``, whose function has ``seconds`` from now. Raises `BadHeader`."""
    headers: list[tuple[bytes, bytes]] = [
        (b"Host", b"localhost"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Fn-Call-Id", model.id.encode()),
        (b"Fn-Deadline", deadline(time.time() + seconds)),
    ]
    for name, values in end_to_end(model.headers).items():
        if name not in _OWN:
            encoded = name.encode()
            headers.extend((encoded, value.encode()) for value in values)
    try:
        return h11.Request(method="POST", target="/call", headers=headers)
    except h11.LocalProtocolError as error:
        raise BadHeader(message=f"Invalid request header: {error}") from error


def deadline(unix_time: float) -> bytes:
    """RFC 3339 in whole seconds, which every function kit can read. Rounded up: the function
    must not believe that it has less time than it really has."""
    moment = dt.datetime.fromtimestamp(math.ceil(unix_time), dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ").encode()


def response_headers(response: h11.Response) -> Headers:
    """The headers of the function's answer that are for its caller."""
    pairs = [(name.decode(), _text(value)) for name, value in response.headers.raw_items()]
    return end_to_end_pairs(pairs)


def content_length(response: h11.Response) -> int | None:
    """The announced size of the body in bytes, if there is one. h11 has checked its form."""
    for name, value in response.headers:
        if name == b"content-length":
            return int(value)
    return None


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
