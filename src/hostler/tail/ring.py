"""The last lines that functions of a node have printed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

import attrs
import trio

from .._output_lines import LineCutter, Source
from ..abc import OutputPiece

LINE_OVERHEAD = 200
"""Bytes that each line counts in addition to its data, so that empty lines are bounded too."""
MAX_BATCH_LINES = 1000
"""Lines that a reader gets, or skips, at once."""
MAX_BATCH_BYTES = 256 * 1024
"""Bytes that a reader gets at once; the last line may exceed it."""


@attrs.frozen
class TailLine:
    source: Source
    at: float
    """Seconds since 1970."""
    data: bytes
    """Without the line's end."""
    is_stderr: bool

    @property
    def size(self) -> int:
        return len(self.data) + LINE_OVERHEAD


@attrs.frozen
class Where:
    """Which lines; "" = any."""

    app_id: str = ""
    fn_id: str = ""
    call_id: str = ""

    def fits(self, source: Source) -> bool:
        """Whether lines of ``source`` are wanted. Synchronous."""
        return (
            self.app_id in ("", source.app_id)
            and self.fn_id in ("", source.fn_id)
            and self.call_id in ("", source.call_id)
        )


@attrs.frozen
class Batch:
    """What a reader gets at once. ``lost`` lines, of any function, were dropped before it came."""

    lines: list[TailLine]
    lost: int
    cursor: int
    """Where the next read begins."""


class LogTail:
    """Keeps the last lines, up to ``limit`` bytes of them, for any number of readers.

    A reader is only a number, its cursor: nothing is kept for it, and nobody waits for it. A slow
    reader loses the lines that were dropped meanwhile. ``wall`` is the clock of the lines.
    """

    def __init__(self, limit: int, *, wall: Callable[[], float] = time.time) -> None:
        self._limit = limit
        self._wall = wall
        self._lines: deque[TailLine] = deque()
        self._bytes = 0
        self._end = 0
        self._cutter = LineCutter(self._add)
        self._changed = trio.Event()

    @property
    def begin(self) -> int:
        """The cursor before the oldest line."""
        return self._end - len(self._lines)

    @property
    def end(self) -> int:
        """The cursor behind the newest line. A rest of output that is due counts as a line."""
        self._cutter.flush_due()
        return self._end

    @property
    def size(self) -> int:
        """Bytes of all lines, as ``limit`` counts them."""
        return self._bytes

    def collect(self, output: OutputPiece) -> None:
        """Take what a function printed: an `hostler.abc.OutputSink`."""
        if self._cutter.add(output):
            self.wake()

    def wake(self) -> None:
        """Let all that `wait` look again."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait(self, cursor: int) -> None:
        """Until there may be a line behind ``cursor``, or `wake`."""
        if self.end == cursor:
            with trio.move_on_at(self._cutter.next_due):
                await self._changed.wait()

    def last(self, count: int, where: Where) -> tuple[int, int]:
        """The cursor before the last ``count`` lines of ``where``, and how many there are: fewer if
        no more are kept."""
        cursor, found = self.end, 0
        if not count:
            return cursor, found
        for line in reversed(self._lines):
            cursor -= 1
            found += where.fits(line.source)
            if found == count:
                break
        return cursor, found

    def read(self, cursor: int, where: Where) -> Batch:
        """The next lines behind ``cursor``; perhaps none of them is of ``where``."""
        self._cutter.flush_due()
        lost = max(0, self.begin - cursor)
        cursor += lost
        fitting: list[TailLine] = []
        size = 0
        for line in islice(self._behind(cursor), MAX_BATCH_LINES):
            cursor += 1
            if where.fits(line.source):
                fitting.append(line)
                size += line.size
                if size > MAX_BATCH_BYTES:
                    break
        return Batch(fitting, lost, cursor)

    def _behind(self, cursor: int) -> Iterator[TailLine]:
        """A deque is walked from the nearer end."""
        skipped, count = cursor - self.begin, self._end - cursor
        if skipped <= count:
            return islice(self._lines, skipped, None)
        return reversed(list(islice(reversed(self._lines), count)))

    def _add(self, source: Source, data: bytes, is_stderr: bool) -> None:
        line = TailLine(source, self._wall(), data, is_stderr)
        self._lines.append(line)
        self._end += 1
        self._bytes += line.size
        while self._bytes > self._limit and self._lines:
            self._bytes -= self._lines.popleft().size
        self.wake()
