"""Sending the same for as long as it is taken."""

from __future__ import annotations

from collections.abc import Callable

import trio

from tests.support.http2 import ENGAGE, Peer, open_peer

from ._row import Row

BATCH = 100
"""What is sent in one write."""


def flood(
    name: str,
    address: str,
    make: Callable[[Peer], bytes],
    *,
    count: int,
    seconds: float,
    path: str = ENGAGE,
) -> Row:
    """Send what ``make`` gives, ``count`` times or for ``seconds``, on one connection, in requests
    for ``path``."""

    async def send() -> Row:
        began, sent = trio.current_time(), 0
        cut: float | None = None
        async with open_peer(address, path=path) as peer:
            with trio.move_on_after(seconds):
                while sent < count:
                    if not await peer.send(b"".join(make(peer) for _ in range(BATCH))):
                        break
                    sent += BATCH
                    await trio.lowlevel.checkpoint()
            with trio.move_on_after(2):
                await peer.closed.wait()
                cut = trio.current_time() - began
            note = "" if peer.goaway is None else f"GOAWAY with code {peer.goaway}"
        return Row(
            attack=name,
            sent=sent,
            seconds=trio.current_time() - began,
            cut_after=cut,
            note=note,
        )

    return trio.run(send)
