"""A `Tracer` in memory."""

from __future__ import annotations

import itertools
from typing import Any

import trio

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""A ``traceparent`` header."""
_numbers = itertools.count(1)


class RecordedSpan:
    """A span that remembers everything."""

    def __init__(
        self, recorder: Recorder, name: str, parent: str, kind: str, attributes: Any, at: float
    ) -> None:
        self.name = name
        self.parent = parent
        self.kind = kind
        self.attributes: dict[str, Any] = dict(attributes)
        self.began = at
        self.ended: float | None = None
        self.error = ""
        self.traceparent = f"00-{recorder.trace_id}-{next(_numbers):016x}-01"
        self._recorder = recorder
        recorder.spans.append(self)

    def child(
        self, name: str, attributes: Any = (), *, kind: str = "internal", at: float | None = None
    ) -> RecordedSpan:
        begin = trio.current_time() if at is None else at
        return RecordedSpan(self._recorder, name, self.traceparent, kind, attributes, begin)

    def note(self, attributes: Any) -> None:
        if self.ended is None:
            self.attributes.update(attributes)

    def end(self, error: str = "", *, at: float | None = None) -> None:
        if self.ended is None:
            self.ended = trio.current_time() if at is None else at
            self.error = error


class Recorder:
    """Has all spans, in the order of their beginnings."""

    trace_id = "ab" * 16

    def __init__(self) -> None:
        self.spans: list[RecordedSpan] = []

    def start(
        self, name: str, attributes: Any = (), *, parent: str = "", kind: str = "internal"
    ) -> RecordedSpan:
        return RecordedSpan(self, name, parent, kind, attributes, trio.current_time())

    @property
    def open(self) -> list[str]:
        return [span.name for span in self.spans if span.ended is None]

    def named(self, name: str) -> RecordedSpan:
        [found] = [span for span in self.spans if span.name == name]
        return found
