"""What ``hostler run`` prints while it serves: requests, and what the function prints."""

from __future__ import annotations

import datetime as dt
import sys
import time

from hostler._asgi import ASGIApp, Message, Receive, Scope, Send
from hostler.abc import Output

MAX_LINE = 16 * 1024
"""Bytes of one line; a longer one is printed in pieces."""


def request_lines(app: ASGIApp) -> ASGIApp:
    """Middleware that prints a line for each request, once it was answered."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began = time.perf_counter()
        status, size = 0, 0

        async def counting(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await app(scope, receive, counting)
        finally:
            taken = (time.perf_counter() - began) * 1000
            what = str(status) if status else "no answer"
            _print(f"{scope['method']} {printable(scope['path'])} {what} {taken:.0f} ms {size} B")

    return wrapped


class OutputLines:
    """Prints the output of functions on stderr, line by line."""

    def __init__(self) -> None:
        self._begun: dict[tuple[str, bool], bytes] = {}
        """By container and stream: the line that has no end yet."""

    def collect(self, output: Output) -> None:
        """An `hostler.abc.OutputSink`."""
        if output.ends:
            for is_stderr in (False, True):
                if rest := self._begun.pop((output.container_id, is_stderr), b""):
                    _print_function(rest)
            return
        key = output.container_id, output.is_stderr
        *lines, rest = (self._begun.pop(key, b"") + output.data).split(b"\n")
        for line in lines:
            _print_function(line)
        while len(rest) > MAX_LINE:
            _print_function(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        if rest:
            self._begun[key] = rest


def _print_function(line: bytes) -> None:
    sys.stderr.write(f"| {printable(line.decode(errors='replace'))}\n")


def _print(text: str) -> None:
    sys.stderr.write(f"{dt.datetime.now():%H:%M:%S} {text}\n")


def printable(text: str) -> str:
    """Without what a terminal would take for commands."""
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in text)
