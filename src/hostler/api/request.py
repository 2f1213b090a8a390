"""One request to the API, read as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

import attrs
import trio

from .._api_documents import decode
from .._asgi.request_body import BodyBroken, BodyTimeout
from .._asgi.types import RawHeaders, Receive, Scope, decode_header
from ..config import NodeConfig
from ..datastore import Datastore
from ..errors import RequestTooBig

_T = TypeVar("_T")
MAX_BODY_BYTES = 6 * 1024 * 1024
MAX_BODY_SECONDS = 30.0
"""Limits of a request's body, whatever the configuration allows for calls: the node holds and
decodes whole documents, and no valid document is larger."""


@attrs.frozen
class ApiRequest:
    """One request, as its handler gets it."""

    scope: Scope = attrs.field(repr=False)
    """The request as ASGI has it."""
    params: Mapping[str, str]
    """The named parts of the path, decoded."""
    store: Datastore
    """The datastore with the listeners around it."""
    body: bytes = attrs.field(default=b"", repr=False)
    query: Mapping[str, str] = attrs.Factory(dict)
    """The first value of each query parameter."""

    @property
    def method(self) -> str:
        """The HTTP method, in capitals as clients have to send it."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The whole path without the query, decoded; a slash at the end is kept."""
        return str(self.scope["path"])

    def header(self, name: str) -> str:
        """The first header called ``name`` (any case), "" if there is none."""
        wanted = name.lower().encode()
        headers: RawHeaders = self.scope["headers"]
        return next((decode_header(value) for key, value in headers if key == wanted), "")

    def decode(self, type_: type[_T]) -> _T:
        """The body as a document of ``type_``. Raises `hostler.errors.InvalidJSON`."""
        return decode(self.body, type_)


def parse_query(query: bytes) -> dict[str, str]:
    """The first value of each parameter; what is no UTF-8 in them becomes U+FFFD."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return dict(reversed(pairs))


@attrs.frozen
class BodyLimits:
    """How large a body may be (bytes), and how long it may take to arrive (seconds)."""

    size: int = MAX_BODY_BYTES
    seconds: float = MAX_BODY_SECONDS

    @classmethod
    def of(cls, config: NodeConfig) -> BodyLimits:
        return cls(
            size=min(config.max_request_size or MAX_BODY_BYTES, MAX_BODY_BYTES),
            seconds=min(config.request_body_read_timeout, MAX_BODY_SECONDS),
        )

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body.

        Raises `RequestTooBig` (at once if the client said how long it is), `BodyTimeout`, and
        `BodyBroken` if the client goes away before.
        """
        length = _declared_length(scope["headers"])
        if length > self.size:
            raise RequestTooBig.known(length, self.size)
        with trio.move_on_after(self.seconds):
            return await self._gather(receive)
        raise BodyTimeout

    async def _gather(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        held, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise BodyBroken("the client went away before its body was complete")
            chunks.append(message.get("body", b""))
            held += len(chunks[-1])
            if held > self.size:
                raise RequestTooBig
            more = message.get("more_body", False)
        return b"".join(chunks)


def is_json(headers: RawHeaders) -> bool:
    """Whether the request declares a JSON body. Browsers ask before they send JSON to another
    origin. They send some other types without asking."""
    given = next((value for name, value in headers if name == b"content-type"), b"")
    kind = given.partition(b";")[0].strip().lower()
    return kind == b"application/json" or kind.endswith(b"+json")


def _declared_length(headers: RawHeaders) -> int:
    value = next((value for name, value in headers if name == b"content-length"), b"")
    return int(value) if value.isdigit() and len(value) <= 18 else 0
