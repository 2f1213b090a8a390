"""What hostler's own server does for applications beside ASGI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import trio

from ._types import Message, RawHeader, RawHeaders, Scope

_NAME = "hostler.server"


class OwnServer(Protocol):
    """An extension in the scope of each of its requests, found by `own_server`."""

    memo: dict[object, Any]
    """The same for all requests with the same head. For what applications make of a head; each has
    a key of its own, and looks whether others that are called before it have changed the scope."""
    connection_scope: trio.CancelScope
    """The connection's, with which an application may end itself when the client goes: it spares
    each request a scope of its own."""
    body: bytes | None
    """The request's whole body, if it is here. Only for those who have got `receive`: another one
    may be of an application in between that wants to see the body, or to change it."""

    def tell_gone(self, told: Callable[[], None]) -> None:
        """Call ``told``, which must not block or raise, when the client goes while its request is
        served; at once if it has gone. With it nobody has to wait in ``receive`` for
        ``http.disconnect``."""
        ...

    async def receive(self) -> Message:
        """The application's ``receive``."""
        ...

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        ...

    async def answer(
        self, status: int, headers: RawHeaders, body: bytes, usual: tuple[RawHeader, ...] = ()
    ) -> None:
        """Send the whole response at once. Only for those who have got `send`, as with `body`.

        ``usual`` are further headers, of which others are likely to have all the same."""
        ...


def own_server(scope: Scope) -> OwnServer | None:
    """``None`` if the request is served by another one."""
    extensions = scope.get("extensions")  # (ASGI lets it be absent or None)
    found: OwnServer | None = extensions.get(_NAME) if extensions else None
    return found


def as_extension(server: OwnServer) -> dict[str, object]:
    """The extensions of a scope."""
    return {_NAME: server}
