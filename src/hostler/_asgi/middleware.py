"""Middleware chains, the guard that turns exceptions into responses, CORS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from ..errors import APIError, ConfigError, public_error
from .replies import Reply, error_reply
from .types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

log = structlog.get_logger(__name__)

Middleware = Callable[[ASGIApp], ASGIApp]
"""Makes an application around another one, which is what any ASGI middleware does.

The one that it returns sees each request first. It may answer itself, pass the request on with
another ``scope``, ``receive`` or ``send``, or raise: an `hostler.errors.APIError` is the answer,
anything else is a 500 that tells nothing, and is logged.
"""


def with_middleware(app: ASGIApp, middleware: Iterable[Middleware]) -> ASGIApp:
    """``app`` behind ``middleware``: the first one sees a request first, and its answer last.

    What one of them, or ``app``, raises is an answer already for those before it. Raises
    `ConfigError` for a middleware that returns no application.
    """
    guarded = _Guard(app)
    for wrap in reversed(tuple(middleware)):
        wrapped = wrap(guarded)
        if not callable(wrapped):
            name = getattr(wrap, "__qualname__", type(wrap).__qualname__)
            made = type(wrapped).__name__
            raise ConfigError(f"middleware {name}: must return an application, not a {made}")
        guarded = _Guard(wrapped)
    return guarded


class _Guard:
    """Turns what an application raises into an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sender = _Sender(send)
        try:
            await self._app(scope, receive, sender)
        except APIError as error:
            if sender.broken:
                raise
            await _answer(error, scope, sender)
        except Exception as error:
            if sender.broken:  # the client has gone: the server's business
                raise
            log.exception("request failed", method=scope["method"], path=scope["path"])
            await _answer(public_error(error), scope, sender)


class _Sender:
    """Knows how far the answer is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.broken = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        try:
            await self._send(message)
        except Exception:
            self.broken = True
            raise


async def _answer(error: APIError, scope: Scope, sender: _Sender) -> None:
    """An answer that has begun can't become another: left incomplete, it is seen as broken."""
    if sender.begun:
        log.warning("answer broken off", method=scope["method"], path=scope["path"])
        return
    await error_reply(error).send(sender)


METHODS = b"GET,POST,PUT,HEAD,DELETE"

DEFAULT_HEADERS = ("Origin", "Content-Length", "Content-Type")
"""What browsers may send if the configuration does not say (Fn's list)."""

_DONE = "hostler.cors"
"""In the scope of a request that has passed: applications within others may each have it."""

_PREFLIGHT = b"access-control-request-method"

MAX_AGE_SECONDS = 12 * 3600
"""How long a browser may keep the answer to a preflight (Fn's value)."""


def cors(origins: Sequence[str], headers: Sequence[str] = ()) -> Middleware:
    """Let pages of ``origins`` (``https://host:port``; the first ``*`` = all) make requests.

    A request that says it comes from another origin, and not from this server's own pages, is
    refused with 403, as Fn does: else the browser would only hide the answer, and the change
    would be made. ``headers`` are the request headers that pages may set.

    Every answer tells caches what it depends on, also one to a request without an origin: a cache
    that has it would give it to a page, whose browser would then look for the header in vain.
    """
    allowed = {origin.rstrip("/").lower() for origin in origins}
    everyone = bool(origins) and origins[0] == "*"
    names = ",".join(headers or DEFAULT_HEADERS).encode()

    def wrap(app: ASGIApp) -> ASGIApp:
        return _Cors(app, allowed, everyone, names)

    return wrap


class _Cors:
    def __init__(self, app: ASGIApp, allowed: set[str], everyone: bool, names: bytes) -> None:
        self._app = app
        self._allowed = allowed
        self._everyone = everyone
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _DONE in scope:
            await self._app(scope, receive, send)
            return
        headers = dict(scope.get("headers", ()))
        origin: bytes | None = headers.get(b"origin")
        accepted = origin is not None and self._accepts(origin)
        send = _adding(send, self._marks(origin if accepted else None))
        if origin is not None and not accepted and not _is_own(origin, headers.get(b"host", b"")):
            await error_reply(APIError(403, "Origin not allowed")).send(send)
        elif scope["method"] == "OPTIONS" and accepted and _PREFLIGHT in headers:
            await Reply(204, headers=self._preflight()).send(send)
        else:
            await self._app({**scope, _DONE: True}, receive, send)

    def _accepts(self, origin: bytes) -> bool:
        return self._everyone or origin.decode("latin-1").lower() in self._allowed

    def _marks(self, accepted: bytes | None) -> RawHeaders:
        """What is on every answer (https://fetch.spec.whatwg.org, "CORS protocol and HTTP
        caches")."""
        if self._everyone:
            return [(b"access-control-allow-origin", b"*")]
        vary = [(b"vary", b"Origin")]
        return vary if accepted is None else [(b"access-control-allow-origin", accepted), *vary]

    def _preflight(self) -> RawHeaders:
        return [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", self._names),
            (b"access-control-max-age", b"%d" % MAX_AGE_SECONDS),
        ]


def _adding(send: Send, headers: RawHeaders) -> Send:
    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return adding


def _is_own(origin: bytes, host: bytes) -> bool:
    """Browsers name the origin of a page's own server, too."""
    return bool(host) and origin.split(b"://", 1)[-1] == host
