"""What is logged for a request names it."""

from __future__ import annotations

from structlog.contextvars import bound_contextvars

from hostler._asgi import ASGIApp, Receive, Scope, Send, decode_header, request_id
from hostler._spans import PARENT, trace_of

_PARENT = PARENT.lower()


def naming(app: ASGIApp, rid_header: str) -> ASGIApp:
    """``app``, for whose requests log lines tell the id in the header ``rid_header``, unless that
    is "", and that of their trace, if they have one."""
    rid_header = rid_header.lower()

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        found: dict[str, list[str]] = {rid_header: [], _PARENT: []}
        for name, value in scope["headers"]:
            if (values := found.get(name.decode("latin-1"))) is not None:
                values.append(decode_header(value))
        labels = {}
        if rid_header:
            labels["request_id"] = request_id(found[rid_header])
        context = trace_of({PARENT: found[_PARENT]})
        if context.parent in found[_PARENT]:
            labels["trace_id"] = context.trace_id
        with bound_contextvars(**labels):
            await app(scope, receive, send)

    return named
