"""The head of a request, whoever has read it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import attrs
import h11

from hostler._asgi import Handler, Scope
from hostler._plain_http import Pairs, PlainHead, read_head
from hostler.headers import SECRET


@attrs.define
class RequestHead:
    """Names of ``fields`` are in lower case. The next request often has the same."""

    method: bytes
    target: bytes
    fields: Pairs
    version: str
    handler: Handler | None = None
    """What serves requests with it, once that is known."""
    _scope: dict[str, Any] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        target, _, query = self.target.partition(b"?")
        headers = self.fields
        if not target.startswith(b"/") and b"://" in target:  # the absolute form of proxies
            host, _, path = target.split(b"://", 1)[1].partition(b"/")
            target = b"/" + path
            # It counts for more than the header (RFC 9112, section 3.2.2).
            headers = [pair for pair in headers if pair[0] != b"host"]
            headers.append((b"host", host))
        self._scope = {
            "type": "http",
            "http_version": self.version,
            "method": self.method.decode("ascii"),
            "scheme": "http",
            "path": unquote(target.decode("ascii")),
            "raw_path": target,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "server": None,
            "asgi": {},
            "client": None,
            "extensions": {},
        }

    @classmethod
    def of(cls, event: h11.Request) -> RequestHead:
        version = event.http_version.decode("ascii")
        return cls(event.method, event.target, list(event.headers), version)

    @classmethod
    def of_plain(cls, plain: PlainHead) -> RequestHead:
        return cls(plain.method, plain.target, plain.fields, "1.1")

    def scope(self, client: tuple[str, int] | None, extensions: dict[str, object]) -> Scope:
        """A new scope, which belongs to the application."""
        scope = self._scope.copy()
        scope["headers"] = [*scope["headers"]]
        scope["asgi"] = {"version": "3.0", "spec_version": "2.4"}
        scope["client"] = client
        scope["extensions"] = extensions
        return scope


MAX_REMEMBERED = 2048
"""Heads that are kept in case another request, of any connection, has the same."""
MAX_REMEMBERED_SIZE = 2048
"""Bytes of one of them."""
_SECRET = frozenset(name.encode() for name in SECRET)


class Heads:
    """Reads the heads of plain requests: most clients send the same again and again, if only with
    a new connection each time. None is longer than ``max_head``."""

    def __init__(self, max_head: int) -> None:
        self.max_head = max_head
        self._known: dict[bytes, tuple[PlainHead, RequestHead]] = {}

    def read(self, data: bytes) -> tuple[PlainHead, RequestHead] | None:
        """The head that ``data`` begins with; ``None`` if it is not plain."""
        raw = data[: data.find(b"\r\n\r\n", 0, MAX_REMEMBERED_SIZE) + 4]
        known = self._known.get(raw)
        if known is not None:
            return known
        plain = read_head(data, self.max_head)
        if plain is None:
            return None
        known = plain, RequestHead.of_plain(plain)
        if plain.raw == raw and _SECRET.isdisjoint([name for name, _ in plain.fields]):
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[raw] = known
        return known
