"""The response's side of one exchange: a `ResponseWriter` over ASGI's ``send``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple, NoReturn

import trio

from hostler._asgi import RawHeader, RawHeaders, Send
from hostler.abc import ResponseWriter
from hostler.errors import (
    ClientCancelled,
    FunctionInvalidResponse,
    FunctionResponseError,
    HostlerError,
)
from hostler.headers import HOP_BY_HOP, canonical_header, end_to_end_pairs, have_secret
from hostler.protocol import Headers

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
"""RFC 9110, sections 5.1 and 5.5: what no header may contain would split the response."""

_BODILESS = (204, 304)

ResponseHead = Callable[[int, Headers], tuple[int, Headers]]
Answer = Callable[[int, RawHeaders, bytes, tuple[RawHeader, ...]], Awaitable[None]]


class Truncated(HostlerError):
    """The response ended before it was complete, after its head had been sent."""


class AsgiWriter(ResponseWriter):
    """Sends a function's response on as it comes.

    The head is held back until the first byte of the body or the end of the call. So a call
    that fails before that gets a clean error answer, with none of the function's headers. After
    it an error can only be shown by leaving the response incomplete (`begun` tells).

    The bytes that complete a body of known length are held back until the call has ended, too: a
    client that has them all may leave at once, and must not be taken for one that cancels.

    ``call_id`` is added to the function's headers, of which one with its name is dropped.
    ``on_gone`` is called when the client turns out to be gone (here, or by `note_gone`); it has to
    cancel the call.
    ``answer`` sends a whole response, if the server can do that in one step (`OwnServer`).
    ``response_head`` makes the client's head of the function's. ``head_only`` is for a request
    whose response has no body (HEAD), whatever length it tells.
    """

    status = 0
    """The status that the client gets, 0 before there is one."""
    begun = False
    """The head was handed to the server: no other answer is possible any more."""
    gone = False
    """The client has left."""
    fdk_version = ""
    call_id = ""
    _remaining: int | None = None
    _last = b""

    def __init__(
        self,
        send: Send,
        on_gone: Callable[[], None],
        answer: Answer | None = None,
        response_head: ResponseHead | None = None,
        head_only: bool = False,
    ) -> None:
        self._send = send
        self._on_gone = on_gone
        self._answer = answer
        self._response_head = response_head
        self._bodiless = head_only
        self._fields: tuple[RawHeader, ...] = ()

    async def start(self, status: int, headers: Headers) -> None:
        """Raises `FunctionInvalidResponse` for headers that HTTP does not allow."""
        # Nothing waits here: `write` or `finish`, which comes next, is a point of cancellation.
        self.start_now(status, headers)

    def start_now(self, status: int, headers: Headers) -> bool:
        if self.status:
            raise HostlerError("the response was started twice")
        if not 200 <= status <= 599:
            raise HostlerError(f"a response can't have the status {status}")
        if self._response_head is not None:
            self.fdk_version = _fdk_version(headers)
            status, headers = self._response_head(status, headers)
        head = _known.get(key := tuple(headers)) or _remember(key, _made(headers))
        self._bodiless = self._bodiless or status in _BODILESS
        self._fields = head.fields
        self._remaining = head.length
        if status == 204 and head.length is not None:  # must not tell it (RFC 9110, section 8.6)
            self._fields = head.fields[:-1]
        if self._response_head is None:
            self.fdk_version = head.fdk_version
        self.status = status
        return True

    async def write(self, data: bytes | memoryview) -> None:
        """Raises `FunctionResponseError` for more bytes than ``Content-Length`` promised."""
        if not self.status:
            raise HostlerError("the body of a response came before its head")
        if not data or self._bodiless:
            await trio.lowlevel.checkpoint()
            return
        if self.write_now(data):
            return
        if self._remaining is not None:
            if len(data) > self._remaining:
                raise FunctionResponseError()
            self._remaining -= len(data)
        await self._begin()
        await self._pass({"type": "http.response.body", "body": bytes(data), "more_body": True})

    def write_now(self, data: bytes | memoryview) -> bool:
        if not data or self._bodiless or len(data) != self._remaining:
            return False
        self._remaining = 0
        self._last = bytes(data)
        return True

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
            self._fields = (*self._fields, (b"content-length", b"0"))
        if self.begun or self._answer is None:
            await self._begin()
            await self._pass({"type": "http.response.body", "body": self._last})
            return
        self.begun = True
        try:
            await self._answer(self.status, self.own_headers, self._last, self._fields)
        except OSError as error:
            await self._left(error)

    async def _begin(self) -> None:
        if self.begun:
            return
        self.begun = True
        headers = [*self.own_headers, *self._fields]
        await self._pass({"type": "http.response.start", "status": self.status, "headers": headers})

    async def _pass(self, message: dict[str, object]) -> None:
        try:
            await self._send(message)
        except OSError as error:
            await self._left(error)

    def note_gone(self) -> None:
        self.gone = True
        self._on_gone()

    async def _left(self, error: OSError) -> NoReturn:
        """``error`` is what servers raise for a client that has gone."""
        self.note_gone()
        await trio.lowlevel.checkpoint()
        raise ClientCancelled() from error

    @property
    def own_headers(self) -> RawHeaders:
        return [(b"fn-call-id", self.call_id.encode())] if self.call_id else []


class _Head(NamedTuple):
    """A function's headers, checked, and as the client gets them."""

    fields: tuple[RawHeader, ...]
    """The length is the last."""
    length: int | None
    fdk_version: str


_MAX_KNOWN, _MAX_KNOWN_SIZE = 512, 1024
_known: dict[Headers, _Head] = {}
"""Most answers of a function have the same."""


def _remember(headers: Headers, head: _Head) -> _Head:
    size = sum(len(name) + len(value) for name, value in headers)
    if size <= _MAX_KNOWN_SIZE and not have_secret(headers):
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[headers] = head
    return head


def _made(headers: Headers) -> _Head:
    """Raises `FunctionInvalidResponse`."""
    fields: RawHeaders = []
    lengths: set[str] = set()
    for name, value in _end_to_end(headers):
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise FunctionInvalidResponse()
        name = name.lower()
        if name == "content-length":
            lengths.add(value.strip())
        elif name != "fn-call-id":
            fields.append((name.encode("utf-8"), value.encode("utf-8")))
    length = _length(lengths)
    if length is not None:
        fields.append((b"content-length", b"%d" % length))
    return _Head(tuple(fields), length, _fdk_version(headers))


def _end_to_end(headers: Headers) -> Headers:
    """``headers`` without what is about one connection only."""
    if any(canonical_header(name) in HOP_BY_HOP for name, _ in headers):
        return end_to_end_pairs(headers)  # it may name others
    return headers


def _fdk_version(headers: Headers) -> str:
    return next((value for name, value in headers if name.lower() == "fn-fdk-version"), "")


def _length(values: set[str]) -> int | None:
    if not values:
        return None
    value = values.pop()
    if values or not (value.isascii() and value.isdigit()) or len(value) > 18:
        raise FunctionInvalidResponse()
    return int(value)
