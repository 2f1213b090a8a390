"""Bytes that are passed on without being copied."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import TypeAlias

Buffer: TypeAlias = bytes | memoryview

PREFIX = Struct(">BI")
"""gRPC's before each message: whether it is compressed, its length."""

LARGE = 16 * 1024
"""Bytes from which on it is worth more code not to copy them."""

HELD = 4
"""How many times its size a view may keep in memory."""


def piece_of(data: bytes, begin: int, stop: int) -> Buffer:
    """A part of ``data``, all of which came at once; a large one is a view of it, but for a small
    share: what waits for its reader, as the rest may not have to, would keep all in memory."""
    size = stop - begin
    if size >= LARGE and HELD * size >= len(data):
        return memoryview(data)[begin:stop]
    return data[begin:stop]


def split(parts: Sequence[Buffer], size: int) -> tuple[list[Buffer], list[Buffer]]:
    """The first ``size`` bytes of ``parts``, and what is behind them."""
    for index, part in enumerate(parts):
        if len(part) > size:
            view = memoryview(part)
            first = [*parts[:index], view[:size]] if size else list(parts[:index])
            return first, [view[size:], *parts[index + 1 :]]
        size -= len(part)
    return list(parts), []
