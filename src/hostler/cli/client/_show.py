"""What client commands print: tables for people, JSON for programs."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from hostler.dates import format_date
from hostler.models import App, Fn, Trigger

if TYPE_CHECKING:
    from rich.console import Console

# Nodes have these commands too, but should not wait for what only these need: rich, httpx.
WIDE = 10_000
"""Columns where nobody looks: a program's line is never wrapped or cut."""
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
    """Cells are texts, of which nothing is taken for markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=bool(headings), pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, header_style="bold", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    with_console = console()
    if with_console.is_terminal:
        with_console.print(table)
        return
    with with_console.capture() as capture:
        with_console.print(table)
    # Where nobody looks, the padding of the last column is noise.
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def print_done(text: str, item: App | Fn | Trigger | None = None, as_json: bool = False) -> None:
    """What was done: one line, or the thing that came of it."""
    if as_json and item is not None:
        print_json(document(item))
    else:
        say(text)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    plain = Console(stderr=stderr, highlight=False)
    return plain if plain.is_terminal else Console(stderr=stderr, highlight=False, width=WIDE)


def field_of(item: App | Fn | Trigger, field: str) -> str:
    """A field, or where it is none, the annotation of this name; "" without."""
    if field in attrs.fields_dict(type(item)):
        value = getattr(item, field)
        return format_date(value) if isinstance(value, dt.datetime) else str(value)
    raw = item.annotations.get(field)
    return "" if raw is None else _plain(raw)


def _plain(value: str | msgspec.Raw) -> str:
    """A text as it is; a JSON value as its text, or as JSON if it is none."""
    if isinstance(value, str):
        return value
    decoded = msgspec.json.decode(value)
    return decoded if isinstance(decoded, str) else bytes(value).decode()
