"""How a line looks: for people, or as JSON. Made quickly: a node writes one for each call.

structlog's own renderer for consoles takes 45 microseconds for a line with twenty details,
a sixth of what an LB may spend on a call. It stays in use for terminals and for exceptions.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import operator
import time
from collections.abc import Sequence
from itertools import compress
from typing import Any

import msgspec
import structlog

from ._logger import Render

_MAX_LAYOUTS = 1024
"""Sets of names that are remembered; those of a node's own events are some hundred."""
_EVENT_WIDTH = 30
_LEVEL_WIDTH = 9
_FIXED = frozenset({str, int, float, bool, type(None)})
"""Types of values that never change."""
_FOR_EXCEPTIONS = frozenset({"exc_info", "exception", "stack", "stack_info"})


def console_renderer(*, colors: bool) -> Render:
    """structlog's, with its plain formatter of exceptions: richer ones print local variables,
    which may be secrets."""
    console = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback
    )

    def render(level: str, event: str, details: dict[str, Any]) -> str:
        details.update(event=event, level=level, timestamp=_now())
        return console(None, level, details)

    return render


def text_renderer(for_exceptions: Render) -> Render:
    """Time, level, event, then ``key=value`` by name.

    Values with blanks, line breaks and the like are quoted, so that a line is one line. Events
    with an exception go to ``for_exceptions``.
    """
    layout_of = functools.lru_cache(maxsize=_MAX_LAYOUTS)(_Layout)

    def render(level: str, event: str, details: dict[str, Any]) -> str:
        text = str(event)
        if not text.isprintable():
            text = repr(text)
        if not details:
            return f"{_now()} [{level.ljust(_LEVEL_WIDTH)}] {text}"
        layout = layout_of(tuple(details))
        if layout.of_exception:
            return for_exceptions(level, event, details)
        told = layout.fill(details)
        return f"{_now()} [{level.ljust(_LEVEL_WIDTH)}] {text.ljust(_EVENT_WIDTH)} {told}"

    return render


class _Layout:
    """How details with certain names are told. Remembers what it has told last: of a call most is
    the same as of the one before it. Safe for threads."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.of_exception = not _FOR_EXCEPTIONS.isdisjoint(names)
        self._names = sorted(names)
        # (With one name only it would give no tuple.)
        self._values = operator.itemgetter(*self._names, self._names[0])
        self._places = range(len(names))
        nothing = object()
        self._latest: tuple[Sequence[Any], list[str]] = [nothing] * len(names), [""] * len(names)

    def fill(self, details: dict[str, Any]) -> str:
        latest, told = self._latest
        told = told.copy()
        values = self._values(details)
        fixed = True
        for place in compress(self._places, map(operator.is_not, values, latest)):
            value = values[place]
            told[place] = _told(self._names[place], value)
            fixed = fixed and type(value) in _FIXED
        if fixed:
            self._latest = values, told
        return " ".join(told)


def _told(name: str, value: object) -> str:
    if isinstance(value, str) and value and _needs_no_quotes(value):
        return f"{name}={value}"
    return f"{name}={value!r}"


def _needs_no_quotes(text: str) -> bool:
    """Printable ASCII without blanks, ``"`` and ``=``. (A regular expression takes longer.)"""
    return text.isascii() and text.isprintable() and not (" " in text or '"' in text or "=" in text)


def json_renderer() -> Render:
    """One document; what is no JSON becomes text."""
    format_exception = structlog.processors.format_exc_info
    encode = msgspec.json.Encoder(enc_hook=str).encode

    def render(level: str, event: str, details: dict[str, Any]) -> str:
        details.update(event=event, level=level, timestamp=_now())
        if not _FOR_EXCEPTIONS.isdisjoint(details):
            format_exception(None, level, details)
        try:
            return encode(details).decode()
        except UnicodeEncodeError:  # half of a surrogate pair, as in the name of a strange file
            return json.dumps(details, default=str)

    return render


class _Clock:
    """The time of lines. What does not change within a second is made once for it."""

    def __init__(self) -> None:
        self._made = (0, "")

    def __call__(self) -> str:
        now, rest = divmod(time.time_ns() // 1000, 1_000_000)
        second, text = self._made
        if now != second:
            text = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            self._made = (now, text)
        return "%s%06dZ" % (text, rest)  # noqa: UP031  (twice as fast as an expression with a width)


_now = _Clock()
