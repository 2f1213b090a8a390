"""``python -m benchmarks.attack [ADDRESS [NAME ...]]``: lists the attacks, or runs them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from . import Row, attacks

HEAD = ("attack", "sent", "seconds", "cut after", "")


def cells(row: Row) -> tuple[str, ...]:
    """``row`` as the table shows it."""
    cut = "not cut" if row.cut_after is None else f"{row.cut_after:.2f} s"
    return row.attack, f"{row.sent:,}", f"{row.seconds:.2f}", cut, row.note


def table(rows: Sequence[Sequence[str]]) -> str:
    """``rows`` below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main(args: Sequence[str]) -> int:
    known = attacks()
    if not args:
        print(table([(name, module.ABOUT) for name, module in known.items()]))
        return 0
    address, *names = args
    if unknown := [name for name in names if name not in known]:
        print(f"no attack is called {unknown[0]}", file=sys.stderr)
        return 2
    rows = [cells(known[name].run(address)) for name in names or known]
    print(table([HEAD, *rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
