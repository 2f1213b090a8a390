"""The application at ``/ui``."""

from __future__ import annotations

import msgspec
import trio

from hostler._asgi import (
    JSON_TYPE,
    ASGIApp,
    RawHeaders,
    Receive,
    Reply,
    Scope,
    Send,
    error_reply,
)
from hostler.errors import APIError

from ._assets import SECURITY_HEADERS, Asset, assets
from ._panel import StateSource
from ._share import Cursor

PREFIX = "/ui"
MAX_VIEWERS = 16
"""Event streams at once; others are told to come back. Each costs about one document a second."""
TICK_SECONDS = 1.0
BUSY_RETRY_SECONDS = 5
LAST_SECONDS = 1.0
"""In which a viewer can take the end of its events when the node drains."""

_STREAM_HEADERS: RawHeaders = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # or nginx would hold events back
]


def ui_app(panel: StateSource, closing: trio.Event) -> ASGIApp:
    """The page of ``panel``, to be mounted at ``/ui``.

    ======================  ===================================================================
    ``GET /ui/``            the page, and its files beside it
    ``GET /ui/state.json``  a `State`
    ``GET /ui/events``      server-sent events: ``state`` with a `State`, then each second
                            ``tick`` with what is new; until the client leaves, or ``closing``
    ======================  ===================================================================

    At most `MAX_VIEWERS` event streams are served, others get 503.
    """
    return _UiApp(panel, closing)


class _UiApp:
    def __init__(self, panel: StateSource, closing: trio.Event) -> None:
        self._panel = panel
        self._closing = closing
        self._viewers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"].removeprefix(PREFIX)
        if scope["method"] not in ("GET", "HEAD"):
            error = APIError(405, f"Method not allowed: {scope['method']} {scope['path']}")
            await _send(error_reply(error, [(b"allow", b"GET, HEAD")]), send)
        elif path == "/state.json":
            state, _ = await self._panel.state(Cursor())
            body = msgspec.json.encode(state)
            headers = [(b"content-type", JSON_TYPE), (b"cache-control", b"no-store")]
            await _send(Reply(200, body, headers), send)
        elif path == "/events":
            await self._events(scope, receive, send)
        else:
            await _send(_file(scope, path), send)

    async def _events(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await _send(Reply(200, headers=list(_STREAM_HEADERS)), send)
        elif self._viewers >= MAX_VIEWERS or self._closing.is_set():
            error = APIError(503, "Too many viewers, or the node stops")
            retry = (b"retry-after", b"%d" % BUSY_RETRY_SECONDS)
            await _send(error_reply(error, [retry]), send)
        else:
            self._viewers += 1
            try:
                await self._stream(receive, send)
            finally:
                self._viewers -= 1

    async def _stream(self, receive: Receive, send: Send) -> None:
        headers = [*_STREAM_HEADERS, *SECURITY_HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with trio.open_nursery() as nursery:

            async def until_gone() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            async def until_closing() -> None:
                await self._closing.wait()
                # A viewer that stands still must not keep the node from stopping.
                nursery.cancel_scope.deadline = trio.current_time() + LAST_SECONDS

            nursery.start_soon(until_gone)
            nursery.start_soon(until_closing)
            await self._tell(send)
            # Only closing gets here: the end of the body tells the client that all is well.
            await send({"type": "http.response.body", "body": b""})
            nursery.cancel_scope.cancel()

    async def _tell(self, send: Send) -> None:
        """Events until closing. A client that reads slowly gets fewer of them, nothing piles up."""
        cursor, name = Cursor(), b"state"
        while not self._closing.is_set():
            state, cursor = await self._panel.state(cursor)
            event = b"event: %s\ndata: %s\n\n" % (name, msgspec.json.encode(state))
            await send({"type": "http.response.body", "body": event, "more_body": True})
            name = b"tick"
            with trio.move_on_after(TICK_SECONDS):
                await self._closing.wait()


def _file(scope: Scope, path: str) -> Reply:
    if not path:  # with the slash, the page's relative addresses work behind any prefix
        return Reply(301, headers=[(b"location", b"ui/")])
    asset: Asset | None = assets().get(path[1:] or "index.html")
    if asset is None:
        return error_reply(APIError(404, f"Path not found: {scope['method']} {scope['path']}"))
    headers = [(b"etag", asset.etag), (b"cache-control", b"no-cache")]
    if (b"if-none-match", asset.etag) in scope["headers"]:
        return Reply(304, headers=headers)
    return Reply(200, asset.data, [(b"content-type", asset.content_type), *headers])


async def _send(reply: Reply, send: Send) -> None:
    reply.headers.extend(SECURITY_HEADERS)
    await reply.send(send)
