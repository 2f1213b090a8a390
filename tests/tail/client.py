"""A client that follows logs, and output for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import trio
import trio.testing

from hostler._asgi.types import Message
from hostler.abc import End, OutputPiece


def output(data: bytes, *, fn: str = "fn", call: str = "call", ends: End = "") -> OutputPiece:
    return OutputPiece("ctr-" + fn, "app", fn, call, data, False, running=not ends, ends=ends)


class Client:
    """One request, whose answer is read a message at a time: an unread one stops the node."""

    def __init__(self, nursery: trio.Nursery, app: Any, query: str = "", **scope: str) -> None:
        self._in, self._receive = trio.open_memory_channel[Message](1)
        self._send, self.messages = trio.open_memory_channel[Message](0)
        self.over = trio.Event()
        request = {"method": "GET", "path": "/logs", "query_string": query.encode(), **scope}
        nursery.start_soon(self._run, app, request)

    async def _run(self, app: Any, scope: Mapping[str, Any]) -> None:
        await app(scope, self._receive.receive, self._send.send)
        self.over.set()

    def leave(self) -> None:
        self._in.send_nowait({"type": "http.disconnect"})

    async def status(self) -> int:
        status: int = (await self.messages.receive())["status"]
        return status

    async def piece(self) -> list[str]:
        """Lines, "lost N", or none: an empty line of the answer."""
        body = (await self.messages.receive())["body"]
        found = [json.loads(line) for line in body.splitlines() if line]
        return [f"lost {line['lost']}" if "lost" in line else line["line"] for line in found]

    async def begin(self) -> None:
        assert await self.status() == 200
        assert await self.piece() == []
