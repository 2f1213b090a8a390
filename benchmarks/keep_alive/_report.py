"""Results as tables, in a document too, and as a JSON file."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ._run import Result

_BEGIN, _END = "<!-- keep-alive: begin -->\n", "<!-- keep-alive: end -->\n"
_PAIR = ("fixed 30 s", "predictive 100 %")


def medians(results: Sequence[Result]) -> list[Result]:
    """One for the seeds of each kind, with the median of each number."""
    return [_median(list(seeds)) for _, seeds in itertools.groupby(results, key=_kind)]


def _kind(result: Result) -> tuple[str, str]:
    return result.load, result.name


def _median(seeds: Sequence[Result]) -> Result:
    numbers = {
        name: statistics.median_low(getattr(one, name) for one in seeds)
        for name in Result.__struct_fields__
        if not isinstance(getattr(seeds[0], name), str)
    }
    return msgspec.structs.replace(seeds[0], **numbers)


def tables(results: Sequence[Result]) -> str:
    """Two in Markdown: all policies with the first load, and with each load two of them that have
    the same memory. ``results`` are in the order in which they are to be shown, seeds together."""
    first = results[0].load
    policies = [_policy(one) for one in medians([one for one in results if one.load == first])]
    head = (
        "policy",
        "cold calls",
        "least possible",
        "idle MB",
        "held MB",
        "launches per 100 calls",
    )
    loads = [_compared(load, results) for load in dict.fromkeys(one.load for one in results)]
    titles = ("load", *_PAIR, "change", "seed by seed", "idle MB of both", "least possible")
    return f"With {first}:\n\n{_table(head, policies)}\n{_table(titles, loads)}"


def _policy(one: Result) -> list[str]:
    return [
        one.name,
        f"{one.cold:.1%}",
        f"{one.bound:.1%}",
        f"{one.idle:.0f}",
        f"{one.held:.0f}",
        f"{one.launches * 100:.1f}",
    ]


def _compared(load: str, results: Sequence[Result]) -> list[str]:
    fixed, predictive = (
        [one for one in results if (one.load, one.name) == (load, name)] for name in _PAIR
    )
    changes = [new.cold / old.cold - 1 for old, new in zip(fixed, predictive, strict=True)]
    before, after = medians(fixed)[0], medians(predictive)[0]
    return [
        load,
        f"{before.cold:.1%}",
        f"{after.cold:.1%}",
        f"{statistics.median(changes):+.0%}",
        f"{min(changes):+.0%} to {max(changes):+.0%}",
        f"{before.idle:.0f} / {after.idle:.0f}",
        f"{before.bound:.1%}",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(_lines([head, ["---"] * len(head), *rows]))


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    return (f"| {' | '.join(row)} |\n" for row in rows)


def update_document(results: Sequence[Result], path: Path) -> None:
    """Renew the tables between two marks in a Markdown file. Raises `ValueError` without them."""
    before, begin, rest = path.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{path} lacks {_BEGIN!r} or {_END!r}")
    path.write_text(f"{before}{begin}\n{tables(results)}\n{end}{after}")


def write_results(results: Sequence[Result], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
