"""In which order a sweep tries the runners of a list. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def load_limit(total: float, count: int, epsilon: float) -> int:
    """The most calls that one of ``count`` runners may have, the next one included, while they
    have ``total`` together: what is even, and a fraction of ``epsilon`` more.

    Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2016
    (arXiv:1608.01350).
    """
    return math.ceil((1 + epsilon) * (total + 1) / max(count, 1))


def within(items: Iterable[T], fits: Callable[[T], bool]) -> Iterator[T]:
    """The items that fit, then the others; both keep their order. Looks at no item before it is
    asked for one more."""
    others: list[T] = []
    for item in items:
        if fits(item):
            yield item
        else:
            others.append(item)
    yield from others


def once(items: Iterable[T], seen: set[T]) -> Iterator[T]:
    """Each item the first time only, those that were ``seen`` not at all, to which it adds them.
    Looks at no item before it is asked for one more."""
    for item in items:
        if item not in seen:
            seen.add(item)
            yield item


def without(items: Iterable[T], full: Callable[[T], bool], limit: int) -> Iterator[T]:
    """The items that are not full, then the first ``limit`` of the others. Looks at no item
    before it is asked for one more."""
    others: list[T] = []
    for item in items:
        if not full(item):
            yield item
        elif len(others) < limit:
            others.append(item)
    yield from others


def better_of_two(
    items: Sequence[T], load: Callable[[T], float], rng: random.Random
) -> Iterator[T]:
    """Two random items, that with less load first; then the others, in ring order.

    Mitzenmacher, "The power of two choices in randomized load balancing", IEEE Transactions on
    Parallel and Distributed Systems 12(10), 2001.
    """
    if len(items) < 2:
        yield from items
        return
    one, two = rng.sample(range(len(items)), 2)
    if load(items[two]) < load(items[one]):
        one, two = two, one
    yield items[one]
    yield items[two]
    for index in ring(range(len(items)), two):
        if index not in (one, two):
            yield items[index]
