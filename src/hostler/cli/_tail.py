"""What functions of a node print, for who asks ``/logs``, if the node shall keep it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import trio

from hostler._asgi import ASGIApp
from hostler.abc import Output, OutputSink
from hostler.tail import JointTail, LogTail, TailShare, tail_app

from ._settings import Settings
from .workers import Colleagues

_TOPIC = "logs"


class Tail:
    """Without ``FN_LOG_TAIL_BYTES`` it does nothing, and nothing is attached to containers."""

    def __init__(self, settings: Settings, colleagues: Colleagues | None = None) -> None:
        limit = settings.node.log_tail_bytes
        self._joint: JointTail | None = None
        self._tail: LogTail | None = None
        if not limit:
            return
        if colleagues is None:
            self._tail = LogTail(limit)
        else:
            place = colleagues.place
            self._tail = LogTail(-(-limit // place.count))
            share = TailShare(self._tail)
            colleagues.answer(_TOPIC, share.answer)
            others = [n for n in range(place.count) if n != place.number]
            self._joint = JointTail(
                share, [partial(colleagues.ask_one, number, _TOPIC) for number in others]
            )

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
        """``/logs``, whose readers are let go when ``closing`` is set; it has the lines of all
        workers."""
        return {} if self._tail is None else {"/logs": tail_app(self._tail, closing, self._joint)}
