"""``GET /logs``."""

from __future__ import annotations

from urllib.parse import parse_qsl

import attrs
import trio

from .._asgi.replies import Reply, error_reply, streaming
from .._asgi.types import ASGIApp, RawHeaders, Receive, Scope, Send
from ..errors import APIError
from .aggregate import AggregateTail
from .ring import Where

MAX_READERS = 16
"""Requests at once; further clients get 503."""
BUSY_RETRY_SECONDS = 5
LAST_SECONDS = 1.0
"""Seconds that a reader has to take the last lines when the node drains."""

_HEADERS: RawHeaders = [
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),  # or nginx would hold lines back
]
_FLAGS = {"": True, "1": True, "true": True, "0": False, "false": False}


@attrs.frozen
class _Query:
    where: Where
    follow: bool
    lines: int | None
    """How many of the kept lines; ``None`` = all."""


def tail_app(tail: AggregateTail, closing: trio.Event) -> ASGIApp:
    """The lines of ``tail`` as newline-delimited JSON: a `LineDocument` or `LostDocument` each.

    ``GET /logs?app_id=&fn_id=&call_id=&lines=&follow=``: those that are kept, the oldest first;
    with ``follow`` also what comes, until the client leaves, or ``closing``. Empty lines mean
    nothing. At most `MAX_READERS` requests are served at once, others get 503.
    """
    return _TailApp(tail, closing)


class _TailApp:
    def __init__(self, tail: AggregateTail, closing: trio.Event) -> None:
        self._tail = tail
        self._closing = closing
        self._readers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (refusal := self._refusal(scope)) is not None:
            await refusal.send(send)
            return
        try:
            query = _query(scope)
        except APIError as error:
            await error_reply(error).send(send)
            return
        if scope["method"] == "HEAD":
            await Reply(200, headers=list(_HEADERS)).send(send)
            return
        self._readers += 1
        try:
            await self._stream(query, receive, send)
        finally:
            self._readers -= 1

    def _refusal(self, scope: Scope) -> Reply | None:
        path, method = scope["path"], scope["method"]
        if path != "/logs":
            return error_reply(APIError(404, f"Path not found: {method} {path}"))
        if method not in ("GET", "HEAD"):
            error = APIError(405, f"Method not allowed: {method} {path}")
            return error_reply(error, [(b"allow", b"GET, HEAD")])
        if self._readers >= MAX_READERS or self._closing.is_set():
            busy = APIError(503, "Too many readers of logs, or the node stops")
            return error_reply(busy, [(b"retry-after", b"%d" % BUSY_RETRY_SECONDS)])
        return None

    async def _stream(self, query: _Query, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        reading, writing = self._tail.reading(query.where, query.lines), trio.Lock()

        async def send_body(body: bytes) -> None:
            async with writing:  # of several tasks
                await send({"type": "http.response.body", "body": body, "more_body": True})

        async with streaming(receive, self._closing, LAST_SECONDS, reading.stop):
            await send_body(b"\n")  # the head goes out with the first piece of the body
            await reading.catch_up(send_body)
            if query.follow:
                await reading.follow(send_body)
                await reading.catch_up(send_body)
            await send({"type": "http.response.body", "body": b""})


def _query(scope: Scope) -> _Query:
    """Raises `APIError`, 400. A misspelt filter must not show the lines of all functions."""
    given: dict[str, str] = {}
    text = scope["query_string"].decode("latin-1")
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in ("app_id", "fn_id", "call_id", "lines", "follow"):
            raise APIError(400, f"Unknown parameter: {name}")
        if name in given:
            raise APIError(400, f"Parameter given twice: {name}")
        given[name] = value
    follow = _FLAGS.get(given.pop("follow", "0").lower())
    if follow is None:
        raise APIError(400, "Invalid follow: takes true or false")
    lines = given.pop("lines", "")
    if lines and not (lines.isascii() and lines.isdigit() and len(lines) <= 9):
        raise APIError(400, "Invalid lines: takes a whole number")
    return _Query(Where(**given), follow, int(lines) if lines else None)
