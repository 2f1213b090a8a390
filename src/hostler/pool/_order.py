"""In which order a sweep tries the runners of a list. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def next_attempt(first: int, tried: int, count: int) -> int | None:
    """The index of the next of ``count`` runners in ring order from ``first``, after ``tried``
    of them; ``None`` at the end of the sweep."""
    if tried >= count:
        return None
    return (first + tried) % count


def ring(items: Iterable[T], first: int) -> Iterator[T]:
    """Each item once, in ring order from index ``first``."""
    held = tuple(items)
    tried = 0
    while (index := next_attempt(first, tried, len(held))) is not None:
        yield held[index]
        tried += 1
