"""What is made of a request's head serves the next request of a connection that has the same."""

from __future__ import annotations

from typing import Any

import pytest

from hostler._asgi import MEMO
from hostler.front._head import Head


def scope(memo: dict[object, Any], **changes: Any) -> dict[str, Any]:
    made = {
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/a",
        "raw_path": b"/a",
        "query_string": b"",
        "headers": [(b"host", b"x")],
        "extensions": {MEMO: memo},
    }
    return made | changes


def test_the_same_head_is_made_once() -> None:
    memo: dict[object, Any] = {}
    assert Head.of(scope(memo)) is Head.of(scope(memo))


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"path": "/b", "raw_path": b"/b"}, "http://x/b"),
        ({"path": "/b", "raw_path": None}, "http://x/b"),
        ({"query_string": b"q"}, "http://x/a?q"),
        ({"headers": [(b"host", b"y")]}, "http://y/a"),
        ({"scheme": "https"}, "https://x/a"),
    ],
)
def test_an_application_in_between_may_change_what_the_client_has_sent(
    changes: dict[str, Any], url: str
) -> None:
    memo: dict[object, Any] = {}
    if changes.get("raw_path", b"") is None:  # it hides it each time
        assert Head.of(scope(memo, raw_path=None)).url == "http://x/a"
    else:
        assert Head.of(scope(memo)).url == "http://x/a"
    assert Head.of(scope(memo, **changes)).url == url
