"""Results as a table, as a JSON file, and as the columns of a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from ._run import Result

_COLUMNS: Sequence[tuple[str, str, str]] = (
    ("runners", "runners", "d"),
    ("load", "load", ".0%"),
    ("placer", "placer", ""),
    ("calls", "calls", ",d"),
    ("refused", "refused", "d"),
    ("slowdown p50", "slowdown_p50", ".2f"),
    ("p99", "slowdown_p99", ".1f"),
    ("p99.9", "slowdown_p999", ".1f"),
    ("waited p99 s", "waited_p99", ".2f"),
    ("cold", "cold_share", ".1%"),
    ("attempts", "attempts_per_call", ".2f"),
    ("att. p99", "attempts_p99", "d"),
)


def print_table(results: Sequence[Result], console: Console) -> None:
    table = Table(box=None)
    for title, field, _ in _COLUMNS:
        table.add_column(title, justify="left" if field == "placer" else "right")
    last: tuple[int, float] | None = None
    for result in results:
        if last not in (None, (result.runners, result.load)):
            table.add_section()
        last = (result.runners, result.load)
        table.add_row(*(format(getattr(result, field), how) for _, field, how in _COLUMNS))
    console.print(table)


def write_results(results: Sequence[Result], json_path: Path) -> None:
    """All numbers as JSON, and beside it a CSV file: one line per result, for plots."""
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    fields = Result.__struct_fields__
    with json_path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        writer.writerows([getattr(result, field) for field in fields] for result in results)
