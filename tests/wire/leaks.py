"""What is alive now, to compare before and after."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable

import trio

from hostler import wire


def asyncio_tasks(loop: wire.Loop) -> int:
    return len(asyncio.all_tasks(loop))


def open_sockets() -> int:
    """Sockets that this process has open."""
    gc.collect()
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except FileNotFoundError:  # the listing's own descriptor
            continue
    return count


def trio_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def settle(count: Callable[[], object], expected: object) -> None:
    """Wait until ``count()`` is ``expected``; the caller has a deadline."""
    while count() != expected:
        await trio.testing.wait_all_tasks_blocked(0.001)
