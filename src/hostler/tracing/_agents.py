"""The calls of an agent as spans.

On a load balancer ``place`` is a call from its submission to its end (of a detached one: to its
acknowledgement), and each attempt at a runner is an ``engage`` in it. On a runner ``run`` is the
whole call, ``container`` the time until it has one, in which the stages of a launch are parts of
their own if there was one, and ``function`` what the function took.
"""

from __future__ import annotations

from collections.abc import Mapping

from hostler._spans import PARENT, Attributes, Span, Tracer, ending, trace_of
from hostler.abc import CallAgent, CallListener, InnerAgent
from hostler.call import CallOption, PendingCall
from hostler.errors import ServerBusy
from hostler.protocol import LoadHint

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


def traced_runner(agent: InnerAgent, tracer: Tracer | None) -> InnerAgent:
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


class _TracedRunner(InnerAgent):
    def __init__(self, inner: InnerAgent, tracer: Tracer) -> None:
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
