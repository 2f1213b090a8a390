"""ASGI types, lifespan, and the extension of hostler's own server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

import trio

Scope = MutableMapping[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeader = tuple[bytes, bytes]
RawHeaders = list[RawHeader]


def decode_header(value: bytes) -> str:
    """The text of a header's value.

    UTF-8 if it is that, since values travel as UTF-8 to runners and come out there as the same
    bytes; else the Latin-1 of old HTTP.
    """
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


_NAME = "hostler.server"


class GoneListener(Protocol):
    """Wants to know that the client of a request goes."""

    def note_gone(self) -> None:
        """It has gone. Must not block or raise."""
        ...


class OwnServer(Protocol):
    """An extension in the scope of each of its requests, found by `own_server`."""

    connection_scope: trio.CancelScope
    """The connection's, with which an application may end itself when the client goes: it spares
    each request a scope of its own."""
    body: bytes | None
    """The request's whole body, if it is here. Only for those who have got `receive`: another one
    may be of an application in between that wants to see the body, or to change it."""

    def scope(self) -> Scope:
        """A new scope of the request."""
        ...

    def tell_gone(self, listener: GoneListener) -> None:
        """Tell ``listener`` when the client goes while its request is served; at once if it has
        gone. With it nobody has to wait in ``receive`` for ``http.disconnect``."""
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


Handler = Callable[[OwnServer], Awaitable[None]]
"""Serves a request whose head it knows. Its body and its answer it has from the server."""


class HeadReader(ABC):
    """An ASGI application that need not be called for each request: most have the same head as
    others. Asked only where it is the server's own application, with nobody in between."""

    @abstractmethod
    def handler(self, scope: Scope) -> Handler | None:
        """What serves all requests with this head, each instead of a call of the application;
        ``None`` = it has to be called."""


def head_reader(app: object) -> HeadReader | None:
    """``app`` if its handlers do what a call of it does. Who wraps a `HeadReader` and passes its
    attributes on, or inherits from one and has another ``__call__``, wants to be called."""
    called = next((each for each in type(app).__mro__ if "__call__" in vars(each)), object)
    return app if isinstance(app, HeadReader) and "handler" in vars(called) else None


def own_server(scope: Scope) -> OwnServer | None:
    """``None`` if the request is served by another one."""
    extensions = scope.get("extensions")  # (ASGI lets it be absent or None)
    found: OwnServer | None = extensions.get(_NAME) if extensions else None
    return found


def as_extension(server: OwnServer) -> dict[str, object]:
    """The extensions of a scope."""
    return {_NAME: server}


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Say that it is done to a server's beginning and to its end, then return."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
