"""A request head in the form that calls have."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from hostler._asgi import Scope, decode_header
from hostler.config import parse_seconds
from hostler.errors import APIError
from hostler.headers import canonical_header, end_to_end

TIME_LIMIT = "Fn-Request-Timeout"
"""Request header: how long the client waits. Hostler's own; Fn does not look at it."""


@attrs.frozen
class Head:
    """What the front end wants to know of a request before its body."""

    method: str
    url: str
    """Absolute, with the query; without a ``Host`` only the path."""
    headers: dict[str, list[str]]
    """Canonical names; without those of the connection."""
    length: int | None
    """Bytes of the body, ``None`` = not declared."""

    @classmethod
    def of(cls, scope: Scope) -> Head:
        """Nobody may change what it has: the next request may get the same."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            key = canonical_header(name.decode("latin-1"))
            headers.setdefault(key, []).append(decode_header(value))
        length = headers.get("Content-Length")
        if length is None and "Transfer-Encoding" not in headers and _is_http1(scope):
            declared: int | None = 0
        else:
            declared = int(length[0]) if length and length[0].isdecimal() else None
        return cls(scope["method"], _url(scope, headers), end_to_end(headers), declared)

    def time_limit(self) -> float | None:
        """Seconds that the client waits, ``None`` = does not say. Raises a 400 `APIError` for
        what is no time."""
        values = self.headers.get(TIME_LIMIT)
        if values is None:
            return None
        try:
            (text,) = values
            return parse_seconds(text.strip())
        except ValueError:
            takes = "takes whole seconds or a duration such as 1m30s or 300ms"
            raise APIError(400, f"invalid {TIME_LIMIT} {', '.join(values)!r}: {takes}") from None


def _is_http1(scope: Scope) -> bool:
    return str(scope["http_version"]).startswith("1")


def _url(scope: Scope, headers: Mapping[str, list[str]]) -> str:
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    target = (path + b"?" + query if query else path).decode("latin-1")
    host = (headers.get("Host") or [""])[0]
    return f"{scope['scheme']}://{host}{target}" if host else target
