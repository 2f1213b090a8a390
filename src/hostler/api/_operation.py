"""What the API's description says of one route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import msgspec


@attrs.frozen
class Query:
    """A parameter of the query. It is text unless it is a ``number``."""

    name: str
    text: str
    required: bool = False
    number: bool = False


@attrs.frozen
class Link:
    """What can be done next with an answer: ``operation`` is the id of another one.

    ``parameters`` and ``body`` name fields of the answer, by the name of what they are for there.
    """

    operation: str
    parameters: Mapping[str, str] = attrs.Factory(dict)
    body: Mapping[str, str] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class Operation:
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
    links: Sequence[Link] = ()


PAGE = (
    Query("cursor", "The `next_cursor` of the page before."),
    Query(
        "per_page", "Items on a page: 30, if this is no number over 0; 100 at most.", number=True
    ),
)
"""The query parameters of every list."""
