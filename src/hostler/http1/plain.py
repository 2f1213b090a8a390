"""HTTP/1.1 messages of the plainest kind, read and written quickly: whole, of known length, with
nothing in their heads that changes what follows. Pure, but for the date of responses.

Nearly all messages of hot calls are so. All others are h11's: ``None`` here says nothing but that
it has to look. What is taken here h11 takes as well, and understands in the same way, byte for
byte; tests compare the two. That takes a sixth of the time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http.client import responses
from typing import NamedTuple

from ..headers import SECRET

Pair = tuple[bytes, bytes]
Pairs = list[Pair]

# Header lines of printable ASCII. All repetitions are possessive: a match takes linear time.
_LINES = rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[ -~]*+\r\n)*+"
_OWN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++: (?:[!-~]++(?: ++[!-~]++)*+)?+\r\n"
_OWN_LINE, _OWN_LINES = re.compile(_OWN), re.compile(rb"(?:%b)*+" % _OWN)
_REQUEST = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE|OPTIONS) (/[!\"$-~]*+) HTTP/1\.1\r\n(%b)\r\n" % _LINES
)
_RESPONSE = re.compile(rb"HTTP/1\.1 200(?: [ -~]*+)?\r\n(%b)\r\n" % _LINES)
_HOST = re.compile(rb"[A-Za-z0-9\-._:]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_LENGTH_NAME = b"content-length"
_HARMLESS = frozenset({_LENGTH_NAME, b"host"})
_LOOK_AT = _HARMLESS | {b"transfer-encoding", b"connection", b"upgrade", b"expect"}
"""Headers with a meaning for the connection. Twice the same is not plain."""
_SECRET = frozenset(name.encode() for name in SECRET)
_CHANGING = frozenset({_LENGTH_NAME, b"date", b"fn-call-id"}) | _SECRET
"""Headers that are hardly ever the same in the next response, or ought not to be."""
_BODILESS = (204, 304)
_MAX_KNOWN, _MAX_KNOWN_SIZE, _MAX_USUAL_SIZE = 512, 256, 1024
"""Header lines that are remembered, and how long one and all of a response may be."""


class PlainHead(NamedTuple):
    """The head of a request. Names are in lower case."""

    raw: bytes
    """With the empty line at its end."""
    method: bytes
    target: bytes
    fields: Pairs
    length: int
    """Bytes of the body that follows."""
    closes: bool
    """The connection ends with the answer."""


def read_head(data: bytes, max_head: int) -> PlainHead | None:
    """The head that ``data`` begins with, if it is plain. It must not be longer than ``max_head``,
    with a blank before each value."""
    match = _REQUEST.match(data)
    if match is None:
        return None
    fields = _split(match[3])
    found = _framing(fields) if match.end() + len(fields) <= max_head else None
    if found is None or _HOST.fullmatch(found.get(b"host", b"?")) is None:
        return None
    lower = [(name.lower(), value) for name, value in fields]
    length, closes = int(found.get(_LENGTH_NAME, 0)), b"connection" in found
    return PlainHead(match[0], match[1], match[2], lower, length, closes)


def read_response_head(head: bytes) -> tuple[Pairs, int] | None:
    """Headers and length of body of ``head`` if it is that, and no more, of a plain response 200 to
    a POST, after which the connection lives. Names are as they were sent."""
    match = _RESPONSE.fullmatch(head)
    if match is None:
        return None
    fields = _split(match[1])
    found = _framing(fields)
    if found is None or _LENGTH_NAME not in found or b"connection" in found:
        return None
    return fields, int(found[_LENGTH_NAME])


def write_fields(fields: Pairs) -> bytes | None:
    """Header lines, without the empty one at their end."""
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    # A name or a value with a line end in it would be further headers.
    whole = lines.count(b"\r\n") == len(fields)
    return lines if whole and _OWN_LINES.fullmatch(lines) else None


_last: tuple[int, bytes] = (0, b"")


def http_date() -> bytes:
    """Now, in the form of RFC 9110, section 5.6.7."""
    global _last
    now = int(time.time())
    if _last[0] != now:
        _last = (now, formatdate(now, usegmt=True).encode("ascii"))
    return _last[1]


def write_response(
    status: int,
    fields: Sequence[Pair],
    body: bytes,
    *,
    usual: tuple[Pair, ...] = (),
    closes: bool = False,
) -> bytes | None:
    """A response with its ``body``. Parameters as for `write_head`."""
    found = _head(status, fields, usual, closes)
    if found is None or found[1] != b"%d" % len(body):
        return None
    return b"".join((*found[0], body))


def write_head(
    status: int, fields: Sequence[Pair], *, closes: bool = False
) -> tuple[bytes, int] | None:
    """The head of a response, to a request that was plain, and the length of the body that has to
    follow. Its headers are ``fields``, then, for `write_response`, ``usual``, which is remembered:
    other responses have the same. The date is added unless one of them is that; ``closes`` says
    that the connection ends with it."""
    found = _head(status, fields, (), closes)
    if found is None or not _LENGTH.fullmatch(found[1]):
        return None
    return b"".join(found[0]), int(found[1])


def _head(
    status: int, fields: Sequence[Pair], usual: tuple[Pair, ...], closes: bool
) -> tuple[tuple[bytes, ...], bytes] | None:
    if not 200 <= status <= 599 or status in _BODILESS:
        return None
    found = _usual.get(usual) or _remember_usual(usual)
    lines = _lines(fields)
    if found is None or lines is None:
        return None
    text, length, dated = found
    own_text, own_length, own_dated = lines
    told = own_length if length is None else length
    if told is None or (length is not None and own_length is not None):
        return None
    parts = (
        _status_line(status),
        own_text,
        text,
        b"" if dated or own_dated else b"date: %b\r\n" % http_date(),
        b"connection: close\r\n\r\n" if closes else b"\r\n",
    )
    return parts, told


_Lines = tuple[bytes, bytes | None, bool]
"""Header lines, the body's length, and whether there is a date."""

