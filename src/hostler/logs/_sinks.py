"""The places that log lines go to."""

from __future__ import annotations

import io
import logging
import logging.handlers
import os
import select
import socket
from collections.abc import Sequence
from typing import TextIO

from ._writer import Sink

_ERRORS = "backslashreplace"
"""What becomes of a character that can't be encoded: half of a pair, from a broken text."""


class FileSink(Sink):
    """An open file, pipe or terminal. Writes past the buffers that others have for it, whose locks
    a thread that is stuck would keep for ever."""

    def __init__(self, descriptor: int, *, own: bool) -> None:
        self._descriptor = descriptor
        self._own = own

    def write(self, lines: Sequence[str]) -> None:
        data = memoryview("\n".join([*lines, ""]).encode(errors=_ERRORS))
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # whoever shares it has made it non-blocking
                self._wait_writable()

    def close(self) -> None:
        if self._own:
            os.close(self._descriptor)

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll()


class StreamSink(Sink):
    """A text stream without a descriptor, which is not closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, lines: Sequence[str]) -> None:
        self._stream.writelines(f"{line}\n" for line in lines)
        self._stream.flush()

    def close(self) -> None:
        """It is somebody else's."""


class SyslogSink(logging.handlers.SysLogHandler, Sink):
    """A syslog server. One that has closed its connection is connected to again."""

    def __init__(self, host: str, port: int, kind: socket.SocketKind, prefix: str) -> None:
        super().__init__((host, port), socktype=kind)
        self.ident = f"{prefix} " if prefix else ""

    def write(self, lines: Sequence[str]) -> None:
        for line in lines:
            text = line.encode(errors=_ERRORS).decode()
            record = logging.LogRecord("hostler", logging.INFO, "", 0, text, None, None)
            try:
                self.emit(record)
            except OSError:
                self.close()
                self.emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Called where the trouble is the exception at hand."""
        raise


def stream_sink(stream: TextIO) -> Sink:
    """For ``stream``, which stays open."""
    try:
        return FileSink(stream.fileno(), own=False)
    except (AttributeError, io.UnsupportedOperation):
        return StreamSink(stream)


def file_sink(path: str) -> Sink:
    """Appends to a file. Raises `OSError`."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    return FileSink(os.open(path, flags, 0o666), own=True)
