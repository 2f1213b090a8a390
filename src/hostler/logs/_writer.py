"""A log that never waits for the place it goes to.

Whoever logs puts a line into a bounded queue, and a thread writes what is there: a full pipe, a
hung disk and a syslog server that reads nothing stop that thread only. It is the idiom of the
standard library's ``QueueHandler`` and ``QueueListener``, which have no bound in bytes, tell
nobody of lines that are lost, and have no deadline when they are stopped.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol

MAX_LINE = 1024
"""The queue's bound in characters is that of its lines, times this."""
BATCH = 100
"""Lines that are written at a time, at most."""

GATHER_SECONDS = 0.1
"""How long the thread waits, once it has been woken, for more lines to write together: to wake it
costs three times as much as to make a line."""


class Sink(Protocol):
    """Where lines go. Used by one thread."""

    def write(self, lines: Sequence[str]) -> None:
        """Write whole lines (which have no line break at their end). May block for any time.
        Raises if they are lost."""

    def close(self) -> None: ...


class LogWriter:
    """A logger for structlog that writes to ``sink``, which it closes in the end.

    Keeps up to ``lines`` lines, and as many times `MAX_LINE` characters, that are not written
    yet; further ones are dropped and counted in ``dropped``, like those that the sink loses. When
    the sink takes lines again, ``tell_dropped`` is called with their number, in the thread that
    writes; what it logs is never dropped. All methods may be called by any thread.
    """

    def __init__(self, sink: Sink, lines: int, tell_dropped: Callable[[int], object]) -> None:
        self.dropped = 0
        self._told = 0
        self._sink = sink
        self._lines = lines
        self._enough = min(BATCH, (lines + 1) // 2)
        """Lines, or `MAX_LINE` characters for each, for which the thread is woken at once, so that
        those that follow have room."""
        self._tell_dropped = tell_dropped
        self._waiting: deque[str] = deque()
        self._size = 0
        self._idle = False
        self._closing = False
        # Its holder may take it again: collecting garbage may log at any moment.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        # A daemon: one that is stuck in a write must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="hostler log", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<LogWriter waiting={len(self._waiting)} dropped={self.dropped}>"

    def msg(self, line: str) -> None:
        """Queue a line, or drop it. Never blocks."""
        with self._lock:  # (which costs half of what its condition does)
            if self._has_room() or threading.current_thread() is self._thread:
                self._waiting.append(line)
                self._size += len(line)
                if self._idle or self._has_enough():
                    self._changed.notify()
            else:
                self.dropped += 1

    # Names that structlog calls.
    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg

    def close(self, seconds: float) -> None:
        """Write what is queued within ``seconds``; what takes longer is left. Blocks so long.
        Idempotent. Lines that come later are dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)

    def _has_room(self) -> bool:
        return (
            len(self._waiting) < self._lines
            and self._size < self._lines * MAX_LINE
            and not self._closing
        )

    def _has_enough(self) -> bool:
        return len(self._waiting) >= self._enough or self._size >= self._enough * MAX_LINE

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._write(batch)
        finally:
            self._sink.close()

    def _next_batch(self) -> list[str]:
        """The oldest lines, which stay in the queue; none at the end."""
        with self._changed:
            while not (self._waiting or self._closing):
                self._idle = True
                self._changed.wait()
                self._idle = False
                if not (self._has_enough() or self._closing):
                    self._changed.wait(GATHER_SECONDS)
            return list(islice(self._waiting, BATCH))

    def _write(self, batch: list[str]) -> None:
        lost = 0
        try:
            self._sink.write(batch)
        except Exception:  # noqa: BLE001  (there is no other place to tell of it)
            lost = len(batch)
        with self._changed:
            for _ in batch:
                self._size -= len(self._waiting.popleft())
            self.dropped += lost
            to_tell = 0 if lost else self.dropped - self._told
            self._told += to_tell
        if to_tell:
            self._tell_dropped(to_tell)