_usual: dict[tuple[Pair, ...], _Lines] = {}
_known: dict[Pair, bytes] = {}
"""The lines of headers that mean nothing to a connection."""


def _lines(fields: Sequence[Pair]) -> _Lines | None:
    lines: list[bytes] = []
    length: bytes | None = None
    dated = False
    for field in fields:
        line = _known.get(field)
        if line is None:
            name = field[0].lower()
            if name == _LENGTH_NAME and length is None:
                length = field[1]
            elif name in _LOOK_AT:
                return None
            dated = dated or name == b"date"
            line = b"%b: %b\r\n" % field
            if name not in _CHANGING:
                if not _OWN_LINE.fullmatch(line):
                    return None
                _remember(field, line)
            elif not (field[1].isalnum() or _OWN_LINE.fullmatch(line)):
                return None
        lines.append(line)
    return b"".join(lines), length, dated


def _remember(field: Pair, line: bytes) -> None:
    if len(line) <= _MAX_KNOWN_SIZE:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[field] = line


def _remember_usual(fields: tuple[Pair, ...]) -> _Lines | None:
    lines = _lines(fields)
    secret = any(name.lower() in _SECRET for name, _ in fields)
    if lines is not None and len(lines[0]) <= _MAX_USUAL_SIZE and not secret:
        if len(_usual) >= _MAX_KNOWN:
            _usual.clear()
        _usual[fields] = lines
    return lines


@lru_cache(maxsize=512)
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, responses.get(status, "").encode("ascii"))


def _split(lines: bytes) -> Pairs:
    pairs = [line.partition(b":") for line in lines.split(b"\r\n")]
    pairs.pop()  # behind the last line's end
    return [(name, value.strip(b" ")) for name, _, value in pairs]


def _framing(fields: Pairs) -> dict[bytes, bytes] | None:
    """The length and the host, and the connection's header if it is to be closed; ``None`` if
    something else is there that changes the framing, or is there twice."""
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        name = name.lower()
        if name in _LOOK_AT:
            if name in found:
                return None
            found[name] = value
    option = found.pop(b"connection", b"keep-alive").lower()
    if not found.keys() <= _HARMLESS:
        return None
    length = found.get(_LENGTH_NAME)
    if length is not None and not _LENGTH.fullmatch(length):
        return None
    if option != b"keep-alive":
        if option != b"close":
            return None
        found[b"connection"] = option
    return found
