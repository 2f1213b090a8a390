"""Connections that are opened and kept, until the node has no file descriptor left."""

from __future__ import annotations

import contextlib
import resource

import trio

from ..http2 import opening
from ._row import Row

ABOUT = "opens as many connections as it can, 4 000 at most, and keeps them for 2 s"
SETTLE_SECONDS = 2.0
OWN = 64
"""Descriptors that the attacker keeps for itself."""


def run(address: str, *, count: int = 4_000) -> Row:
    """Attack any port of a node. ``note`` says how many connections the node has kept."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return trio.run(_attack, address, min(count, hard - OWN))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _attack(address: str, count: int) -> Row:
    host, _, port = address.rpartition(":")
    began = trio.current_time()
    opened = closed = 0
    first_closed: float | None = None

    async def keep() -> None:
        nonlocal opened, closed, first_closed
        try:
            async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as stream:
                opened += 1
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(opening())
                    while await stream.receive_some():
                        pass
        except OSError:
            pass
        closed += 1
        first_closed = first_closed or trio.current_time() - began

    with trio.move_on_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(keep)
                await trio.lowlevel.checkpoint()
            await trio.sleep(SETTLE_SECONDS)
            nursery.cancel_scope.cancel()
    return Row(
        attack="descriptors",
        sent=opened,
        seconds=trio.current_time() - began,
        cut_after=first_closed,
        note=f"{count - closed} connections were kept",
    )
