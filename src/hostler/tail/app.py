"""``GET /logs``."""

from __future__ import annotations

import math
from urllib.parse import parse_qsl

import attrs
import trio

from .._asgi import ASGIApp, RawHeaders, Receive, Reply, Scope, Send, error_reply
from ..errors import APIError
from .aggregate import AggregateTail, document_of, encoded
from .ring import LogTail, Where

MAX_READERS = 16
"""Requests at once; others are told to come back."""
BUSY_RETRY_SECONDS = 5
BEAT_SECONDS = 15.0
"""An empty line after so long a silence shows a follower that it is connected, and the node that
the follower still takes what comes."""
LAST_SECONDS = 1.0
"""In which a reader can take the last lines when the node drains."""

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
    """Of those that are kept; ``None`` = all."""


def tail_app(tail: LogTail, closing: trio.Event, joint: AggregateTail | None = None) -> ASGIApp:
    """The lines of ``tail``, or of the whole node that it belongs to, as newline-delimited JSON: a
    `LineDocument` or `LostDocument` each.

    ``GET /logs?app_id=&fn_id=&call_id=&lines=&follow=``: those that are kept, the oldest first;
    with ``follow`` also what comes, until the client leaves, or ``closing``. Empty lines mean
    nothing. At most `MAX_READERS` requests are served at once, others get 503.
    """
    return _TailApp(tail, closing, joint)


class _TailApp:
    def __init__(self, tail: LogTail, closing: trio.Event, joint: AggregateTail | None) -> None:
        self._tail = tail
        self._closing = closing
        self._joint = joint
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
        async with trio.open_nursery() as nursery:

            async def until_gone() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            async def until_closing() -> None:
                await self._closing.wait()
                # A reader that stands still must not keep the node from stopping.
                nursery.cancel_scope.deadline = trio.current_time() + LAST_SECONDS
                self._tail.wake()

            nursery.start_soon(until_gone)
            nursery.start_soon(until_closing)
            reader = _ProcessReader(self._tail, query, send)
            if self._joint is None:
                await reader.run(self._closing)
            else:
                await reader.run_joint(self._joint, self._closing)
            await send({"type": "http.response.body", "body": b""})
            nursery.cancel_scope.cancel()


class _ProcessReader:
    """One request that is answered."""

    def __init__(self, tail: LogTail, query: _Query, send: Send) -> None:
        self._tail = tail
        self._query = query
        self._send_message = send
        self._cursor = tail.begin
        self._beat = math.inf

    async def run(self, closing: trio.Event) -> None:
        if self._query.lines is not None:
            self._cursor, _ = self._tail.last(self._query.lines, self._query.where)
        await self._send_beat()  # the head goes out with the first piece of the body
        while True:
            last = not self._query.follow or closing.is_set()
            await self._catch_up(self._tail.end)
            if last:
                return
            with trio.move_on_at(self._beat):
                await self._tail.wait(self._cursor)
            if trio.current_time() >= self._beat:
                await self._send_beat()

    async def run_joint(self, joint: AggregateTail, closing: trio.Event) -> None:
        """Of all processes of the node."""
        writing = trio.Lock()

        async def send(body: bytes) -> None:
            async with writing:  # of several tasks
                await self._send(body)

        await self._send_beat()
        reading = joint.reading(self._query.where, self._query.lines)
        async with trio.open_nursery() as nursery:

            async def until_closing() -> None:
                await closing.wait()
                reading.stop()

            nursery.start_soon(until_closing)
            await reading.catch_up(send)
            if self._query.follow:
                await reading.follow(send)
                await reading.catch_up(send)
            nursery.cancel_scope.cancel()

    async def _catch_up(self, end: int) -> None:
        while self._cursor < end:
            batch = self._tail.read(self._cursor, self._query.where)
            self._cursor = batch.cursor
            if body := encoded(batch.lost, [*map(document_of, batch.lines)]):
                await self._send(body)
            else:  # many lines of others must not hold up what else the node does
                await trio.lowlevel.checkpoint()

    async def _send_beat(self) -> None:
        await self._send(b"\n")

    async def _send(self, body: bytes) -> None:
        await self._send_message({"type": "http.response.body", "body": body, "more_body": True})
        self._beat = trio.current_time() + BEAT_SECONDS


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
