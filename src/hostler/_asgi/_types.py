"""The types of ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/www.html), as far as needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

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
