"""What functions of a node print, for who asks ``/logs``, if the node shall keep it."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from hostler._asgi import ASGIApp
from hostler._container_task import Output, OutputSink
from hostler.tail import LogTail, tail_app

from ._settings import Settings


class Tail:
    """Without ``FN_LOG_TAIL_BYTES`` it does nothing, and nothing is attached to containers."""

    def __init__(self, settings: Settings) -> None:
        limit = settings.node.log_tail_bytes
        self._tail = LogTail(limit) if limit else None

    def sink(self, other: OutputSink | None = None) -> OutputSink | None:
        """For the node's agent: it and ``other`` get all output."""
        if self._tail is None or other is None:
            return other if self._tail is None else self._tail.collect
        mine = self._tail.collect

        def both(output: Output) -> None:
            mine(output)
            other(output)

        return both

    def mount(self, closing: trio.Event) -> Mapping[str, ASGIApp]:
        """``/logs``, whose readers are let go when ``closing`` is set."""
        return {} if self._tail is None else {"/logs": tail_app(self._tail, closing)}
