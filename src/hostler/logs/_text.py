"""How a line looks: for people, or as JSON. Made quickly: a node writes one for each call.

structlog's own renderer for consoles takes 45 microseconds for a line with twenty details,
a sixth of what an LB may spend on a call. It stays in use for terminals and for exceptions.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from typing import Any

import msgspec
import structlog

from ._logger import Render

_PLAIN = re.compile(r"[!#-<>-~]+")
"""Texts that need no quotes: printable ASCII without blanks, ``"`` and ``=``."""
_EVENT_WIDTH = 30
_LEVEL_WIDTH = 9
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
    is_plain = _PLAIN.fullmatch

    def render(level: str, event: str, details: dict[str, Any]) -> str:
        if not _FOR_EXCEPTIONS.isdisjoint(details):
            return for_exceptions(level, event, details)
        text = str(event)
        if not text.isprintable():
            text = repr(text)
        head = f"{_now()} [{level:<{_LEVEL_WIDTH}}] "
        if not details:
            return head + text
        told = [
            f"{key}={value}"
            if isinstance(value := details[key], str) and is_plain(value)
            else f"{key}={value!r}"
            for key in sorted(details)
        ]
        return f"{head}{text:<{_EVENT_WIDTH}} {' '.join(told)}"

    return render


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
        return f"{text}{rest:06}Z"


_now = _Clock()
