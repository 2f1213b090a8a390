"""Protobuf's variable-length integers, for what is not left to betterproto."""

from __future__ import annotations

from functools import lru_cache

from ._buffers import Buffer

SHORT = [bytes((value,)) for value in range(0x80)]
"""The values of one byte, for those whom a function call costs too much."""
_MORE = [bytes((value | 0x80,)) for value in range(0x80)]
"""Bytes that others follow."""


def varint(value: int) -> bytes:
    """``value``, which must not be negative, in groups of seven bits."""
    if value < 0x80:
        return SHORT[value]
    if value < 0x4000:
        return _MORE[value & 0x7F] + SHORT[value >> 7]
    if value < 0x20_0000:
        return _MORE[value & 0x7F] + _MORE[value >> 7 & 0x7F] + SHORT[value >> 14]
    if value < 0x1000_0000:
        low = value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14 & 0x7F | 0x80
        return bytes((*low, value >> 21))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


sized = lru_cache(maxsize=1024)(varint)
"""As `varint`, for lengths of what is sent, which are often the same."""


def read_varint(data: Buffer, at: int) -> tuple[int, int]:
    """(value, position after it). Raises IndexError at the end of ``data``, or of 64 bits."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    byte = data[at + 1]
    value &= 0x7F
    at += 2
    shift = 7
    while byte > 0x7F:
        if shift > 56:
            raise IndexError(at)
        value |= (byte & 0x7F) << shift
        byte = data[at]
        at += 1
        shift += 7
    return value | byte << shift, at


class Unusual(ValueError):
    """Not one of the shapes that are known here. (Undecodable text is a ValueError, too.)"""


def inside(data: Buffer, at: int, end: int) -> int:
    """Where the value begins whose length stands at ``at`` and which ends at ``end``."""
    size, at = read_varint(data, at)
    if at + size != end:
        raise Unusual
    return at
