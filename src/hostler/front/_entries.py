"""The ways in: ``/invoke`` and ``/t``, and what each makes of a request and of its response."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import ClassVar

import msgspec

from hostler._spans import PARENT, STATE, TraceContext
from hostler.errors import FunctionInvalidResponse
from hostler.functions import FunctionSource, TriggerSource
from hostler.headers import canonical_header
from hostler.models import App, Fn
from hostler.protocol import Headers

from ._head import Head
from ._writer import ResponseHead

PREFIX = "Fn-Http-H-"
"""Marks the headers of a function's own HTTP exchange, apart from those of its call."""
STATUS = "Fn-Http-Status"
LEAST_STATUS, GREATEST_STATUS = 200, 999
"""What a function may answer: any final status that has three digits (RFC 9110, section 15)."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


class Found(msgspec.Struct, frozen=True):
    """What a request calls."""

    app: App
    fn: Fn
    trigger_id: str = ""


class Entry(ABC):
    """One request's way in. ``route`` is its name in the metrics."""

    route: ClassVar[str]

    @abstractmethod
    async def find(self) -> Found:
        """Look up what is called. Raises `APIError`."""

    @abstractmethod
    def request_headers(self, head: Head, trace: TraceContext) -> dict[str, list[str]]:
        """The headers that the function gets."""

    @property
    def response_head(self) -> ResponseHead | None:
        """Makes the head that the client gets of the function's; ``None`` = it is the same. Raises
        `FunctionInvalidResponse`."""
        return None

    def is_detached(self, head: Head) -> bool:
        return False


class Way(msgspec.Struct, frozen=True):
    """How a request gets to its function: the same for all requests with the same head."""

    entry: Entry
    head: Head
    detached: bool
    response_head: ResponseHead | None

    @classmethod
    def of(cls, entry: Entry, head: Head) -> Way:
        return cls(entry, head, entry.is_detached(head), entry.response_head)


class InvokeEntry(Entry):
    """``POST /invoke/{fn_id}``: headers are passed on as they are, both ways."""

    route = "/invoke/:fn_id"

    def __init__(self, functions: FunctionSource, fn_id: str) -> None:
        self._functions = functions
        self._fn_id = fn_id

    async def find(self) -> Found:
        app, fn = await self._functions.find(self._fn_id)
        return Found(app, fn)

    def request_headers(self, head: Head, trace: TraceContext) -> dict[str, list[str]]:
        # Lists of its own: a call overrider may change them, other requests have the same head.
        headers = {name: [*values] for name, values in head.headers.items()}
        headers.pop(STATE, None)
        headers.update(trace.headers())
        return headers

    def is_detached(self, head: Head) -> bool:
        return head.headers.get("Fn-Invoke-Type") == ["detached"]


class TriggerEntry(Entry):
    """``/t/{app}/{source}``: the function sees the client's request as a request of its own.

    Its headers get a prefix on their way in and lose it on their way out, so that a client can't
    set the headers of the call, nor a function those of the connection. A trace's headers are
    there both ways: for the function's kit, and for its code.
    """

    def __init__(self, triggers: TriggerSource, app_name: str, source: str, method: str) -> None:
        self._triggers = triggers
        self._app_name = app_name
        self._source = source
        self._method = method

    route = "/t/:app_name/*trigger_source"

    async def find(self) -> Found:
        app, fn, trigger = await self._triggers.find_trigger(self._app_name, self._source)
        return Found(app, fn, trigger.id)

    def request_headers(self, head: Head, trace: TraceContext) -> dict[str, list[str]]:
        own = {
            name: [*values]  # as above
            for name, values in head.headers.items()
            if name not in (PARENT, STATE)
        }
        own.update(trace.headers())
        own.pop("Host", None)  # it is in the URL
        content_type = own.pop("Content-Type", None)
        headers = {PREFIX + name: values for name, values in own.items()}
        if content_type is not None:
            headers["Content-Type"] = content_type
        headers["Fn-Http-Method"] = [head.method]
        headers["Fn-Http-Request-Url"] = [head.url]
        headers["Fn-Intent"] = ["httprequest"]
        return {**headers, **trace.headers()}

    @property
    def response_head(self) -> ResponseHead:
        return self._response_head

    def _response_head(self, status: int, headers: Headers) -> tuple[int, Headers]:
        named = [(canonical_header(name), value) for name, value in headers]
        kept = [
            (canonical_header(name.removeprefix(PREFIX)), value)
            for name, value in named
            if name.startswith(PREFIX) and name != PREFIX
        ]
        names = {name for name, _ in kept}
        status = _status(named)
        for name, value in named:
            is_type = name == "Content-Type" and name not in names
            # The length of this message, which the function's own has to agree with; but that
            # of a response without a body is about another message.
            is_length = name == "Content-Length" and not (self._method == "HEAD" or status == 304)
            if is_type or is_length:
                kept.append((name, value))
        return status, kept


def _status(headers: list[tuple[str, str]]) -> int:
    """The status that the function has chosen; 200 if it has not, or if it is no number."""
    text = next((value for name, value in headers if name == STATUS), "")
    status = int(text) if _INTEGER.fullmatch(text) else 0
    if status <= 0:
        return 200
    if not LEAST_STATUS <= status <= GREATEST_STATUS:
        raise FunctionInvalidResponse()
    return status
