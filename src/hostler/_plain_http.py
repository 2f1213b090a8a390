"""HTTP/1.1 messages of the plainest kind, read and written quickly: whole, of known length, with
nothing in their heads that changes what follows. Pure.

Nearly all messages of hot calls are so. All others are h11's: ``None`` here says nothing but that
it has to look. What is taken here h11 takes as well, and understands in the same way, byte for
byte; tests compare the two. That takes a sixth of the time.
"""

from __future__ import annotations

import re
from http.client import responses
from typing import NamedTuple

Pairs = list[tuple[bytes, bytes]]

# Header lines of printable ASCII. All repetitions are possessive: a match takes linear time.
_LINES = rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[ -~]*+\r\n)*+"
_OWN_LINES = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++: (?:[!-~]++(?: ++[!-~]++)*+)?+\r\n)*+")
_REQUEST = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-~]*+) HTTP/1\.1\r\n(%b)\r\n" % _LINES
)
_RESPONSE = re.compile(rb"HTTP/1\.1 200(?: [ -~]*+)?\r\n(%b)\r\n" % _LINES)
_HOST = re.compile(rb"[A-Za-z0-9\-._:]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")

_LENGTH_NAME = b"content-length"
_HARMLESS = frozenset({_LENGTH_NAME, b"host"})
_LOOK_AT = _HARMLESS | {b"transfer-encoding", b"connection", b"upgrade", b"expect"}
"""Headers with a meaning for the connection. Twice the same is not plain."""
_BODILESS = (204, 304)


class PlainRequest(NamedTuple):
    """A request with all of its body. Names are in lower case."""

    method: bytes
    target: bytes
    fields: Pairs
    body: bytes


def read_request(data: bytes, max_head: int) -> PlainRequest | None:
    """``data`` if it is one plain request, and nothing else, after which the connection lives. Its
    head must not be longer than ``max_head``, with a blank before each value."""
    match = _REQUEST.match(data)
    if match is None:
        return None
    fields = _split(match[3])
    found = _framing(fields) if match.end() + len(fields) <= max_head else None
    if found is None or _HOST.fullmatch(found.get(b"host", b"?")) is None:
        return None
    if len(data) - match.end() != int(found.get(_LENGTH_NAME, 0)):
        return None
    lower = [(name.lower(), value) for name, value in fields]
    return PlainRequest(match[1], match[2], lower, data[match.end() :])


def read_response_head(head: bytes) -> tuple[Pairs, int] | None:
    """Headers and length of body of ``head`` if it is that, and no more, of a plain response 200 to
    a POST, after which the connection lives. Names are as they were sent."""
    match = _RESPONSE.fullmatch(head)
    if match is None:
        return None
    fields = _split(match[1])
    found = _framing(fields)
    if found is None or _LENGTH_NAME not in found:
        return None
    return fields, int(found[_LENGTH_NAME])


def write_fields(fields: Pairs) -> bytes | None:
    """Header lines, without the empty one at their end."""
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    # A name or a value with a line end in it would be further headers.
    whole = lines.count(b"\r\n") == len(fields)
    return lines if whole and _OWN_LINES.fullmatch(lines) else None


def write_response(status: int, fields: Pairs, body: bytes) -> bytes | None:
    """A response with its ``body``, to a request that was plain."""
    lines = write_fields(fields)
    if lines is None or not 200 <= status <= 599 or status in _BODILESS:
        return None
    found = _framing(fields)
    if found is None or len(body) != int(found.get(_LENGTH_NAME, -1)):
        return None
    reason = responses.get(status, "").encode("ascii")
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, reason, lines, body)


def _split(lines: bytes) -> Pairs:
    pairs = [line.partition(b":") for line in lines.split(b"\r\n")]
    pairs.pop()  # behind the last line's end
    return [(name, value.strip(b" ")) for name, _, value in pairs]


def _framing(fields: Pairs) -> dict[bytes, bytes] | None:
    """The length and the host, unless something is there that changes the framing, or the fate of
    the connection, or is there twice."""
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        name = name.lower()
        if name in _LOOK_AT:
            if name in found:
                return None
            found[name] = value
    if found.pop(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    if not found.keys() <= _HARMLESS:
        return None
    length = found.get(_LENGTH_NAME)
    return found if length is None or _LENGTH.fullmatch(length) else None
