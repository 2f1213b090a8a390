from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.rules import PageCursor, decode_cursor, encode_cursor, errors, parse_per_page

TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)


@given(TEXTS, TEXTS)
def test_cursors_come_back(name: str, id: str) -> None:
    assert decode_cursor(encode_cursor(PageCursor(name, id))) == PageCursor(name, id)


@given(TEXTS)
def test_a_cursor_of_a_name_is_fns(name: str) -> None:
    expected = base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
    assert encode_cursor(PageCursor(name)) == expected


@given(st.text(max_size=20))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    with contextlib.suppress(errors.InvalidCursor):
        decode_cursor(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("", 30), ("x", 30), ("0", 30), ("-5", 30), ("1.5", 30), (" 1", 30), ("\u0661", 30)),
        *(("1", 1), ("+7", 7), ("030", 30), ("100", 100), ("101", 100), ("9" * 18, 100)),
        *(("9" * 5000, 30), ("1\n", 30)),
    ],
)
def test_per_page(text: str, number: int) -> None:
    assert parse_per_page(text) == number
