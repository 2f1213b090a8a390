"""Where log lines go and how they look: FN_LOG_FORMAT, _LEVEL, _DEST and _PREFIX."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

import structlog

from hostler.config import NodeConfig
from hostler.errors import ConfigError

from ._logger import Render, logger_class
from ._sinks import SyslogSink, file_sink, stream_sink
from ._text import console_renderer, json_renderer, text_renderer
from ._writer import LogWriter, Sink

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
