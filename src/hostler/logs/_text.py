"""Log lines for people, made quickly: a node writes one for each call.

structlog's own renderer for consoles takes 45 microseconds for a line with twenty details,
a sixth of what an LB may spend on a call. It stays in use for terminals and for exceptions.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

from structlog.typing import Processor, WrappedLogger

_PLAIN = re.compile(r"[!#-<>-~]+")
"""Texts that need no quotes: printable ASCII without blanks, ``"`` and ``=``."""
_EVENT_WIDTH = 30
_LEVEL_WIDTH = 9
_FOR_EXCEPTIONS = frozenset({"exc_info", "exception", "stack", "stack_info"})


def text_renderer(for_exceptions: Processor) -> Processor:
    """A structlog processor: time, level, event, then ``key=value`` by name.

    Values with blanks, line breaks and the like are quoted, so that a line is one line. Events
    with an exception go to ``for_exceptions``.
    """

    def render(logger: WrappedLogger, name: str, event: MutableMapping[str, Any]) -> Any:
        if not _FOR_EXCEPTIONS.isdisjoint(event):
            return for_exceptions(logger, name, event)
        time, level = event.pop("timestamp", ""), event.pop("level", "")
        text = str(event.pop("event", ""))
        if not text.isprintable():
            text = repr(text)
        head = f"{time} [{level:<{_LEVEL_WIDTH}}] "
        if not event:
            return head + text
        is_plain = _PLAIN.fullmatch
        details = [
            f"{key}={value}"
            if isinstance(value := event[key], str) and is_plain(value)
            else f"{key}={value!r}"
            for key in sorted(event)
        ]
        return f"{head}{text:<{_EVENT_WIDTH}} {' '.join(details)}"

    return render
