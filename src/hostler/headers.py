"""HTTP header names: the canonical form, and which headers stop at each hop."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from .protocol import Headers

__all__ = [
    "HOP_BY_HOP",
    "SECRET",
    "TOKEN",
    "are_canonical",
    "canonical_header",
    "canonical_headers",
    "end_to_end",
    "end_to_end_pairs",
    "have_secret",
]

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
"""What a method or the name of a header is (RFC 9110, section 5.6.2)."""

_CACHE_SIZE = 4096
_CACHED_LENGTH = 64
"""Names come from clients, so the cache needs a bound for their number and for their length;
honest traffic has some hundred, and none as long."""

HOP_BY_HOP = frozenset(
    {
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Te",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
    }
)
"""Canonical names of the headers that are about one connection (RFC 9110, section 7.6.1, and
older documents). ``Te: trailers`` alone is forwarded nevertheless."""

SECRET = frozenset(
    prefix + name
    for prefix in ("", "fn-http-h-")
    for name in (
        "authentication-info",
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
        "x-amz-security-token",
        "x-api-key",
        "x-auth-token",
        "x-csrf-token",
    )
)
"""Names in lower case of headers that are not to stay in memory once their exchange is over; also
where they are those of the function's own exchange."""


def have_secret(headers: Headers) -> bool:
    """Whether one of ``headers`` is `SECRET`."""
    return any(name.lower() in SECRET for name, _ in headers)


def canonical_header(name: str) -> str:
    """``content-TYPE`` -> ``Content-Type``, by the rules of Go's ``net/textproto``.

    The first letter and each one after a hyphen become upper case, the others lower case. A name
    that is no token (RFC 9110) is returned as it is.
    """
    return _cached(name) if len(name) <= _CACHED_LENGTH else _canonical(name)


def _canonical(name: str) -> str:
    if not TOKEN.fullmatch(name):
        return name
    return "-".join(word[:1].upper() + word[1:].lower() for word in name.split("-"))


_cached = lru_cache(maxsize=_CACHE_SIZE)(_canonical)


def are_canonical(names: Collection[str]) -> bool:
    """Whether all of ``names`` are as `canonical_header` makes them."""
    if _known.issuperset(names):
        return True
    for name in names:
        if canonical_header(name) != name:
            return False
    _remember(names)
    return True


def canonical_headers(headers: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """A copy with canonical names; values of names that only differ in case are joined in order."""
    if _known.issuperset(headers):
        return {name: [*values] for name, values in headers.items()}
    copy: dict[str, list[str]] = {}
    for name, values in headers.items():
        canonical = _cached(name) if len(name) <= _CACHED_LENGTH else _canonical(name)
        if canonical in copy:
            copy[canonical].extend(values)
        else:
            copy[canonical] = list(values)
    _remember(copy)
    return copy


_known: set[str] = set()
"""Canonical names, to see at once of a request's headers that they have no others."""


def _remember(canonical: Iterable[str]) -> None:
    if len(_known) > _CACHE_SIZE:
        _known.clear()
    _known.update(name for name in canonical if len(name) <= _CACHED_LENGTH)


def end_to_end(headers: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """A copy of ``headers`` (canonical names) without what is about one connection only.

    Left out are `HOP_BY_HOP` and every header that ``Connection`` names.
    """
    dropped = _dropped(headers.get("Connection", ()))
    return {
        name: list(values)
        for name, values in headers.items()
        if name not in dropped or _is_trailers_te(name, values)
    }


def end_to_end_pairs(pairs: Headers) -> list[tuple[str, str]]:
    """The same for a header list; the names in the result are canonical."""
    named = [(canonical_header(name), value) for name, value in pairs]
    dropped = _dropped(value for name, value in named if name == "Connection")
    return [
        (name, value)
        for name, value in named
        if name not in dropped or _is_trailers_te(name, (value,))
    ]


def _dropped(connection: Iterable[str]) -> frozenset[str]:
    options = [
        canonical_header(option)
        for value in connection
        for part in value.split(",")
        if (option := part.strip(" \t"))
    ]
    return HOP_BY_HOP.union(options) if options else HOP_BY_HOP


def _is_trailers_te(name: str, values: Sequence[str]) -> bool:
    return name == "Te" and list(values) == ["trailers"]
