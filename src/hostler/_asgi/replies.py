"""Responses: JSON documents, Fn's error documents, request ids."""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from ..errors import APIError, ClientCancelled, ServerBusy
from ..ids import new_id
from .types import RawHeaders, Receive, Scope, Send

JSON_TYPE = b"application/json; charset=utf-8"

RETRY_AFTER_SECONDS = 15
"""What a client is told to wait when all runners are full and nobody knows better (Fn's value)."""

_GO_ESCAPES = str.maketrans(
    {
        "<": "\\u003c",
        ">": "\\u003e",
        "&": "\\u0026",
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
        **{chr(code): "\ufffd" for code in range(0xD800, 0xE000)},
    }
)
"""What Go's JSON encoder escapes beside the usual (it makes JSON safe inside HTML), and lone
surrogates, which it replaces."""


@attrs.frozen
class Reply:
    """An answer that is known as a whole."""

    status: int
    body: bytes = b""
    headers: RawHeaders = attrs.Factory(list)
    """Without ``Content-Length``."""

    async def send(self, send: Send) -> None:
        """Send head and body with ASGI's ``send``, and ``Content-Length`` where the status allows
        it. Waits for the client as the server does; raises what ``send`` raises."""
        headers = list(self.headers)
        if self.status not in (204, 304):  # which may not have this one (RFC 9110, section 8.6)
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@asynccontextmanager
async def streaming(
    receive: Receive, closing: trio.Event, seconds: float, on_closing: Callable[[], None]
) -> AsyncIterator[None]:
    """The block sends a response without an end of its own. It is cancelled when the client leaves,
    and ``seconds`` after ``closing``: a client that takes nothing must not keep the node from
    stopping. ``on_closing`` is called at that event."""
    async with trio.open_nursery() as nursery:

        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        async def until_closing() -> None:
            await closing.wait()
            nursery.cancel_scope.deadline = trio.current_time() + seconds
            on_closing()

        nursery.start_soon(until_gone)
        nursery.start_soon(until_closing)
        yield
        nursery.cancel_scope.cancel()


def json_reply(document: object, status: int = 200) -> Reply:
    """``document`` as Go's web frameworks print it: compact, without a newline."""
    return Reply(status, _go_json(document), [(b"content-type", JSON_TYPE)])


def encoded_reply(document: bytes) -> Reply:
    """The same for a document that is JSON already, in UTF-8."""
    text = document.decode().translate(_GO_ESCAPES)
    return Reply(200, text.encode(), [(b"content-type", JSON_TYPE)])


def text_reply(text: str, status: int = 200) -> Reply:
    return Reply(status, text.encode(), [(b"content-type", b"text/plain; charset=utf-8")])


def error_reply(error: APIError, headers: Iterable[tuple[bytes, bytes]] = ()) -> Reply:
    """The answer for ``error``: its code and ``{"message": …}``.

    The message of a client that went away has no reader, so that answer is empty. A code that
    no error answer may have becomes 500.
    """
    if isinstance(error, ClientCancelled):
        return Reply(error.code, headers=list(headers))
    all_headers = [(b"content-type", JSON_TYPE), *headers]
    if isinstance(error, ServerBusy):
        all_headers.append((b"retry-after", b"%d" % _retry_after(error)))
    status = error.code if 300 <= error.code <= 599 else 500
    return Reply(status, error_document(error.message), all_headers)


def without_slash(scope: Scope) -> Reply:
    """A redirect to the same path without the slash at its end."""
    # 307 keeps the method and the body; for GET Fn answers with the older 301.
    raw = scope.get("raw_path") or scope["path"].encode()
    location = raw.removesuffix(b"/")
    if query := scope["query_string"]:
        location += b"?" + query
    return Reply(301 if scope["method"] == "GET" else 307, headers=[(b"location", location)])


def _retry_after(error: ServerBusy) -> int:
    """Whole seconds, at least one (RFC 9110, section 10.2.3)."""
    seconds = error.retry_after
    return RETRY_AFTER_SECONDS if seconds is None else max(1, math.ceil(seconds))


def error_document(message: str) -> bytes:
    """Fn's error document, with the newline that Go's encoder puts after it."""
    return _go_json({"message": message}) + b"\n"


def _go_json(document: object) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_GO_ESCAPES).encode()


_REQUEST_ID = re.compile(r"[!-~]{1,128}", re.ASCII)
"""What a client's request id has to look like: it goes into logs, and into the metadata of calls
to runners. Another is replaced by one of our own."""


def request_id(values: Sequence[str] | None) -> str:
    """That of a request whose header for it has ``values``."""
    return values[0] if values and _REQUEST_ID.fullmatch(values[0]) else new_id()
