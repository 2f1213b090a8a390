"""The types of ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/www.html), as far as needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

ON_DISCONNECT = "hostler.on_disconnect"
"""An extension in a request's scope: ``scope["extensions"][ON_DISCONNECT]["call"](told)`` has
``told`` called, which must not block or raise, when the client goes while its request is served;
at once if it has gone. With it nobody has to wait in ``receive`` for ``http.disconnect``.
``scope["extensions"][ON_DISCONNECT]["scope"]`` is the cancel scope of the connection, with which an
application may end itself then: it spares each request a scope of its own."""

WHOLE_BODY = "hostler.whole_body"
"""An extension in a request's scope: the first ``receive`` gives the whole body, without a wait."""

MEMO = "hostler.memo"
"""An extension in a request's scope: a dictionary that is the same for all requests of a connection
with the same head. For what applications make of a head; each has a key of its own, and looks
whether others that are called before it have changed the scope."""


def decode_header(value: bytes) -> str:
    """The text of a header's value.

    UTF-8 if it is that, since values travel as UTF-8 to runners and come out there as the same
    bytes; else the Latin-1 of old HTTP.
    """
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
