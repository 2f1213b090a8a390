"""The requests of a front end as spans."""

from __future__ import annotations

from hostler._asgi import ASGIApp, Message, RawHeaders, Receive, Scope, Send
from hostler._spans import PARENT, STATE, TraceContext, Tracer, ending, request_span, trace_of

RECORDED = ("/invoke", "/t", "/v2")
"""First parts of the paths that are worth a span: not those that somebody polls."""

_PARENT, _STATE = PARENT.lower().encode(), STATE.lower().encode()
_CALL_ID = b"fn-call-id"


def traced_app(app: ASGIApp, tracer: Tracer | None) -> ASGIApp:
    """``app``, each of whose requests is a span, and the parent of what is done for it.

    ``app`` finds the span in the request's ``traceparent``. All requests are recorded, also
    those of a trace that its beginner does not sample (as in Fn).
    """
    if tracer is None:
        return app

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        first = "/" + scope["path"][1:].partition("/")[0] if scope["type"] == "http" else ""
        if first not in RECORDED:
            await app(scope, receive, send)
            return
        headers: RawHeaders = list(scope["headers"])
        context, is_given = _context_of(headers)
        method = scope["method"]
        span = tracer.start(
            f"{method} {first}",
            {"http.request.method": method, "url.path": scope["path"]},
            parent=context.parent if is_given else "",
            kind="server",
        )
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found = dict(message.get("headers", ()))
                span.note({"http.response.status_code": status})
                if _CALL_ID in found:
                    span.note({"fn.call_id": found[_CALL_ID].decode()})
            await send(message)

        own = [(_PARENT, span.traceparent.encode())]
        if is_given and context.state:
            own.append((_STATE, context.state.encode()))
        kept = [pair for pair in headers if pair[0] not in (_PARENT, _STATE)]
        token = request_span.set(span)
        try:
            with ending(span):
                await app({**scope, "headers": [*kept, *own]}, receive, noting)
                if status >= 500:
                    span.end(f"status {status}")
                elif not status:
                    span.end("no answer")
        finally:
            request_span.reset(token)

    return traced


def _context_of(headers: RawHeaders) -> tuple[TraceContext, bool]:
    """The context of a request, and whether it is the client's."""
    values: dict[str, list[str]] = {PARENT: [], STATE: []}
    for name, value in headers:
        if name in (_PARENT, _STATE):
            values[name.decode().capitalize()].append(value.decode("latin-1"))
    context = trace_of(values)
    return context, context.parent in values[PARENT]
