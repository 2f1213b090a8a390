"""The process's own log: renderers, sinks, and a writer that nothing waits for.

A node writes a line for each call, so lines are made quickly. structlog's chain of processors hands
all details of an event from link to link, and its renderer for consoles takes 45 microseconds for a
line with twenty details, a sixth of what an LB may spend on a call. So loggers here have no chain,
and renderers of their own; structlog's stays in use for terminals and for exceptions.

Whoever logs puts a line into a bounded queue, and a thread writes what is there: a full pipe, a
hung disk and a syslog server that reads nothing stop that thread only. It is the idiom of the
standard library's ``QueueHandler`` and ``QueueListener``, which have no bound in bytes, report no
lost lines, and have no deadline when they are stopped."""

from __future__ import annotations

import datetime as dt
import functools
import io
import json
import logging
import logging.handlers
import operator
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import compress, islice
from typing import Any, Protocol, TextIO

import msgspec
import structlog

from .config import NodeConfig
from .errors import ConfigError

__all__ = [
    "LogWriter",
    "open_logs",
    "open_stream",
]

Render = Callable[[str, str, dict[str, Any]], str]
"""Makes a line of an event's level, its name and its details, which it may change."""


def logger_class(min_level: int, render: Render) -> type[structlog.typing.FilteringBoundLogger]:
    """For `structlog.configure`: loggers that hand lines of ``render`` to a `LogWriter`. What is
    bound to a logger or to the context is among an event's details."""
    merge = structlog.contextvars.merge_contextvars

    class Logger(structlog.make_filtering_bound_logger(min_level)):  # type: ignore[misc]
        def _proxy_to_logger(
            self, method: str, event: str | None = None, /, **details: Any
        ) -> None:
            self._tell(method, event, details)

        def _tell(self, method: str, event: str | None, details: dict[str, Any]) -> None:
            if self._context:
                details = {**self._context, **details}
            merge(self._logger, method, details)
            self._logger.msg(render(method, event or "", details))

        if min_level <= logging.INFO:
            # As structlog's own, which hands the details on as arguments: most of what a line with
            # twenty of them costs beside its text. (Names of parameters would be compared with
            # each of theirs.)
            def info(self, /, *args: Any, **details: Any) -> None:
                if len(args) == 1:
                    self._tell("info", args[0], details)
                else:
                    super().info(*args, **details)

    return Logger


CLOSE_LIMIT = 2.0
"""Seconds that the end of a process may wait for its last lines to be written."""

_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
"""Fn's level names."""


@contextmanager
def open_logs(config: NodeConfig, stderr: TextIO | None = None) -> Iterator[LogWriter]:
    """Configure structlog, and the standard library's logging, for the whole process.

    Raises `ConfigError` if the destination can't be opened. Blocks while it opens it, and never
    afterwards: see `LogWriter`. Leaving the block writes what is queued, for `CLOSE_LIMIT` at
    most, and puts structlog's defaults back.
    """
    level = _LEVELS[config.log_level]
    stderr = stderr or sys.stderr
    sink = _destination(config, stderr)
    with ExitStack() as stack:
        writer = stack.enter_context(_open_writer(sink, config.log_queue_lines))
        colors = config.log_dest == "stderr" and stderr is sys.stderr and stderr.isatty()
        structlog.configure(
            processors=[],
            wrapper_class=logger_class(level, _renderer(config, colors=colors)),
            logger_factory=lambda *_: writer,
            cache_logger_on_first_use=True,
        )
        stack.callback(structlog.reset_defaults)
        stack.enter_context(_libraries(max(level, logging.WARNING)))
        yield writer


@contextmanager
def open_stream(stream: TextIO) -> Iterator[LogWriter]:
    """A writer of single lines, without any settings, that waits for ``stream`` no longer than
    `CLOSE_LIMIT`."""
    with _open_writer(stream_sink(stream), NodeConfig().log_queue_lines) as writer:
        yield writer


@contextmanager
def _open_writer(sink: Sink, lines: int) -> Iterator[LogWriter]:
    writer = LogWriter(sink, lines, _tell_dropped)
    try:
        yield writer
    finally:
        writer.close(CLOSE_LIMIT)


def _renderer(config: NodeConfig, *, colors: bool) -> Render:
    if config.log_format == "json":
        return json_renderer()
    console = console_renderer(colors=colors)
    return console if colors else text_renderer(console)


def _destination(config: NodeConfig, stderr: TextIO) -> Sink:
    dest = config.log_dest
    if dest == "stderr":
        return stream_sink(stderr)
    scheme, separator, rest = dest.partition("://")
    try:
        if scheme == "file" and separator:
            return file_sink(rest)
        host, _, port = (rest if separator else dest).rpartition(":")
        kind = socket.SOCK_STREAM if scheme == "tcp" and separator else socket.SOCK_DGRAM
        return SyslogSink(host.strip("[]"), int(port), kind, config.log_prefix)
    except OSError as error:
        raise ConfigError(f"cannot log to {dest}: {error.strerror or error}") from error


def _tell_dropped(count: int) -> None:
    structlog.get_logger(__name__).warning("log lines were dropped", count=count)


class _ToStructlog(logging.Handler):
    """Passes the lines of libraries on."""

    def emit(self, record: logging.LogRecord) -> None:
        # Libraries have levels of their own, of which structlog knows none.
        level = min(max(record.levelno - record.levelno % 10, logging.DEBUG), logging.CRITICAL)
        structlog.get_logger(record.name).log(
            level, _message(record), logger=record.name, exc_info=record.exc_info
        )


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  (a mistake of who logs, which must not end what it does)
        return f"{record.msg} {record.args}"


@contextmanager
def _libraries(level: int) -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, root.handlers
    root.level, root.handlers = level, [_ToStructlog()]
    root.setLevel(level)
    try:
        yield
    finally:
        root.handlers = before[1]
        root.setLevel(before[0])


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
