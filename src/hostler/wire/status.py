"""gRPC status numbers and trailers, and how broken streams map to them.

Status numbers are plain ints here, not an enumeration: Fn's runners send 503.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
from grpclib.const import Status
from grpclib.metadata import decode_grpc_message, encode_grpc_message
from h2.errors import ErrorCodes

from ..errors import HostlerError

OK = Status.OK.value
CANCELLED = Status.CANCELLED.value
UNKNOWN = Status.UNKNOWN.value
DEADLINE_EXCEEDED = Status.DEADLINE_EXCEEDED.value
RESOURCE_EXHAUSTED = Status.RESOURCE_EXHAUSTED.value
UNIMPLEMENTED = Status.UNIMPLEMENTED.value
INTERNAL = Status.INTERNAL.value
UNAVAILABLE = Status.UNAVAILABLE.value
UNAUTHENTICATED = Status.UNAUTHENTICATED.value
PERMISSION_DENIED = Status.PERMISSION_DENIED.value

MAX_MESSAGE = 4 * 2**20
"""Bytes. grpc-go's default limit for a received message, which Fn's peers keep."""

CLIENT_HEADER = "hostler-lb"
"""By which our load balancers name themselves, so that a runner knows which calls are whose."""

CONTENT_TYPE = "application/grpc"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"

HeaderList = list[tuple[str, str]]

# https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
_OF_HTTP = {
    "400": INTERNAL,
    "401": UNAUTHENTICATED,
    "403": PERMISSION_DENIED,
    "404": UNIMPLEMENTED,
    "429": UNAVAILABLE,
    "502": UNAVAILABLE,
    "503": UNAVAILABLE,
    "504": UNAVAILABLE,
}

# "Errors" in https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
_OF_RESET = {
    ErrorCodes.REFUSED_STREAM: UNAVAILABLE,
    ErrorCodes.CANCEL: CANCELLED,
    ErrorCodes.ENHANCE_YOUR_CALM: RESOURCE_EXHAUSTED,
    ErrorCodes.INADEQUATE_SECURITY: PERMISSION_DENIED,
}

_MOST_TIMEOUT = 99_999_999
"""Eight digits: "Requests" in https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md"""


def encode_timeout(seconds: float) -> str:
    """The value of ``grpc-timeout``. Rounded up to a millisecond (as grpc-go rounds), so that the
    peer never gives up before we do; grpclib's own drops up to a second."""
    milliseconds = max(1, math.ceil(seconds * 1000))
    if milliseconds <= _MOST_TIMEOUT:
        return f"{milliseconds}m"
    return f"{min(math.ceil(seconds), _MOST_TIMEOUT)}S"


def status_of_reset(error_code: int) -> int:
    """The gRPC status of a stream that ended with this HTTP/2 error code."""
    return _OF_RESET.get(error_code, INTERNAL)  # type: ignore[call-overload, no-any-return]


def status_of_end(headers: Mapping[str, str], trailers: Mapping[str, str]) -> tuple[int, str]:
    """(status, text) of a stream that ended by itself. ``trailers`` may be empty."""
    last = trailers or headers
    number = last.get("grpc-status")
    if number is not None and number.isascii() and number.isdigit():
        return int(number), decode_grpc_message(last.get("grpc-message", ""))
    if number is not None:
        return UNKNOWN, f"malformed grpc-status: {number[:40]!r}"
    return bad_response(headers) or (INTERNAL, "the stream ended without a grpc-status")


def bad_response(headers: Mapping[str, str]) -> tuple[int, str] | None:
    """(status, text) if ``headers`` start no gRPC response, as from a proxy."""
    http = headers.get(":status", "")
    if http != "200":
        return _OF_HTTP.get(http, UNKNOWN), f"unexpected HTTP status {http!r}"
    content_type = headers.get("content-type", "")
    if not is_grpc(content_type):
        return UNKNOWN, f"unexpected content-type {content_type[:80]!r}"
    return None


def is_grpc(content_type: str) -> bool:
    """Whether ``content_type`` is that of gRPC with protobuf messages."""
    base = content_type.partition(";")[0].strip()
    return base in (CONTENT_TYPE, f"{CONTENT_TYPE}+proto")


def trailers(status: int, text: str) -> HeaderList:
    """The trailers that end a stream."""
    fields = [("grpc-status", str(status))]
    if text:
        # A lone surrogate, as of an undecodable file name, must not break the status.
        text = text.encode("utf-8", "replace").decode()
        fields.append(("grpc-message", encode_grpc_message(text)))
    return fields


RESPONSE_HEADERS: HeaderList = [(":status", "200"), ("content-type", CONTENT_TYPE)]
RESPONSE_BLOCK = b"\x88\x0f\x10" + bytes((len(CONTENT_TYPE),)) + CONTENT_TYPE.encode()

OK_BLOCK = b"\x00\x0bgrpc-status\x010"
"""`RESPONSE_HEADERS`, and the trailers of `OK`, as header blocks that are the same whatever was
sent before: of the static table and of literals that are not indexed (RFC 7541, sections 6.1 and
6.2.2)."""

UNDECODABLE = "grpc: failed to unmarshal the received message"


def too_large(size: int) -> tuple[int, str]:
    """(status, text) for a message of ``size`` bytes; the text is grpc-go's."""
    return RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size} vs. {MAX_MESSAGE})"


@attrs.frozen
class StreamEnd:
    """Why a stream ended before its regular end."""

    status: int
    text: str
    unprocessed: bool = False
    """The peer proved that it did not look at the stream (RFC 9113, section 8.7)."""


class StreamBroken(HostlerError):
    """The stream is over before its regular end."""

    def __init__(self, broken: StreamEnd) -> None:
        self.broken = broken
        super().__init__(broken.text)


class PeerFinished(HostlerError):
    """The peer has finished the stream; there is nobody to send to."""


def broken_by_reset(error_code: int) -> StreamEnd:
    """What a reset by the peer means, of a stream or of a call on a shared one; ``error_code`` is
    that of HTTP/2."""
    try:
        name = ErrorCodes(error_code).name
    except ValueError:
        name = f"error code {error_code}"
    return StreamEnd(
        status_of_reset(error_code),
        f"stream reset by the peer: {name}",
        unprocessed=error_code == ErrorCodes.REFUSED_STREAM,
    )
