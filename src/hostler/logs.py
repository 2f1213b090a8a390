"""Where log lines go and how they look: FN_LOG_FORMAT, _LEVEL, _DEST and _PREFIX."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

import msgspec
import structlog

from ._log_text import text_renderer
from .config import NodeConfig
from .errors import ConfigError

SYSLOG_QUEUE = 10_000
"""Lines that may wait for a slow syslog server; further ones are dropped, not waited for."""

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
def open_logs(config: NodeConfig, stderr: TextIO | None = None) -> Iterator[None]:
    """Configure structlog, and the standard library's logging, for the whole process.

    Raises `ConfigError` if the destination can't be opened. Blocks while it opens it. Leaving
    the block sends what is queued for syslog and puts structlog's defaults back.
    """
    level = _LEVELS[config.log_level]
    with ExitStack() as stack:
        out = _destination(config, stderr or sys.stderr, stack)
        structlog.configure(
            processors=_processors(config, out),
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.WriteLoggerFactory(out),
            cache_logger_on_first_use=True,
        )
        stack.callback(structlog.reset_defaults)
        stack.enter_context(_libraries(max(level, logging.WARNING)))
        yield


def _processors(config: NodeConfig, out: Any) -> list[Any]:
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if config.log_format == "json":
        return [
            *common,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    colors = out is sys.stderr and out.isatty()
    # The plain formatter: richer ones print local variables, which may be secrets.
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback
    )
    return [*common, renderer if colors else text_renderer(renderer)]


def _json(event: object, **_: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


def _destination(config: NodeConfig, stderr: TextIO, stack: ExitStack) -> Any:
    dest = config.log_dest
    if dest == "stderr":
        return stderr
    scheme, separator, rest = dest.partition("://")
    try:
        if scheme == "file" and separator:
            return stack.enter_context(open(rest, "a", encoding="utf-8", buffering=1))
        host, _, port = (rest if separator else dest).rpartition(":")
        kind = socket.SOCK_STREAM if scheme == "tcp" and separator else socket.SOCK_DGRAM
        handler = logging.handlers.SysLogHandler((host.strip("[]"), int(port)), socktype=kind)
    except OSError as error:
        raise ConfigError(f"cannot log to {dest}: {error.strerror or error}") from error
    return stack.enter_context(_open_syslog(handler, config.log_prefix))


@contextmanager
def _open_syslog(handler: logging.handlers.SysLogHandler, prefix: str) -> Iterator[_SyslogFile]:
    handler.ident = f"{prefix} " if prefix else ""
    lines: queue.Queue[Any] = queue.Queue(SYSLOG_QUEUE)
    listener = logging.handlers.QueueListener(lines, handler)
    listener.start()
    try:
        yield _SyslogFile(lines)
    finally:
        listener.stop()
        handler.close()


class _SyslogFile:
    """Looks like a text file to structlog; a thread sends the lines, so that no logging call
    waits for the network."""

    def __init__(self, lines: queue.Queue[Any]) -> None:
        self._lines = lines
        self.dropped = 0

    def write(self, text: str) -> int:
        record = logging.LogRecord("hostler", logging.INFO, "", 0, text.rstrip("\n"), None, None)
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self.dropped += 1
        return len(text)

    def flush(self) -> None:
        """Lines are sent as they come."""


class _ToStructlog(logging.Handler):
    """Passes the lines of libraries on."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )


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
