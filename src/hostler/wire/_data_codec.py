"""Messages with a piece of a body, by hand: see `_engage_codec` for the why.

``ClientMsg`` and ``RunnerMsg`` have their ``DataFrame`` under the same number, so one function each
way serves both directions.
"""

from __future__ import annotations

from hostler.protocol import Data

from ._buffers import Buffer
from ._varint import Unusual, inside, read_varint, sized

DATA_ARM = 0x12  # `data` of both
_DATA_FIELD = 0x0A  # DataFrame.data
_EOF_FIELD = b"\x10\x01"  # DataFrame.eof, true
_NO_DATA = {False: b"\x12\x00", True: b"\x12\x02" + _EOF_FIELD}
"""A whole message, by ``eof``."""


def encode_data(frame: Data) -> bytes:
    """The message."""
    data = frame.data
    if not data:
        return _NO_DATA[frame.eof]
    size = len(data)
    length = sized(size)
    inner = 1 + len(length) + size
    if frame.eof:
        return b"".join((b"\x12", sized(inner + 2), b"\x0a", length, data, _EOF_FIELD))
    return b"".join((b"\x12", sized(inner), b"\x0a", length, data))


def around_data(size: int, eof: bool) -> tuple[bytes, bytes]:
    """What stands before and behind ``size`` bytes of data (there are some) in their message."""
    tail = _EOF_FIELD if eof else b""
    length = sized(size)
    inner = sized(1 + len(length) + size + len(tail))
    return b"".join((b"\x12", inner, b"\x0a", length)), tail


def decode_data(data: Buffer) -> Data:
    """A message that begins with `DATA_ARM`. Raises `Unusual` or IndexError for other shapes than
    encoders normally write."""
    end = len(data)
    at = inside(data, 1, end)
    size = 0
    if at < end and data[at] == _DATA_FIELD:
        size, at = read_varint(data, at + 1)
    stop = at + size
    if stop == end:
        return Data(bytes(data[at:]))
    if data[stop:] == _EOF_FIELD:
        return Data(bytes(data[at:stop]), eof=True)
    raise Unusual
