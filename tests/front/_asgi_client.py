"""Drives an ASGI application by hand, so that a test decides what arrives when."""

from __future__ import annotations

from typing import Any

import trio

from hostler.front import ASGIApp

Pairs = list[tuple[str, str]]


class AsgiRequest:
    """One exchange: the test feeds the request and reads what the application sent."""

    def __init__(
        self,
        path: str = "/invoke/fn1",
        *,
        method: str = "POST",
        headers: Pairs | None = None,
        query: str = "",
        version: str = "1.1",
    ) -> None:
        raw = [(k.lower().encode(), v.encode()) for k, v in headers or []]
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": version,
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": raw,
            "client": ("127.0.0.1", 1),
            "server": None,
        }
        self._feed, self._fed = trio.open_memory_channel[dict[str, Any]](1000)
        self.sent: list[Any] = []
        self.changed = trio.lowlevel.ParkingLot()
        self.received = 0
        self.send_error: OSError | None = None
        """What ``send`` raises from now on: a client that has gone."""

    def body(self, data: bytes = b"", *, more: bool = False) -> AsgiRequest:
        self._feed.send_nowait({"type": "http.request", "body": data, "more_body": more})
        return self

    def disconnect(self) -> None:
        self._feed.send_nowait({"type": "http.disconnect"})

    async def _receive(self) -> dict[str, Any]:
        message = await self._fed.receive()
        self.received += 1
        return message

    async def _send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self.send_error is not None:
            raise self.send_error
        self.sent.append(message)
        self.changed.unpark_all()

    async def run(self, app: ASGIApp) -> AsgiRequest:
        """Until the application returns."""
        await app(self.scope, self._receive, self._send)
        return self

    async def wait_body(self, data: bytes) -> None:
        """Until the response's body so far is ``data``."""
        while self.content != data:
            await self.changed.park()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {k.decode(): v.decode() for k, v in self.sent[0]["headers"]}

    @property
    def content(self) -> bytes:
        return b"".join(m["body"] for m in self.sent if m["type"] == "http.response.body")

    @property
    def complete(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", False)
