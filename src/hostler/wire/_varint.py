"""Protobuf's variable-length integers, for what is not left to betterproto."""

from __future__ import annotations

SHORT = [bytes((value,)) for value in range(0x80)]
"""The values of one byte, for those whom a function call costs too much."""


def varint(value: int) -> bytes:
    """``value``, which must not be negative, in groups of seven bits."""
    if value < 0x80:
        return SHORT[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 0x20_0000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position after it). Raises IndexError at the end of ``data``, or of 64 bits."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value = shift = 0
    while True:
        if shift > 63:
            raise IndexError(at)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
