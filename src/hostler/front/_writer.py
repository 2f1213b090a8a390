"""The response's side of one exchange: a `ResponseWriter` over ASGI's ``send``."""

from __future__ import annotations

import re
from collections.abc import Callable

import trio

from hostler._asgi import RawHeaders, Send
from hostler.abc import ResponseWriter
from hostler.errors import (
    ClientCancelled,
    FunctionInvalidResponse,
    FunctionResponseError,
    HostlerError,
)
from hostler.frames import Headers
from hostler.headers import HOP_BY_HOP, canonical_header, end_to_end_pairs

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
"""RFC 9110, sections 5.1 and 5.5: what no header may contain would split the response."""

_BODILESS = (204, 304)

ResponseHead = Callable[[int, Headers], tuple[int, Headers]]


class Truncated(HostlerError):
    """The response ended before it was complete, after its head had been sent."""


class AsgiWriter(ResponseWriter):
    """Sends a function's response on as it comes.

    The head is held back until the first byte of the body or the end of the call. So a call
    that fails before that gets a clean error answer, with none of the function's headers. After
    it an error can only be shown by leaving the response incomplete (`begun` tells).

    The bytes that complete a body of known length are held back until the call has ended, too: a
    client that has them all may leave at once, and must not be taken for one that cancels.

    ``own_headers`` are added to the function's, of which those with the same names are dropped.
    ``on_gone`` is called when the client turns out to be gone; it has to cancel the call.
    ``response_head`` makes the client's head of the function's. ``head_only`` is for a request
    whose response has no body (HEAD), whatever length it tells.
    """

    def __init__(
        self,
        send: Send,
        on_gone: Callable[[], None],
        own_headers: RawHeaders | None = None,
        *,
        response_head: ResponseHead | None = None,
        head_only: bool = False,
    ) -> None:
        self._send = send
        self._on_gone = on_gone
        self._response_head = response_head
        self._bodiless = head_only
        self.own_headers: RawHeaders = own_headers or []
        self.status = 0
        """The status that the client gets, 0 before there is one."""
        self._headers: RawHeaders = []
        self._remaining: int | None = None
        self._last = b""
        self.begun = False
        """The head was handed to the server: no other answer is possible any more."""
        self.fdk_version = ""

    async def start(self, status: int, headers: Headers) -> None:
        """Raises `FunctionInvalidResponse` for headers that HTTP does not allow."""
        # Nothing waits here: `write` or `finish`, which comes next, is a point of cancellation.
        if self.status:
            raise HostlerError("the response was started twice")
        if not 200 <= status <= 599:
            raise HostlerError(f"a response can't have the status {status}")
        self.fdk_version = _fdk_version(headers)
        if self._response_head is not None:
            status, headers = self._response_head(status, headers)
        self._bodiless = self._bodiless or status in _BODILESS
        self._headers, self._remaining = self._encode(headers, tells_length=status != 204)
        self.status = status

    async def write(self, data: bytes | memoryview) -> None:
        """Raises `FunctionResponseError` for more bytes than ``Content-Length`` promised."""
        if not self.status:
            raise HostlerError("the body of a response came before its head")
        if not data or self._bodiless:
            await trio.lowlevel.checkpoint()
            return
        if self._remaining is not None:
            if len(data) > self._remaining:
                raise FunctionResponseError()
            self._remaining -= len(data)
            if not self._remaining:
                self._last = bytes(data)
                return
        await self._begin()
        await self._pass({"type": "http.response.body", "body": bytes(data), "more_body": True})

    async def finish(self) -> None:
        """The call succeeded: complete the response.

        Raises `HostlerError` if it was never started, `FunctionResponseError` if it is too
        short and nothing was sent yet, `Truncated` if it is too short and something was.
        """
        if not self.status:
            raise HostlerError("the call ended without a response")
        if self._remaining and not self._bodiless:
            raise Truncated("the body is too short") if self.begun else FunctionResponseError()
        if not self.begun and self._remaining is None and not self._bodiless:
            self._headers.append((b"content-length", b"0"))
        await self._begin()
        await self._pass({"type": "http.response.body", "body": self._last})

    async def _begin(self) -> None:
        if self.begun:
            return
        self.begun = True
        await self._pass(
            {"type": "http.response.start", "status": self.status, "headers": self._headers}
        )

    async def _pass(self, message: dict[str, object]) -> None:
        try:
            await self._send(message)
        except OSError as error:  # what ASGI servers raise for a client that has gone
            self._on_gone()
            await trio.lowlevel.checkpoint()
            raise ClientCancelled() from error

    def _encode(self, headers: Headers, *, tells_length: bool) -> tuple[RawHeaders, int | None]:
        raw = list(self.own_headers)
        own = [name for name, _ in raw]
        lengths: set[str] = set()
        for pair in _end_to_end(headers):
            field = _known.get(pair)
            if field is None:
                field = _field(pair)
            name, value = field
            if name == b"content-length":
                lengths.add(value.decode().strip())
            elif name not in own:
                raw.append(field)
        length = _length(lengths)
        if length is not None and tells_length:  # a 204 must not (RFC 9110, section 8.6)
            raw.append((b"content-length", b"%d" % length))
        return raw, length


_MAX_KNOWN, _MAX_KNOWN_SIZE = 512, 256
_known: dict[tuple[str, str], tuple[bytes, bytes]] = {}
"""Headers that were checked and encoded: most answers of a function have the same."""


def _end_to_end(headers: Headers) -> Headers:
    """``headers`` without what is about one connection only."""
    for pair in headers:
        if pair not in _known and canonical_header(pair[0]) in HOP_BY_HOP:
            return end_to_end_pairs(headers)  # it may name others
    return headers


def _field(pair: tuple[str, str]) -> tuple[bytes, bytes]:
    """A header as it is sent. Raises `FunctionInvalidResponse`."""
    name, value = pair
    if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
        raise FunctionInvalidResponse()
    field = (name.lower().encode("utf-8"), value.encode("utf-8"))
    if len(name) + len(value) <= _MAX_KNOWN_SIZE and canonical_header(name) not in HOP_BY_HOP:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[pair] = field
    return field


def _fdk_version(headers: Headers) -> str:
    return next((value for name, value in headers if name.lower() == "fn-fdk-version"), "")


def _length(values: set[str]) -> int | None:
    if not values:
        return None
    value = values.pop()
    if values or not (value.isascii() and value.isdigit()) or len(value) > 18:
        raise FunctionInvalidResponse()
    return int(value)
