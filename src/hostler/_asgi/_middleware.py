"""Chains of middleware, and the guard that keeps their faults from clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from hostler.errors import APIError, public_error

from ._replies import error_reply
from ._types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger(__name__)

Middleware = Callable[[ASGIApp], ASGIApp]
"""Makes an application around another one, which is what any ASGI middleware does.

The one that it returns sees each request first. It may answer itself, pass the request on with
another ``scope``, ``receive`` or ``send``, or raise: an `hostler.errors.APIError` is the answer,
anything else is a 500 that tells nothing, and is logged.
"""


def with_middleware(app: ASGIApp, middleware: Iterable[Middleware]) -> ASGIApp:
    """``app`` behind ``middleware``: the first one sees a request first, and its answer last.

    What one of them, or ``app``, raises is an answer already for those before it.
    """
    guarded = _Guard(app)
    for wrap in reversed(tuple(middleware)):
        guarded = _Guard(wrap(guarded))
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
