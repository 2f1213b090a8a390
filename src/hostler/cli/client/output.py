"""Tables, JSON and printed function output."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import attrs
import msgspec

from ..._asgi.types import ASGIApp, Message, Receive, Scope, Send
from ...abc import OutputPiece
from ...dates import format_date
from ...models import App, Fn, Trigger

FN_ENDPOINT = "fnproject.io/fn/invokeEndpoint"
TRIGGER_ENDPOINT = "fnproject.io/trigger/httpEndpoint"


def document(item: App | Fn | Trigger) -> dict[str, Any]:
    """As the API has it."""
    fields = attrs.asdict(item).items()
    return {
        name: format_date(value) if isinstance(value, dt.datetime) else value
        for name, value in fields
        if value not in (None, "", {})
    }


def print_json(value: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(text.decode() + "\n")


def print_items(
    items: Sequence[App | Fn | Trigger], columns: Sequence[tuple[str, str]], as_json: bool
) -> None:
    """A list. ``columns`` are (heading, field or annotation)."""
    if as_json:
        print_json([document(item) for item in items])
        return
    print_table(
        [heading for heading, _ in columns],
        [[field_of(item, field) for _, field in columns] for item in items],
    )


def print_item(item: App | Fn | Trigger, as_json: bool, *, only: str = "") -> None:
    """One thing, with all it has, or ``only`` one field or annotation of it."""
    if only:
        say(field_of(item, only))
        return
    if as_json:
        print_json(document(item))
        return
    rows: list[tuple[str, str]] = []
    for name, value in document(item).items():
        if isinstance(value, dict):
            rows += [(name, f"{key} = {_plain(inner)}") for key, inner in sorted(value.items())]
        else:
            rows.append((name.replace("_", " "), str(value)))
    print_table((), rows)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Cells are texts, of several lines too. Lines are never cut: a program wants them whole, and
    a person an URL that can be copied."""
    lines = [line for row in rows for line in _cell_lines(row)]
    head = [headings] if headings else []
    widths = [max(map(len, column)) for column in zip(*head, *lines, strict=True)]
    for heading in head:
        text = _line(heading, widths)
        say(f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text)
    for line in lines:
        say(_line(line, widths))


def _cell_lines(row: Sequence[str]) -> Iterator[Sequence[str]]:
    cells = [[printable(line) for line in cell.split("\n")] for cell in row]
    return zip_longest(*cells, fillvalue="")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join(padded).rstrip()


def print_done(text: str, item: App | Fn | Trigger | None = None, as_json: bool = False) -> None:
    """What was done: one line, or the thing that came of it."""
    if as_json and item is not None:
        print_json(document(item))
    else:
        say(text)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def field_of(item: App | Fn | Trigger, field: str) -> str:
    """A field, or where it is none, the annotation of this name; "" without."""
    if field in attrs.fields_dict(type(item)):
        value = getattr(item, field)
        if value is None:
            return ""
        return format_date(value) if isinstance(value, dt.datetime) else str(value)
    raw = item.annotations.get(field)
    return "" if raw is None else _plain(raw)


def _plain(value: str | msgspec.Raw) -> str:
    """A text as it is; a JSON value as its text, or as JSON if it is none."""
    if isinstance(value, str):
        return value
    decoded = msgspec.json.decode(value)
    return decoded if isinstance(decoded, str) else bytes(value).decode()


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

    def collect(self, output: OutputPiece) -> None:
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
