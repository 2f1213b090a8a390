"""How a stream ends that does not end by itself."""

from __future__ import annotations

import attrs
from h2.errors import ErrorCodes

from hostler.errors import HostlerError

from ._status import status_of_reset


@attrs.frozen
class Broken:
    """Why a stream ended before its regular end."""

    status: int
    text: str
    unprocessed: bool = False
    """The peer proved that it did not look at the stream (RFC 9113, section 8.7)."""


class StreamBroken(HostlerError):
    """The stream is over before its regular end."""

    def __init__(self, broken: Broken) -> None:
        self.broken = broken
        super().__init__(broken.text)


class PeerDone(HostlerError):
    """The peer has finished the stream; there is nobody to send to."""


def broken_by_reset(error_code: int) -> Broken:
    """What a reset by the peer means, of a stream or of a call on a shared one; ``error_code`` is
    that of HTTP/2."""
    try:
        name = ErrorCodes(error_code).name
    except ValueError:
        name = f"error code {error_code}"
    return Broken(
        status_of_reset(error_code),
        f"stream reset by the peer: {name}",
        unprocessed=error_code == ErrorCodes.REFUSED_STREAM,
    )
