"""Results as a table, in a document, as a JSON file, and as the columns of a plot."""

from __future__ import annotations

import csv
import itertools
import statistics
from collections.abc import Iterator, Sequence
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
    ("p99.9", "slowdown_p999", ".0f"),
    ("waited p99 s", "waited_p99", ".2f"),
    ("cold", "cold_share", ".1%"),
    ("attempts", "attempts_per_call", ".2f"),
    ("att. p99", "attempts_p99", "d"),
)
_BEGIN, _END = "<!-- simulator: begin -->\n", "<!-- simulator: end -->\n"


def medians(results: Sequence[Result]) -> list[Result]:
    """One for the seeds of each kind, with the median of each number."""

    def kind(result: Result) -> tuple[int, float, str]:
        return result.runners, result.load, result.placer

    return [_median(list(seeds)) for _, seeds in itertools.groupby(results, key=kind)]


def _median(seeds: Sequence[Result]) -> Result:
    numbers = {
        name: statistics.median_low(getattr(one, name) for one in seeds)
        for name in Result.__struct_fields__
        if name != "placer"
    }
    return Result(placer=seeds[0].placer, **numbers)


def print_table(results: Sequence[Result], console: Console) -> None:
    table = Table(box=None)
    for title, field, _ in _COLUMNS:
        table.add_column(title, justify="left" if field == "placer" else "right")
    last: tuple[int, float] | None = None
    for result in results:
        if last not in (None, (result.runners, result.load)):
            table.add_section()
        last = (result.runners, result.load)
        table.add_row(*_cells(result))
    console.print(table)


def _cells(result: Result) -> Iterator[str]:
    return (format(getattr(result, field), how) for _, field, how in _COLUMNS)


def update_document(results: Sequence[Result], path: Path) -> None:
    """Renew the table between two marks in a Markdown file. Raises `ValueError` without them."""
    before, begin, rest = path.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{path} lacks {_BEGIN!r} or {_END!r}")
    rows = [[title for title, _, _ in _COLUMNS], ["---"] * len(_COLUMNS), *map(_cells, results)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    path.write_text(f"{before}{begin}\n{table}\n{end}{after}")


def read_results(path: Path) -> list[Result]:
    """What `write_results` has written as JSON."""
    return msgspec.json.decode(path.read_bytes(), type=list[Result])


def write_results(results: Sequence[Result], json_path: Path) -> None:
    """All numbers as JSON, and beside it a CSV file: one line per result, for plots."""
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    fields = Result.__struct_fields__
    with json_path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        writer.writerows([getattr(result, field) for field in fields] for result in results)
