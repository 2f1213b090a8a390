"""Spans of requests and calls, as middleware and call listeners.

On a load balancer ``place`` is a call from its submission to its end, and each attempt at a runner
is an ``engage`` in it. On a runner ``run`` is the whole call. Its parts are ``container``, the time
until it has one, and ``function``, what the function took. The stages of a launch are parts of
``container``.
"""

from __future__ import annotations

from .._asgi.types import ASGIApp, Message, RawHeaders, Receive, Scope, Send
from .._spans import (
    PARENT,
    STATE,
    Attributes,
    Span,
    TraceContext,
    Tracer,
    ends_span,
    error_text,
    request_span,
    trace_of,
)
from ..abc import CallListener
from ..calls import PendingCall

STAGES = {
    "ctr_prep_ns": "prepare",
    "image_pull_wait_ns": "pull",
    "ctr_create_ns": "create",
    "init_start_ns": "start",
}
"""The spans of a launch by the timing that they come from."""

TRIGGERS_PARENT = f"Fn-Http-H-{PARENT}"


class PlaceSpans(CallListener):
    """The calls of an LB agent."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def note_submit(self, call: PendingCall) -> None:
        call.span = _begin(self._tracer, "place", call)
        _hand_on(call, call.span)

    def note_end(self, call: PendingCall, error: BaseException | None, *, began: bool) -> None:
        if call.span is not None:
            call.span.note({"fn.attempts": call.attempts, "fn.runner": call.runner_address})
            call.span.end("" if error is None else error_text(error))


class RunSpans(CallListener):
    """The calls of a runner's agent."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._parts: dict[PendingCall, Span] = {}
        """The open part of each call: ``container`` or ``function``."""

    def note_submit(self, call: PendingCall) -> None:
        call.span = _begin(self._tracer, "run", call)
        self._parts[call] = call.span.child("container")

    async def before_call(self, call: PendingCall) -> None:
        waiting = self._parts.get(call)
        if waiting is None or call.span is None:
            return
        for timing, began in call.timings.began.items():
            stage = waiting.child(STAGES[timing], at=began)
            stage.end(at=began + getattr(call.timings, timing) / 1e9)
        waiting.note({"fn.cold": bool(call.timings.began)})
        waiting.end()
        self._parts[call] = function = call.span.child("function", kind="client")
        _hand_on(call, function)

    def note_end(self, call: PendingCall, error: BaseException | None, *, began: bool) -> None:
        part = self._parts.pop(call, None)
        if part is None or call.span is None:
            return
        text = "" if error is None else error_text(error)
        part.end(text)
        call.span.end(text)


def _begin(tracer: Tracer, name: str, call: PendingCall) -> Span:
    model = call.model
    parents = model.headers.get(PARENT, [])
    parent = trace_of({PARENT: parents}).parent
    attributes: Attributes = {
        "fn.call_id": model.id,
        "fn.fn_id": model.fn_id,
        "fn.app_id": model.app_id,
        "fn.image": model.image,
        "fn.detached": model.type == "detached",
        "fn.request_id": call.request_id,
    }
    return tracer.start(name, attributes, parent=parent if parent in parents else "")


def _hand_on(call: PendingCall, span: Span) -> None:
    """Make ``span`` the parent of what gets the call: a function's kit and, of a trigger, its
    code, which finds the headers of its own request behind a prefix."""
    headers = call.model.headers
    names = {PARENT, *(name for name in (TRIGGERS_PARENT,) if name in headers)}
    call.model.headers = {**headers, **{name: [span.traceparent] for name in names}}


RECORDED = ("/invoke", "/t", "/v2")
"""First parts of the paths that get a span. Paths that programs poll are left out."""

_PARENT, _STATE = PARENT.lower().encode(), STATE.lower().encode()
_CALL_ID = b"fn-call-id"


def traced_app(app: ASGIApp, tracer: Tracer | None) -> ASGIApp:
    """``app`` with a span for each request. The span is the parent of all work for the request.

    ``app`` finds the span in the request's ``traceparent``. All requests are recorded, also
    requests of a trace that the client does not sample (as in Fn).
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
            with ends_span(span):
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
