"""One request on a connection and its response, spoken to the application as ASGI."""

from __future__ import annotations

import math
from contextlib import suppress
from http.client import responses
from typing import TYPE_CHECKING

import h11
import structlog
import trio

from hostler._asgi import (
    JSON_TYPE,
    READ_AHEAD,
    BodyTimeout,
    Message,
    RawHeader,
    RawHeaders,
    Scope,
    as_extension,
    error_document,
)
from hostler._plain_http import write_head, write_response
from hostler.protocol import BODY_PIECE

from ._dates import http_date
from ._framing import ChunkLines
from ._limits import within
from ._request import RequestHead
from ._routes import CALL_PATHS
from ._socket import ClientGone

if TYPE_CHECKING:
    from ._connection import Connection

log = structlog.get_logger(__name__)

LAST_SECONDS = 1.0
"""How long a client has for the answer that its request has ended with a drain's time."""


class Exchange:
    """One request and its response: the two callables that ASGI wants, and an `OwnServer`.

    ``plain_body`` is there if the request is plain: what has come of its body, of which ``left``
    bytes are to come. h11 knows nothing of it then, and ``closes`` says whether it is the last of
    its connection."""

    # (Most stay as they are.)
    _body_given = False
    _status = 0
    _fields: RawHeaders
    _begun = False
    _late = False
    _bad_body: h11.RemoteProtocolError | None = None
    _continuing: trio.Event | None = None
    _chunk_lines: ChunkLines | None = None
    """Of a chunked body."""
    _due: int | None = None
    """Bytes of body that the response still has to have, if its head was plain."""
    answered = False
    """The response is complete."""

    def __init__(
        self,
        connection: Connection,
        head: RequestHead,
        plain_body: bytes | None = None,
        left: int = 0,
        closes: bool = False,
    ) -> None:
        self._connection = connection
        self._head = head
        self._plain = plain_body is not None
        self._closes = closes
        self._left = left
        self._body_here = self._plain and not left
        self._chunks: list[bytes] = [plain_body] if plain_body and left else []
        self.body = None if left else plain_body
        self.connection_scope = connection.scope
        self.tell_gone = connection.tell_gone

    @property
    def looks_complete(self) -> bool:
        """A part of the response may have been sent, whose end is the end of the connection."""
        return not self.answered and self._begun and self._head.version == "1.0"

    @property
    def takes_interim(self) -> bool:
        """Whether an interim response may be sent: the response has not begun."""
        return not self._begun and self._head.version != "1.0"

    @property
    def is_read(self) -> bool:
        """The client has nothing more to say of this request, for all that is known here."""
        return self._plain and self._body_here

    @property
    def reusable(self) -> bool:
        if not self.answered:
            return False
        if self._plain:
            return self._body_here and not self._closes
        http = self._connection.h11
        return http.our_state is h11.DONE and http.their_state is h11.DONE

    async def run(self) -> None:
        """Let the application answer. Raises `ClientGone`."""
        if not self._body_here:
            await self._take_small_body()
        head = self._head
        try:
            handler = head.handler
            if handler is None:
                handler = head.handler = self._connection.owner.handler(head)
            await handler(self)
        except ClientGone:
            raise
        except Exception:
            log.exception("the application failed")
            await self._last_resort(500, "internal server error")
        except trio.Cancelled:
            if self._connection.ends:
                with trio.move_on_after(LAST_SECONDS, shield=True), suppress(ClientGone):
                    await self._last_resort(503, "The server is shutting down")
            raise
        else:
            if self._bad_body is not None:
                await self._last_resort(self._bad_body.error_status_hint, str(self._bad_body))

    async def _take_small_body(self) -> None:
        """That of a call is taken whole before the application is asked, so that a client which is
        slow to send it costs little more than one which is slow with its head. Others have limits
        of their own."""
        config = self._connection.owner.config
        try:
            if not self._plain:
                if any(name == b"transfer-encoding" for name, _ in self._head.fields):
                    self._chunk_lines = ChunkLines()
                    self._chunk_lines.check(self._connection.h11.trailing_data[0])
                self._pull()
            if not self._body_here and self._declared() <= min(
                READ_AHEAD, config.max_request_size or READ_AHEAD
            ):
                self._late = not await within(config.request_body_read_timeout, self._whole_body)
        except h11.RemoteProtocolError as error:
            self._bad_body = error
        except ClientGone:
            self._body_given = True
        if self._body_here:
            self.body = b"".join(self._chunks)

    def _declared(self) -> float:
        """Bytes of the body; infinite if they are not known, or will not come by themselves."""
        if not self._head.target.startswith(CALL_PATHS) or self._waits_for_100:
            return math.inf
        lengths = (value for name, value in self._head.fields if name == b"content-length")
        return int(next(lengths, 0)) or math.inf

    @property
    def _waits_for_100(self) -> bool:
        return not self._plain and self._connection.h11.they_are_waiting_for_100_continue

    async def _whole_body(self) -> None:
        while not self._body_here:
            await self._more_body()

    def scope(self) -> Scope:
        return self._head.scope(self._connection.peer, as_extension(self))

    async def receive(self) -> Message:
        """The next piece of the body; after it, and after trouble with it, the disconnect.

        Raises `BodyTimeout` for a small body that was late."""
        if self._late:
            raise BodyTimeout
        try:
            while not self._chunks and not self._body_given:
                if self._body_here:
                    break
                await self._more_body()
        except (h11.RemoteProtocolError, ClientGone) as error:
            if isinstance(error, h11.RemoteProtocolError):
                self._bad_body = error
            self._body_given = True
            return {"type": "http.disconnect"}
        if self._body_given:
            if not self.answered and self._bad_body is None:
                await self._wait_gone()
            return {"type": "http.disconnect"}
        body = b"".join(self._chunks) if self.body is None else self.body
        self._chunks.clear()
        self._body_given = self._body_here
        return {"type": "http.request", "body": body, "more_body": not self._body_here}

    async def _more_body(self) -> None:
        if self._bad_body is not None:
            raise self._bad_body
        if self._plain:
            data = await self._connection.read(min(self._left, BODY_PIECE))
            if self._plain:  # the response may have become h11's meanwhile
                self._take(data)
                return
            self._connection.h11.receive_data(data)
            self._pull()
            return
        if self._waits_for_100 and not self._begun:
            self._continuing = trio.Event()
            try:
                response = h11.InformationalResponse(status_code=100, headers=[])
                await self._connection.send_all(self._connection.h11.send(response) or b"")
            finally:
                self._continuing.set()
        data = await self._connection.read()
        if self._chunk_lines is not None:
            self._chunk_lines.check(data)
        self._connection.h11.receive_data(data)
        self._pull()

    def _take(self, data: bytes) -> None:
        """The next piece of a plain body."""
        if not data:
            text = f"peer closed connection, {self._left} bytes short of the body"
            raise h11.RemoteProtocolError(text)
        self._chunks.append(data)
        self._left -= len(data)
        self._body_here = not self._left

    def _pull(self) -> None:
        """Take the part of the body that h11 already has."""
        while not self._body_here and not self._plain:
            event = self._connection.h11.next_event()
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

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            # (Each may be a list, too.)
            self._fields = [(name, value) for name, value in message.get("headers", ())]
            await trio.lowlevel.checkpoint_if_cancelled()  # the body is sent next
            return
        assert self._status, "a body came before the response's start"
        assert not self.answered, "a body came after the response's end"
        body, more = message.get("body", b""), message.get("more_body", False)
        if not more and not self._begun:
            await self.answer(self._status, self._fields, body)
            return
        data = self._plain_piece(body, more=more)
        if data is None:
            data = self._encode(body, more=more)
        if not data:
            await trio.lowlevel.checkpoint()
        elif more:
            if self._continuing is not None:
                await self._continuing.wait()
            await self._connection.send_all(data)
        else:
            await self._connection.send_last(data)
        self.answered = not more

    async def answer(
        self, status: int, headers: RawHeaders, body: bytes, usual: tuple[RawHeader, ...] = ()
    ) -> None:
        data: bytes | None = None
        if self._plain:
            closes = self._note_close()
            data = write_response(
                status, headers, body, usual=usual, date=http_date(), closes=closes
            )
        if data is None:
            self._status, self._fields = status, [*headers, *usual]
            data = self._encode(body, more=False)
            if self._continuing is not None:
                await self._continuing.wait()
        self._begun = True
        await self._connection.send_last(data)
        self.answered = True

    def _note_close(self) -> bool:
        """Whether the connection ends with this answer."""
        self._closes = self._closes or self._connection.owner.draining or not self._body_here
        return self._closes

    def _plain_piece(self, body: bytes, *, more: bool) -> bytes | None:
        """The next part of a plain response, of which the head tells the length."""
        if not self._plain:
            return None
        data = body
        if not self._begun:
            found = write_head(
                self._status, self._fields, date=http_date(), closes=self._note_close()
            )
            if found is None:
                return None
            head, self._due = found
            self._begun = True
            data = head + body
        assert self._due is not None
        self._due -= len(body)
        if self._due < 0 or (self._due and not more):
            raise RuntimeError("the body of a response is not as long as its head says")
        return data

    def _complete_head(self) -> None:
        if not any(name.lower() == b"date" for name, _ in self._fields):
            self._fields.append((b"date", http_date()))
        if not self._body_here or self._connection.owner.draining:
            self._fields.append((b"connection", b"close"))

    def _encode(self, body: bytes, *, more: bool) -> bytes:
        """The next part of the response, by h11."""
        if self._plain:
            self._plain = False
            self._connection.catch_up(self._left)
        events: list[h11.Event] = []
        if not self._begun:
            self._complete_head()
            reason = reason_of(self._status)
            head = h11.Response(status_code=self._status, headers=self._fields, reason=reason)
            self._begun = True
            events.append(head)
        if body and not self._bodiless():
            events.append(h11.Data(data=body))
        if not more:
            events.append(h11.EndOfMessage())
        return b"".join(data for event in events if (data := self._connection.h11.send(event)))

    def _bodiless(self) -> bool:
        return self._head.method == b"HEAD" or self._status in (204, 304)

    async def _last_resort(self, status: int, text: str) -> None:
        if not self._begun:
            body = error_document(text)
            headers = [(b"content-type", JSON_TYPE), (b"content-length", b"%d" % len(body))]
            await self.answer(status, headers, body)


def reason_of(status: int) -> bytes:
    """The reason phrase; empty if HTTP has none for it."""
    return responses.get(status, "").encode("ascii")
