"""Page application: assets, events, login."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from urllib.parse import parse_qs

import attrs
import msgspec
import trio

from .._asgi.access import CHALLENGE, Tokens, unauthorised
from .._asgi.replies import JSON_TYPE, Reply, error_reply, streaming
from .._asgi.types import ASGIApp, RawHeaders, Receive, Scope, Send
from ..errors import APIError
from .aggregate import StateCursor
from .panel import Panel

PREFIX = "/ui"

MAX_VIEWERS = 16
"""Event streams at once; further clients get 503. Each costs about one document a second."""

TICK_SECONDS = 1.0
BUSY_RETRY_SECONDS = 5

LAST_SECONDS = 1.0
"""Seconds that a viewer has to take its last events when the node drains."""

_STREAM_HEADERS: RawHeaders = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # or nginx would hold events back
]


def ui_app(panel: Panel, closing: trio.Event) -> ASGIApp:
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
    def __init__(self, panel: Panel, closing: trio.Event) -> None:
        self._panel = panel
        self._closing = closing
        self._viewers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"].removeprefix(PREFIX)
        if scope["method"] not in ("GET", "HEAD"):
            error = APIError(405, f"Method not allowed: {scope['method']} {scope['path']}")
            await _send(error_reply(error, [(b"allow", b"GET, HEAD")]), send)
        elif path == "/state.json":
            state, _ = await self._panel.state(StateCursor())
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
        async with streaming(receive, self._closing, LAST_SECONDS, lambda: None):
            await self._tell(send)
            # Only closing gets here: the end of the body tells the client that all is well.
            await send({"type": "http.response.body", "body": b""})

    async def _tell(self, send: Send) -> None:
        """Events until closing. A client that reads slowly gets fewer of them, nothing piles up."""
        cursor, name = StateCursor(), b"state"
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


_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

SECURITY_HEADERS: RawHeaders = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
"""With every answer: nothing but the page's own files is loaded or run, and nobody frames it."""

LOGIN_HEADERS: RawHeaders = [
    (b"content-security-policy", _POLICY.replace(b"form-action 'none'", b"form-action 'self'")),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]
"""Headers of the login form. Without the referrer, browsers would send ``Origin: null`` with the
form, and without TLS nothing else names the page that sends it."""


@attrs.frozen
class Asset:
    data: bytes
    content_type: bytes
    etag: bytes


@cache
def assets() -> dict[str, Asset]:
    """By file name. Read once: an upgrade restarts the node."""
    found = {}
    for file in files("hostler.ui").joinpath("static").iterdir():
        content_type = _TYPES.get(file.name[file.name.rfind(".") :])
        if content_type is not None:
            data = file.read_bytes()
            etag = b'"%s"' % hashlib.sha256(data).hexdigest()[:20].encode()
            found[file.name] = Asset(data, content_type, etag)
    return found


MAX_FORM_BYTES = 16_384
FORM_SECONDS = 10.0
_FILES = ("page.css", "icon.svg")
_HIDDEN = b' role="alert" hidden>'


def login_app(tokens: Tokens) -> ASGIApp:
    """The application at ``/ui`` for clients without one of the ``tokens``.

    ======================  ===================================================================
    ``GET /ui/``            401, with a form
    ``POST /ui/login``      ``token=...`` of it: 303 to the page, with a cookie; or the form again
    others                  401, but for the form's style
    ======================  ===================================================================

    The cookie lasts until the browser ends, at most 12 hours. It is good for the page only.
    """

    async def login(scope: Scope, receive: Receive, send: Send) -> None:
        reply = await _answer(scope, receive, tokens)
        reply.headers.extend([*LOGIN_HEADERS, (b"cache-control", b"no-store")])
        await reply.send(send)

    return login


async def _answer(scope: Scope, receive: Receive, tokens: Tokens) -> Reply:
    path: str = scope["path"].removeprefix(PREFIX)
    if (scope["method"], path) == ("POST", "/login"):
        with trio.move_on_after(FORM_SECONDS):
            if tokens.accepts(await _token(receive)):
                return _logged_in(scope, tokens)
            return _form(wrong=True)
        return error_reply(APIError(408, "Request body read timed out"))
    if scope["method"] not in ("GET", "HEAD"):
        return error_reply(APIError(405, f"Method not allowed: {scope['method']} {scope['path']}"))
    if not path:
        return Reply(301, headers=[(b"location", b"ui/")])
    if path[1:] in _FILES:
        asset = assets()[path[1:]]
        return Reply(200, asset.data, [(b"content-type", asset.content_type)])
    if path == "/login":
        return Reply(303, headers=[(b"location", b"./")])
    if path == "/":
        return _form(wrong=False)
    return unauthorised(b"", "FN_TOKEN")


def _form(*, wrong: bool) -> Reply:
    asset = assets()["login.html"]
    body = asset.data.replace(_HIDDEN, b' role="alert">') if wrong else asset.data
    return Reply(401, body, [(b"content-type", asset.content_type), CHALLENGE])


def _logged_in(scope: Scope, tokens: Tokens) -> Reply:
    # Without a path it is for what lies beside the form, also behind a proxy's prefix.
    name, value = tokens.session()
    cookie = f"{name}={value}; HttpOnly; SameSite=Strict"
    if scope["scheme"] == "https" or (b"x-forwarded-proto", b"https") in scope["headers"]:
        cookie += "; Secure"
    headers: RawHeaders = [(b"location", b"./"), (b"set-cookie", cookie.encode())]
    return Reply(303, headers=headers)


async def _token(receive: Receive) -> bytes:
    """The token in the form; b"" if there is none."""
    form, more = b"", True
    while more and len(form) <= MAX_FORM_BYTES:
        message = await receive()
        form += message.get("body", b"")
        more = message.get("more_body", False)
    if more:
        return b""
    return parse_qs(form.decode("latin-1")).get("token", [""])[0].strip().encode()
