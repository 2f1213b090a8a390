"""gRPC's health service, as its client sees it: a server tells whether it takes calls.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from ._codec import CodecError
from ._status import UNIMPLEMENTED, UNKNOWN
from ._varint import read_varint

WATCH = "/grpc.health.v1.Health/Watch"
REQUEST = b""
"""A ``HealthCheckRequest`` about the server as a whole, whose ``service`` is empty."""
NO_SERVICE = (UNIMPLEMENTED, UNKNOWN)
"""Statuses of servers without the service; UNKNOWN is how some servers say "no such method"."""

_SERVING = 1
_SERVICE_UNKNOWN = 3
_STATUS = 1
"""Number of the response's field, an enumeration."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Protobuf's wire types."""


def decode_serving(message: bytes) -> bool | None:
    """Whether a ``HealthCheckResponse`` says SERVING; ``None`` if the server doesn't know of the
    whole. Fields that are unknown are skipped. Raises `CodecError`."""
    status = at = 0
    try:
        while at < len(message):
            tag, at = read_varint(message, at)
            if tag == _STATUS << 3 | _VARINT:
                status, at = read_varint(message, at)
            else:
                at = _skip(message, at, tag & 7)
    except IndexError as error:
        raise CodecError("a health response that is cut short") from error
    if at > len(message):
        raise CodecError("a health response that is cut short")
    return None if status == _SERVICE_UNKNOWN else status == _SERVING


def _skip(message: bytes, at: int, kind: int) -> int:
    if kind == _VARINT:
        return read_varint(message, at)[1]
    if kind == _BYTES:
        length, at = read_varint(message, at)
        return at + length
    if kind in (_FIXED32, _FIXED64):
        return at + (4 if kind == _FIXED32 else 8)
    raise CodecError(f"a health response with wire type {kind}")
