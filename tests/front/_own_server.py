"""What an application finds in the scope of a request that hostler's own server serves."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from hostler._asgi.types import GoneListener, Message, RawHeader, RawHeaders, as_extension


@attrs.define
class FakeServer:
    """Keeps who wants to know that the client goes, in ``told``, and the answers."""

    connection_scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    body: bytes | None = None
    told: list[GoneListener] = attrs.Factory(list)
    answers: list[tuple[int, RawHeaders, bytes]] = attrs.Factory(list)
    """In one step."""
    sent: list[Message] = attrs.Factory(list)
    """In several."""
    received: int = 0

    def tell_gone(self, listener: GoneListener) -> None:
        self.told.append(listener)

    async def receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        self.received += 1
        return {"type": "http.request", "body": self.body or b"", "more_body": False}

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    async def answer(
        self, status: int, headers: RawHeaders, body: bytes, usual: tuple[RawHeader, ...] = ()
    ) -> None:
        await trio.lowlevel.checkpoint()
        self.answers.append((status, [*headers, *usual], body))

    def scope(self, **changes: Any) -> dict[str, Any]:
        made = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/invoke/fn1",
            "raw_path": b"/invoke/fn1",
            "query_string": b"",
            "headers": [(b"host", b"x"), (b"content-length", b"%d" % len(self.body or b""))],
            "extensions": as_extension(self),
        }
        return made | changes
