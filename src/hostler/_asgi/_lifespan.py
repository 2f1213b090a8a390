"""Applications have nothing to do when their server starts and ends, and say so."""

from __future__ import annotations

from ._types import Receive, Send


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Say that it is done to a server's beginning and to its end, then return."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
