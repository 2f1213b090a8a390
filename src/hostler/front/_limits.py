"""Limits on what a client may send, and how long it may take."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import trio

from hostler.config import NodeConfig

_Ts = TypeVarTuple("_Ts")

UNLIMITED_HEAD_BYTES = 1_048_576
"""Bytes of a request head without a limit of one's own: that of Go's server, hence of Fn's."""


def head_limit(config: NodeConfig) -> int:
    """Bytes of a request head."""
    return config.max_request_header_size or UNLIMITED_HEAD_BYTES


async def within(seconds: float, function: Callable[[*_Ts], Awaitable[None]], *args: *_Ts) -> bool:
    """Whether ``function`` ended in time. No time limit costs nothing."""
    if math.isinf(seconds):
        await function(*args)
        return True
    with trio.move_on_after(seconds) as scope:
        await function(*args)
    return not scope.cancelled_caught
