"""Routes and their descriptions."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import attrs
import msgspec

from .._asgi.replies import Reply, error_reply, without_slash
from .._asgi.types import Scope
from ..errors import APIError
from .request import ApiRequest


@attrs.frozen
class Query:
    """A parameter of the query. It is text unless it is a ``number``."""

    name: str
    text: str
    required: bool = False
    number: bool = False


@attrs.frozen
class ResponseLink:
    """What can be done next with an answer: ``operation`` is the id of another one.

    ``parameters`` and ``body`` name fields of the answer, by the name of what they are for there.
    """

    operation: str
    parameters: Mapping[str, str] = attrs.Factory(dict)
    body: Mapping[str, str] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class ApiOperation:
    """One operation of the OpenAPI description.

    ``request`` and ``response`` are the types that the handler decodes and encodes: their
    schemas are made of them.
    """

    id: str
    summary: str
    tag: str
    request: type[msgspec.Struct] | None = None
    response: type[msgspec.Struct] | None = None
    """``None`` = the answer is 204, without a document."""
    errors: Sequence[int] = ()
    """Statuses of errors beside those that every operation may have."""
    query: Sequence[Query] = ()
    links: Sequence[ResponseLink] = ()


PAGE = (
    Query("cursor", "The `next_cursor` of the page before."),
    Query(
        "per_page", "Items on a page: 30, if this is no number over 0; 100 at most.", number=True
    ),
)
"""The query parameters of every list."""

Handler = Callable[[ApiRequest], Awaitable[Reply]]
"""Answers a request. An `hostler.errors.APIError` that it raises is the answer; any other error
is a 500 that tells nothing, and is logged."""

_PARAM = re.compile(r"\{(\w+)(:path)?\}", re.ASCII)
_BODY_METHODS = ("POST", "PUT", "PATCH")


@attrs.frozen
class Route:
    """A method on a path.

    ``path`` is the whole path. ``{name}`` stands for one part of it that is not empty,
    ``{name:path}`` at the end for all the rest, with its leading slash.
    """

    method: str
    path: str
    handler: Handler
    operation: ApiOperation | None = None
    """Its entry in the API's description; ``None`` = no entry."""

    @property
    def takes_body(self) -> bool:
        """Whether the body of a request is read before the handler is called: POST, PUT and
        PATCH."""
        return self.method in _BODY_METHODS


@attrs.frozen
class Match:
    """The route of a request."""

    route: Route
    params: dict[str, str]


class Router:
    """Finds the route of a request. Earlier routes come first.

    Raises `ValueError` for two routes with the same method and path.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._patterns = [(_pattern(route.path), route) for route in self.routes]
        taken: set[tuple[str, str]] = set()
        for route in self.routes:
            place = route.method, _PARAM.sub("{}", route.path)
            if place in taken:
                raise ValueError(f"two routes for {route.method} {route.path}")
            taken.add(place)

    def find(self, scope: Scope) -> Match | Reply:
        """The route, or the answer that there is none: 404, 405, or a redirect to the form
        without a trailing slash."""
        path, method = scope["path"], scope["method"]
        known: set[str] = set()
        for pattern, route in self._patterns:
            if match := pattern.fullmatch(path):
                if method == route.method:
                    return Match(route, match.groupdict())
                known.add(route.method)
        if known:
            error = APIError(405, f"Method not allowed: {method} {path}")
            return error_reply(error, [(b"allow", ", ".join(sorted(known)).encode())])
        if path.endswith("/") and self._knows(path.removesuffix("/")):
            return without_slash(scope)
        return error_reply(APIError(404, f"Path not found: {method} {path}"))

    def _knows(self, path: str) -> bool:
        return any(pattern.fullmatch(path) for pattern, _ in self._patterns)


def _pattern(path: str) -> re.Pattern[str]:
    literals = _PARAM.split(path)
    parts = []
    for index in range(0, len(literals), 3):
        parts.append(re.escape(literals[index]))
        if index + 1 < len(literals):
            name, rest = literals[index + 1 : index + 3]
            parts.append(f"(?P<{name}>/.*)" if rest else f"(?P<{name}>[^/]+)")
    return re.compile("".join(parts), re.DOTALL)
