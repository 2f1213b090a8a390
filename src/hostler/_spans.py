"""Trace spans and W3C trace context.

Code that has something to tell gets a `Span`, or ``None`` where nobody listens, which is how a
node runs by default. Nothing here blocks or fails: recording is not to change what is recorded.

W3C trace context (https://www.w3.org/TR/trace-context/): who called, told to who is called.

A front end measures no spans of its own, so it passes the context on unchanged, as the
recommendation asks of those who do not take part, and begins a trace where there is none. Such a
trace is not sampled: nobody has recorded its root.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol

import msgspec

from .errors import public_error

Kind = Literal["internal", "server", "client"]

Attributes = Mapping[str, str | int | float | bool]

_NONE: Attributes = {}


class Span(Protocol):
    """A piece of work with a beginning and an end, in a trace.

    ``at`` are times of `trio.current_time`; ``None`` = now.
    """

    @property
    def traceparent(self) -> str:
        """The W3C header that makes this span the parent of what its receiver does."""
        ...

    def child(
        self,
        name: str,
        attributes: Attributes = _NONE,
        *,
        kind: Kind = "internal",
        at: float | None = None,
    ) -> Span:
        """A part of this work, which begins."""
        ...

    def note(self, attributes: Attributes) -> None:
        """Something that was not known at the beginning."""
        ...

    def end(self, error: str = "", *, at: float | None = None) -> None:
        """It is over; with ``error`` it has failed. What is told later is lost."""
        ...


class Tracer(Protocol):
    """Begins spans that have no `Span` of this process as a parent."""

    def start(
        self,
        name: str,
        attributes: Attributes = _NONE,
        *,
        parent: str = "",
        kind: Kind = "internal",
    ) -> Span:
        """``parent`` is a valid ``traceparent``, "" = a new trace begins."""
        ...


request_span: ContextVar[Span | None] = ContextVar("request_span", default=None)
"""Of the request that is served, for what is done for it where no call is at hand. Tasks that begin
meanwhile have it, too."""


@contextmanager
def ends_span(span: Span) -> Iterator[None]:
    """End ``span`` with the block; what leaves it is the span's error."""
    try:
        yield
    except BaseException as error:
        span.end(error_text(error))
        raise
    span.end()


def error_text(error: BaseException) -> str:
    """What a span says of ``error``: as little of an internal one as clients are told."""
    return str(public_error(error)) if isinstance(error, Exception) else "cancelled"


PARENT, STATE = "Traceparent", "Tracestate"

_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"(?P<rest>-[!-~]*)?",
    re.ASCII,
)

_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16

_MAX_PARENT = 256
"""Versions to come may be longer than the 55 characters of version 00; without a bound they would
be a free ride."""

_MEMBER = re.compile(
    r"(?:[a-z0-9][a-z0-9_*/@-]{0,255})=[ -+\--<>-~]{0,255}[!-+\--<>-~]",
    re.ASCII,
)

_MAX_MEMBERS = 32


class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """One request's place in a trace."""

    trace_id: str
    parent: str
    """The value of ``traceparent``."""
    state: str = ""
    """The value of ``tracestate``, "" = none."""

    def headers(self) -> dict[str, list[str]]:
        """For the function: canonical names."""
        found = {PARENT: [self.parent]}
        if self.state:
            found[STATE] = [self.state]
        return found


def trace_of(headers: Mapping[str, list[str]]) -> TraceContext:
    """The context that a request (canonical names) carries, or a new one.

    A ``traceparent`` that is invalid, or there twice, begins a new trace, and then
    ``tracestate`` counts for nothing; one that is invalid alone is dropped.
    """
    values = headers.get(PARENT)
    if values is None:
        return _new_trace()
    match = _PARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or len(match[0]) > _MAX_PARENT or (match["rest"] and match[0][:2] == "00"):
        return _new_trace()
    return TraceContext(match["trace"], match[0], _state(headers.get(STATE, ())))


def _new_trace() -> TraceContext:
    digits = os.urandom(24).hex()
    trace_id, span_id = digits[:32], digits[32:]
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return _new_trace()
    return TraceContext(trace_id, f"00-{trace_id}-{span_id}-00")


def _state(values: list[str] | tuple[()]) -> str:
    members = [part.strip(" \t") for value in values for part in value.split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    valid = all(_MEMBER.fullmatch(member) for member in members)
    if not valid or len(members) > _MAX_MEMBERS or len(keys) != len(members):
        return ""
    return ",".join(members)
