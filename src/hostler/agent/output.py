"""What a container prints and uses: log limits, debug lines, samples per call.

Nothing here waits or raises, because the function's pipe is not read meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import structlog

from ..abc import ContainerTask, End, OutputPiece, OutputSink
from ..calls import PendingCall
from ..models import CallStats

log = structlog.get_logger(__name__)

MAX_LINE = 16 * 1024
"""Bytes of one line of the debug log. A longer line is logged in pieces."""


def truncation_line(limit: int) -> bytes:
    """The line after the first ``limit`` bytes of a log that is longer, in Fn's words."""
    return b"\n-----max log size %d bytes exceeded, truncating log-----\n" % limit


class LogLimit:
    """Lets ``limit`` bytes pass, then one line that says so, then nothing. 0 = nothing at all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._exceeded = not limit

    def cut(self, data: bytes) -> bytes:
        """The part of ``data`` that is kept, with the truncation line where the limit is
        exceeded."""
        kept = data[: self._left]
        self._left -= len(kept)
        if len(kept) == len(data) or self._exceeded:
            return kept
        self._exceeded = True
        return kept + truncation_line(self._limit)


class DebugLines:
    """Logs what a container prints, line by line, at debug, with Fn's names for the details."""

    def __init__(self, task: ContainerTask) -> None:
        self._details = {
            "user_log": True,
            "app_id": task.app_id,
            "fn_id": task.fn_id,
            "image": task.image,
            "container_id": task.id,
        }
        self._begun = {True: b"", False: b""}
        """The incomplete last lines of stderr and stdout."""

    def add(self, data: bytes, is_stderr: bool, call_id: str) -> None:
        *lines, rest = (self._begun[is_stderr] + data).split(b"\n")
        for line in lines:
            self._tell(line, is_stderr, call_id)
        full = len(rest) - len(rest) % MAX_LINE
        self._tell(rest[:full], is_stderr, call_id)
        self._begun[is_stderr] = rest[full:]

    def flush(self, call_id: str) -> None:
        """Log the incomplete lines as they are."""
        for is_stderr, begun in self._begun.items():
            self._tell(begun, is_stderr, call_id)
            self._begun[is_stderr] = b""

    def _tell(self, line: bytes, is_stderr: bool, call_id: str) -> None:
        for start in range(0, len(line), MAX_LINE):
            text = line[start : start + MAX_LINE].decode(errors="replace").rstrip("\r")
            tag = "stderr" if is_stderr else "stdout"
            log.debug("function output", line=text, tag=tag, call_id=call_id, **self._details)


class ContainerOutput:
    """Takes what one container prints, as its task's ``on_output``.

    ``sink`` gets all of it. The node's debug log (``debug``) and the calls' own logs (``keep``) get
    the first ``limit`` bytes of each call, stdout and stderr together. Output before the first call
    has a limit of its own. Output between two calls counts for the first of them.
    """

    def __init__(
        self,
        task: ContainerTask,
        *,
        sink: OutputSink | None,
        limit: int,
        keep: bool,
        debug: bool,
    ) -> None:
        self._task = task
        self._sink = sink
        self._limit = limit
        self._keep = keep
        self._lines = DebugLines(task) if debug else None
        self._quota = LogLimit(limit)
        self._log: bytearray | None = None
        self._write: Callable[[bytes], object] | None = None
        """Where the call has its output written."""
        self._call_id = ""
        self._running = False
        task.on_output = self.take

    def begin(self, call: PendingCall) -> None:
        """Output from here on belongs to ``call``."""
        if self._lines is not None:
            self._lines.flush(self._call_id)
        self._quota = LogLimit(self._limit)
        self._log = call.log if self._keep else None
        self._write = call.logger
        self._call_id = call.model.id
        self._running = True

    def end(self, what: End) -> None:
        """The call, or the container, has ended. More output of the call may still come. After the
        end of the container nothing follows, and what a driver still has is dropped."""
        if what == "call" and not self._running:
            return  # the call had not begun
        self._running = False
        if self._lines is not None:
            self._lines.flush(self._call_id)
        self._hand_on(b"", False, what)
        if what == "container":
            self._sink = self._lines = self._log = self._write = None

    def take(self, data: bytes, is_stderr: bool) -> None:
        kept = self._quota.cut(data)
        if self._log is not None:
            self._log += kept
        if self._write is not None and kept:
            self._write_log(self._write, kept)
        if self._lines is not None:
            self._lines.add(kept, is_stderr, self._call_id)
            if not self._running:  # no event would tell that nothing follows
                self._lines.flush(self._call_id)
        self._hand_on(data, is_stderr, "")

    def _write_log(self, write: Callable[[bytes], object], data: bytes) -> None:
        try:
            write(data)
        except Exception:
            # As in `_hand_on`.
            self._write = None
            log.exception("logger of a call failed", call_id=self._call_id, fn_id=self._task.fn_id)

    def _hand_on(self, data: bytes, is_stderr: bool, ends: End) -> None:
        if self._sink is None:
            return
        task = self._task
        output = OutputPiece(
            task.id,
            task.app_id,
            task.fn_id,
            self._call_id,
            data,
            is_stderr,
            running=self._running,
            ends=ends,
        )
        try:
            self._sink(output)
        except Exception:
            # An error of the embedding program must not harm the function or its removal.
            self._sink = None
            log.exception("output sink failed", container_id=task.id, fn_id=task.fn_id)


class Samples:
    """Takes what is measured of one container, as its task's ``on_sample``."""

    def __init__(self, task: ContainerTask) -> None:
        self.running = False
        """Samples belong to the call that runs now."""
        self.stats: CallStats | None = None
        """Samples of that call, if there are any."""
        task.on_sample = self.take

    def take(self, metrics: Mapping[str, int]) -> None:
        if self.running:
            if self.stats is None:
                self.stats = CallStats()
            self.stats.add(time.time_ns(), metrics)
