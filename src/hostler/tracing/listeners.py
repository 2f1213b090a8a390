"""Spans of requests and calls, as middleware and call listeners.

On a load balancer ``place`` is a call from its submission to its end (of a detached one: to its
acknowledgement), and each attempt at a runner is an ``engage`` in it. On a runner ``run`` is the
whole call, ``container`` the time until it has one, in which the stages of a launch are parts of
their own if there was one, and ``function`` what the function took.
"""

from __future__ import annotations

from collections.abc import Mapping

from .._asgi import ASGIApp, Message, RawHeaders, Receive, Scope, Send
from .._spans import (
    PARENT,
    STATE,
    Attributes,
    Span,
    TraceContext,
    Tracer,
    ending,
    request_span,
    trace_of,
)
from ..abc import CallAgent, CallListener, RunnerAgent
from ..call import CallOption, PendingCall
from ..errors import ServerBusy
from ..protocol import LoadHint

STAGES = {
    "ctr_prep_ns": "prepare",
    "image_pull_wait_ns": "pull",
    "ctr_create_ns": "create",
    "init_start_ns": "start",
}
"""The spans of a launch by the timing that they come from."""

TRIGGERS_PARENT = f"Fn-Http-H-{PARENT}"


def traced_agent(agent: CallAgent, tracer: Tracer | None) -> CallAgent:
    """An LB agent whose calls are spans, or ``agent`` itself."""
    return agent if tracer is None else _TracedAgent(agent, tracer)


def traced_runner(agent: RunnerAgent, tracer: Tracer | None) -> RunnerAgent:
    """A runner's agent whose calls are spans, or ``agent`` itself."""
    return agent if tracer is None else _TracedRunner(agent, tracer)


class _TracedAgent(CallAgent):
    def __init__(self, inner: CallAgent, tracer: Tracer) -> None:
        self._inner = inner
        self._tracer = tracer

    def get_call(self, *options: CallOption) -> PendingCall:
        return self._inner.get_call(*options)

    async def submit(self, call: PendingCall) -> None:
        span = call.span = _begin(self._tracer, "place", call)
        _hand_on(call, span)
        with ending(span):
            try:
                await self._inner.submit(call)
            finally:
                span.note({"fn.attempts": call.attempts, "fn.runner": call.runner_address})


class _TracedRunner(RunnerAgent):
    def __init__(self, inner: RunnerAgent, tracer: Tracer) -> None:
        self._inner = inner
        self._tracer = tracer
        self._waiting: dict[PendingCall, Span] = {}
        inner.add_listener(_Stages(self._waiting))

    def get_call(self, *options: CallOption) -> PendingCall:
        return self._inner.get_call(*options)

    async def submit(self, call: PendingCall) -> None:
        span = call.span = _begin(self._tracer, "run", call)
        waiting = self._waiting[call] = span.child("container")
        try:
            with ending(span), ending(waiting):
                await self._inner.submit(call)
        finally:
            del self._waiting[call]

    def refuse(self, call: PendingCall) -> bool:
        refused = self._inner.refuse(call)
        if refused:
            _begin(self._tracer, "run", call).end(str(ServerBusy()))
        return refused

    def add_listener(self, listener: CallListener) -> None:
        self._inner.add_listener(listener)

    def load_hint(self, call: PendingCall) -> LoadHint | None:
        return self._inner.load_hint(call)

    def load(self) -> LoadHint | None:
        return self._inner.load()

    def load_figures(self) -> LoadHint | None:
        return self._inner.load_figures()

    async def wait_load_change(self) -> None:
        await self._inner.wait_load_change()

    @property
    def reservation_seconds(self) -> float:
        return self._inner.reservation_seconds

    def close_admission(self) -> None:
        self._inner.close_admission()


class _Stages(CallListener):
    """Sees when a call has its container, and when the function has ended."""

    def __init__(self, waiting: Mapping[PendingCall, Span]) -> None:
        self._waiting = waiting
        self._functions: dict[PendingCall, Span] = {}

    async def before_call(self, call: PendingCall) -> None:
        waiting = self._waiting.get(call)
        if waiting is None or call.span is None:
            return
        for timing, began in call.timings.began.items():
            stage = waiting.child(STAGES[timing], at=began)
            stage.end(at=began + getattr(call.timings, timing) / 1e9)
        waiting.note({"fn.cold": bool(call.timings.began)})
        waiting.end()
        function = self._functions[call] = call.span.child("function", kind="client")
        _hand_on(call, function)

    async def after_call(self, call: PendingCall) -> None:
        function = self._functions.pop(call, None)
        if function is not None:
            function.end(call.model.error or ("timeout" if call.model.status == "timeout" else ""))


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
