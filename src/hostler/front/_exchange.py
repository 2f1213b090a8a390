"""One request on a connection and its response, spoken to the application as ASGI."""

from __future__ import annotations

import math
from http.client import responses
from typing import TYPE_CHECKING
from urllib.parse import unquote

import h11
import structlog
import trio

from hostler._asgi import (
    JSON_TYPE,
    ON_DISCONNECT,
    READ_AHEAD,
    WHOLE_BODY,
    BodyTimeout,
    Message,
    RawHeaders,
    Scope,
    error_document,
)

from ._dates import http_date
from ._limits import within
from ._routes import CALL_PATHS

if TYPE_CHECKING:
    from ._connection import Connection

log = structlog.get_logger(__name__)

RECEIVE_BYTES = 64 * 1024


class ClientGone(OSError):
    """The client has closed the connection, or did not take a part of its response in time."""


class Exchange:
    """One request and its response: the two callables that ASGI wants."""

    def __init__(self, connection: Connection, request: h11.Request) -> None:
        self._connection = connection
        self._h11 = connection.h11
        self._request = request
        self._chunks: list[bytes] = []
        self._body_here = False
        self._body_given = False
        self._head: h11.Response | None = None
        self._begun = False
        self._late = False
        self._bad_body: h11.RemoteProtocolError | None = None
        self._continuing: trio.Event | None = None
        self._torn = False
        """A part of the response may have been sent by half."""
        self.answered = False
        """The response is complete."""

    @property
    def close_delimited(self) -> bool:
        """The response has begun, and its end is the end of the connection."""
        return self._begun and self._request.http_version == b"1.0"

    @property
    def reusable(self) -> bool:
        done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        return done and not self._torn

    async def run(self) -> None:
        """Let the application answer. Raises `ClientGone`."""
        await self._take_small_body()
        try:
            await self._connection.owner.app(self._scope(), self._receive, self._send)
        except ClientGone:
            raise
        except Exception:
            log.exception("the application failed")
            await self._last_resort(500, "internal server error")
        else:
            if self._bad_body is not None:
                await self._last_resort(self._bad_body.error_status_hint, str(self._bad_body))

    async def _take_small_body(self) -> None:
        """That of a call is taken whole before the application is asked, so that a client which is
        slow to send it costs little more than one which is slow with its head. Others have limits
        of their own."""
        config = self._connection.owner.config
        try:
            self._pull()
            if not self._body_here and self._declared() <= min(
                READ_AHEAD, config.max_request_size or READ_AHEAD
            ):
                self._late = not await within(config.request_body_read_timeout, self._whole_body)
        except h11.RemoteProtocolError as error:
            self._bad_body = error
        except trio.BrokenResourceError:
            self._body_given = True

    def _declared(self) -> float:
        """Bytes of the body; infinite if they are not known, or will not come by themselves."""
        is_call = self._request.target.startswith(CALL_PATHS)
        if not is_call or self._h11.they_are_waiting_for_100_continue:
            return math.inf
        lengths = (value for name, value in self._request.headers if name == b"content-length")
        return int(next(lengths, 0)) or math.inf

    async def _whole_body(self) -> None:
        while not self._body_here:
            await self._more_body()

    def _scope(self) -> Scope:
        request = self._request
        target, _, query = request.target.partition(b"?")
        headers = list(request.headers)
        if not target.startswith(b"/") and b"://" in target:  # the absolute form of proxies
            host, _, path = target.split(b"://", 1)[1].partition(b"/")
            target = b"/" + path
            # It counts for more than the header (RFC 9112, section 3.2.2).
            headers = [pair for pair in headers if pair[0] != b"host"]
            headers.append((b"host", host))
        stream = self._connection.stream
        extensions: dict[str, object] = {ON_DISCONNECT: {"call": self._connection.tell_gone}}
        if self._body_here:
            extensions[WHOLE_BODY] = {}
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"),
            "scheme": "http",
            "path": unquote(target.decode("ascii")),
            "raw_path": target,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": _peer(stream),
            "server": None,
            "extensions": extensions,
        }

    async def _receive(self) -> Message:
        """The next piece of the body; after it, and after trouble with it, the disconnect.

        Raises `BodyTimeout` for a small body that was late."""
        if self._late:
            raise BodyTimeout
        try:
            while not self._chunks and not self._body_given:
                if self._body_here:
                    break
                await self._more_body()
        except (h11.RemoteProtocolError, trio.BrokenResourceError, ClientGone) as error:
            if isinstance(error, h11.RemoteProtocolError):
                self._bad_body = error
            self._body_given = True
            return {"type": "http.disconnect"}
        if self._body_given:
            if not self.answered and self._bad_body is None:
                await self._wait_gone()
            return {"type": "http.disconnect"}
        body = b"".join(self._chunks)
        self._chunks.clear()
        self._body_given = self._body_here
        return {"type": "http.request", "body": body, "more_body": not self._body_here}

    async def _more_body(self) -> None:
        if self._bad_body is not None:
            raise self._bad_body
        if self._h11.they_are_waiting_for_100_continue and not self._begun:
            self._continuing = trio.Event()
            try:
                response = h11.InformationalResponse(status_code=100, headers=[])
                await self._connection.send_all(self._h11.send(response) or b"")
            finally:
                self._continuing.set()
        self._h11.receive_data(await self._connection.stream.receive_some(RECEIVE_BYTES))
        self._pull()

    def _pull(self) -> None:
        """Take the part of the body that h11 already has."""
        while not self._body_here:
            event = self._h11.next_event()
            if isinstance(event, h11.Data):
                self._chunks.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._body_here = True
            else:
                return

    async def _wait_gone(self) -> None:
        """Return when the client has closed its side. What it sends is its next request, and is
        not looked at."""
        gone = trio.Event()
        self._connection.tell_gone(gone.set)
        await gone.wait()

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = self._response(message["status"], list(message.get("headers", ())))
            await trio.lowlevel.checkpoint_if_cancelled()  # the body is sent next
            return
        parts: list[bytes | None] = []
        if not self._begun:
            assert self._head is not None, "a body came before the response's start"
            self._begun = True
            parts.append(self._h11.send(self._head))
        if (body := message.get("body", b"")) and not self._bodiless():
            parts.append(self._h11.send(h11.Data(data=body)))
        if not message.get("more_body", False):
            parts.append(self._h11.send(h11.EndOfMessage()))
            self.answered = True
        await self._write(b"".join(part for part in parts if part))

    def _bodiless(self) -> bool:
        assert self._head is not None
        return self._request.method == b"HEAD" or self._head.status_code in (204, 304)

    async def _write(self, data: bytes) -> None:
        if not data:
            await trio.lowlevel.checkpoint()
            return
        if self._continuing is not None:
            await self._continuing.wait()
        self._torn = True
        await (self._connection.send_last if self.answered else self._connection.send_all)(data)
        self._torn = False

    def _response(self, status: int, headers: RawHeaders) -> h11.Response:
        names = {name.lower() for name, _ in headers}
        if b"date" not in names:
            headers.append((b"date", http_date()))
        if not self._body_here or self._connection.owner.draining:
            headers.append((b"connection", b"close"))
        return h11.Response(status_code=status, headers=headers, reason=reason_of(status))

    async def _last_resort(self, status: int, text: str) -> None:
        if not self._begun:
            body = error_document(text)
            headers = [(b"content-type", JSON_TYPE), (b"content-length", b"%d" % len(body))]
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
            await self._send({"type": "http.response.body", "body": body})


def reason_of(status: int) -> bytes:
    """The reason phrase; empty if HTTP has none for it."""
    return responses.get(status, "").encode("ascii")


def _peer(stream: trio.SocketStream) -> tuple[str, int] | None:
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return None
    return host, port
