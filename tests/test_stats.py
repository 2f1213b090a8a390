"""What is remembered of the past: bounded dictionaries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostler._stats import LRUDict


@given(st.integers(0, 4), st.lists(st.tuples(st.booleans(), st.integers(0, 6))))
def test_the_items_used_last_are_kept(limit: int, uses: list[tuple[bool, int]]) -> None:
    items = LRUDict[int, int](limit)
    expected: list[tuple[int, int]] = []
    for number, (sets, key) in enumerate(uses):
        known = dict(expected)
        if sets:
            items[key] = number
        elif key in known:
            items.move_to_end(key)
        else:
            continue
        others = [(other, value) for other, value in expected if other != key]
        expected = [*others, (key, number if sets else known[key])]
        expected = expected[max(0, len(expected) - limit) :]
        assert list(items.items()) == expected


def test_reading_an_item_does_not_use_it() -> None:
    items = LRUDict[str, int](2)
    items["a"], items["b"] = 1, 2
    assert (items["a"], items.get("a")) == (1, 1)
    items["c"] = 3
    assert list(items) == ["b", "c"]
