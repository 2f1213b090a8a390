"""Protobuf's variable-length integers, for what is not left to betterproto."""

from __future__ import annotations

from functools import lru_cache

from ._buffers import Buffer

SHORT = [bytes((value,)) for value in range(0x80)]
"""The values of one byte, for those whom a function call costs too much."""
_MORE = [bytes((value | 0x80,)) for value in range(0x80)]
"""Bytes that others follow."""
_SECOND = [(byte << 7) - 0x80 for byte in range(0x100)]
_THIRD = [(byte << 14) - 0x4000 for byte in range(0x100)]
"""What a byte in that place adds to what was read before it, whose last bit says that it is there:
most of what needs more than a byte needs no more than these, and is read without arithmetic."""


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
    value += _SECOND[byte]
    if byte < 0x80:
        return value, at + 2
    byte = data[at + 2]
    value += _THIRD[byte]
    at += 3
    shift = 14
    while byte > 0x7F:
        shift += 7
        if shift > 63:
            raise IndexError(at)
        byte = data[at]
        value += (byte << shift) - (0x80 << shift - 7)
        at += 1
    return value, at


class Unusual(ValueError):
    """Not one of the shapes that are known here. (Undecodable text is a ValueError, too.)"""


def inside(data: Buffer, at: int, end: int) -> int:
    """Where the value begins whose length stands at ``at`` and which ends at ``end``."""
    size, at = read_varint(data, at)
    if at + size != end:
        raise Unusual
    return at
