"""How a browser gets to the page of a node that asks for a token."""

from __future__ import annotations

from urllib.parse import parse_qs

import trio

from hostler._asgi import (
    ASGIApp,
    RawHeaders,
    Receive,
    Reply,
    Scope,
    Send,
    Tokens,
    error_reply,
)
from hostler.errors import APIError

from ._assets import LOGIN_HEADERS, assets

PREFIX = "/ui"
MAX_FORM_BYTES = 16_384
FORM_SECONDS = 10.0
_FILES = ("page.css", "icon.svg")
_HIDDEN = b' role="alert" hidden>'


def login_app(tokens: Tokens) -> ASGIApp:
    """What there is at ``/ui`` for those who have not shown one of ``tokens``.

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
    text = "This needs a token, as Authorization: Bearer; clients send what FN_TOKEN has"
    return error_reply(APIError(401, text), [_CHALLENGE])


_CHALLENGE = (b"www-authenticate", b'Bearer realm="hostler"')


def _form(*, wrong: bool) -> Reply:
    asset = assets()["login.html"]
    body = asset.data.replace(_HIDDEN, b' role="alert">') if wrong else asset.data
    return Reply(401, body, [(b"content-type", asset.content_type), _CHALLENGE])


def _logged_in(scope: Scope, tokens: Tokens) -> Reply:
    # Without a path it is for what lies beside the form, also behind a proxy's prefix.
    name, value = tokens.session()
    cookie = f"{name}={value}; HttpOnly; SameSite=Strict"
    if scope["scheme"] == "https" or (b"x-forwarded-proto", b"https") in scope["headers"]:
        cookie += "; Secure"
    headers: RawHeaders = [(b"location", b"./"), (b"set-cookie", cookie.encode())]
    return Reply(303, headers=headers)


async def _token(receive: Receive) -> bytes:
    """That of the form; b"" if there is none."""
    form, more = b"", True
    while more and len(form) <= MAX_FORM_BYTES:
        message = await receive()
        form += message.get("body", b"")
        more = message.get("more_body", False)
    if more:
        return b""
    return parse_qs(form.decode("latin-1")).get("token", [""])[0].strip().encode()
