"""Spans: the seam between what happens to a call and who records it.

Code that has something to tell gets a `Span`, or ``None`` where nobody listens, which is how a
node runs by default. Nothing here blocks or fails: recording is not to change what is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol

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
def ending(span: Span) -> Iterator[None]:
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
