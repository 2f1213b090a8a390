"""The built-in log streamer: what functions print, line by line, for collectors that pull it.

Lines wait in one queue of bounded size for all collectors. When it is full the oldest lines are
dropped, and counted. A batch belongs to one collector, and is put back if that collector goes away
without an ``ack``: a line is delivered at least once or counted as dropped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import attrs
import structlog
import trio

from .._output_lines import LineCutter, Source
from ..abc import OutputPiece
from ..errors import ProtocolError
from ..metrics import AgentMetrics, default_agent_metrics
from ..protocol import LogAck, LogChannel, LogContainer, LogLine, LogRequest, LogStart

log = structlog.get_logger(__name__)

MAX_BATCH_LINES = 1000
MAX_BATCH_BYTES = 256 * 1024
"""Of one batch, which has to fit into a gRPC message of 4 MiB together with its names."""
LINE_OVERHEAD = 200
"""Bytes that a line counts beside its data, so that empty lines are bounded, too."""
DEFAULT_LIMIT = 8 * 1024 * 1024
"""Bytes."""


@attrs.frozen
class _Kept:
    source: Source
    line: LogLine

    @property
    def size(self) -> int:
        return len(self.line.data) + LINE_OVERHEAD


@attrs.define(eq=False)
class _Stream:
    """One collector."""

    unconfirmed: list[_Kept] = attrs.Factory(list)
    """The batch that it has got and not confirmed."""
    listening: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """Around the wait for its next message."""


@attrs.frozen(kw_only=True)
class LogStatistics:
    """``queued`` lines wait now and take ``queued_bytes``; ``unconfirmed`` lines are with a
    collector. ``dropped`` counts since the start; ``streams`` are open now. ``partial`` lines have
    no end yet."""

    queued: int
    queued_bytes: int
    unconfirmed: int
    dropped: int
    streams: int
    partial: int


class FunctionLogs:
    """Collects the output of an agent's functions, and streams it to log collectors.

    ``limit`` bounds the bytes of lines that wait for a collector. Beside them there may be an
    incomplete line for each stream of each container, and one batch for each collector.
    """

    def __init__(self, *, limit: int = DEFAULT_LIMIT, metrics: AgentMetrics | None = None) -> None:
        self._limit = limit
        self._metrics = default_agent_metrics() if metrics is None else metrics
        self._lines: deque[_Kept] = deque()
        self._bytes = 0
        self._dropped = 0
        self._overflowing = False
        self._cutter = LineCutter(self._add)
        self._streams: set[_Stream] = set()
        self._closing = False
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<FunctionLogs {self.statistics()}>"

    def statistics(self) -> LogStatistics:
        """The present lines and streams. Synchronous."""
        return LogStatistics(
            queued=len(self._lines),
            queued_bytes=self._bytes,
            unconfirmed=sum(len(stream.unconfirmed) for stream in self._streams),
            dropped=self._dropped,
            streams=len(self._streams),
            partial=len(self._cutter),
        )

    def collect(self, output: OutputPiece) -> None:
        """Take what a function printed: the ``output`` of `hostler.agent.open_agent`. Synchronous.
        Drops the oldest lines over the limit, and counts them."""
        if self._cutter.add(output):
            self._note_change()

    async def stream(self, channel: LogChannel) -> None:
        """Serve one collector: after its ``start``, each ``ready`` or ``ack`` is answered with one
        batch, as soon as there is a line.

        ``ack`` confirms the batch before it; ``ready`` without that asks for the same batch again.
        Ends when the collector half-closes, or by itself in a drain, when all was taken. Raises
        `ProtocolError`.
        """
        start = await channel.receive()
        if not isinstance(start, LogStart):
            raise ProtocolError("expected LogRequestMsg_Start")
        log.info("log stream begins", config=sorted(start.config))
        stream = _Stream()
        self._streams.add(stream)
        try:
            await self._converse(channel, stream)
        finally:
            self._streams.remove(stream)
            self._put_back(stream.unconfirmed)
            self._note_change()
            log.info("log stream ends", returned=len(stream.unconfirmed))

    async def finish(self) -> None:
        """Let the streams end once they have taken all lines, and wait for that. Waits for ever if
        a collector takes nothing: use a deadline."""
        self._closing = True
        self._cutter.flush()
        self._note_change()
        while self._streams:
            if not self._lines:
                for stream in self._streams:
                    if not stream.unconfirmed:
                        stream.listening.cancel()
            await self._changed.wait()

    # --- one stream ---

    async def _converse(self, channel: LogChannel, stream: _Stream) -> None:
        while True:
            message = None
            with trio.CancelScope() as stream.listening:
                message = await channel.receive()
            if message is None:  # the collector is done, or there are no more lines
                return
            if isinstance(message, LogStart):
                raise ProtocolError("expected LogRequestMsg_Ack or LogRequestMsg_Ready")
            if isinstance(message, LogAck):
                stream.unconfirmed = []
            if not stream.unconfirmed and not await self._fill(stream):
                return
            await channel.send(_grouped(stream.unconfirmed))

    async def _fill(self, stream: _Stream) -> bool:
        """Wait for lines and give the stream a batch; false at the end of everything."""
        self._cutter.flush_due()  # even if other lines never cease
        while not self._lines:
            if self._closing:
                return False
            with trio.move_on_at(self._cutter.next_due):
                await self._changed.wait()
            self._cutter.flush_due()
        size = 0
        while self._lines and len(stream.unconfirmed) < MAX_BATCH_LINES:
            size += self._lines[0].size
            if size > MAX_BATCH_BYTES and stream.unconfirmed:
                break
            stream.unconfirmed.append(self._take())
        self._overflowing = False
        self._note_change()
        return True

    # --- the queue ---

    def _add(self, source: Source, data: bytes, is_stderr: bool) -> None:
        kept = _Kept(source, LogLine(time.time_ns() // 1_000_000, data, is_stderr))
        self._lines.append(kept)
        self._bytes += kept.size
        self._metrics.log_lines.inc()
        self._drop_surplus()
        self._note_change()

    def _put_back(self, lines: Sequence[_Kept]) -> None:
        self._lines.extendleft(reversed(lines))
        self._bytes += sum(kept.size for kept in lines)
        self._drop_surplus()

    def _take(self) -> _Kept:
        kept = self._lines.popleft()
        self._bytes -= kept.size
        return kept

    def _drop_surplus(self) -> None:
        while self._bytes > self._limit and self._lines:
            self._take()
            self._dropped += 1
            self._metrics.log_lines_dropped.inc()
            if not self._overflowing:
                self._overflowing = True
                log.warning("log lines are dropped", limit_bytes=self._limit)

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _grouped(lines: Sequence[_Kept]) -> list[LogContainer]:
    """Container, then request, then line, each in order of first appearance."""
    containers: dict[tuple[str, str, str], dict[str, list[LogLine]]] = {}
    for kept in lines:
        source = kept.source
        key = source.app_id, source.fn_id, source.container_id
        containers.setdefault(key, {}).setdefault(source.call_id, []).append(kept.line)
    return [
        LogContainer(*key, [LogRequest(call_id, found) for call_id, found in requests.items()])
        for key, requests in containers.items()
    ]
