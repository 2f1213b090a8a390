"""The full lines of a waiting room, by who has waited longest. Pure.

Whoever comes or goes changes one line; who is next is asked for each call that ends. So neither
may cost more with more lines than a shift in an array.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._room import Line
    from ._waiter import Waiter


class Occupied:
    """Iterates over the lines, the one first whose head came first."""

    def __init__(self) -> None:
        self._order: list[tuple[int, Line]] = []
        """With the tickets of the heads, of which no two are equal."""
        self._known: dict[Line, int] = {}
        """Tickets of the heads."""

    def __repr__(self) -> str:
        return f"<Occupied lines={len(self._order)}>"

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Line]:
        return (line for _, line in self._order)

    def __contains__(self, line: object) -> bool:
        return line in self._known

    @property
    def head(self) -> Waiter | None:
        """Who has waited longest."""
        return self._order[0][1].head if self._order else None

    def note(self, line: Line) -> None:
        """Calls have come to ``line`` or left it, or it has become full."""
        known = self._known.get(line)
        first = line.head.ticket if line.full and line else None
        if first == known:
            return
        if known is not None:
            del self._order[bisect_left(self._order, known, key=_ticket)]
            del self._known[line]
        if first is not None:
            self._known[line] = first
            insort(self._order, (first, line))


def _ticket(entry: tuple[int, object]) -> int:
    return entry[0]
