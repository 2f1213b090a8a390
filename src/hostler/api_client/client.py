"""The API as a datastore: requests, retries, errors."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote, urlsplit

import attrs
import httpx
import msgspec
import structlog
import trio

from .._spans import PARENT, ending, request_span
from ..config import ApiConfig, is_host
from ..datastore import AppFilter, AppPatch, FnFilter, FnPatch, Page, TriggerFilter, TriggerPatch
from ..errors import ConfigError
from ..models import App, Fn, Trigger
from ..rules.errors import AppNotFound
from .calls import ApiUnavailable, authorization, message_of, no_api, refusal
from .documents import AppDocument, FnDocument, ListDocument, TriggerDocument

MAX_CONNECTIONS = 64

CONNECT_SECONDS = 5.0

_T = TypeVar("_T")


class ApiClient:
    """A `hostler.datastore.Datastore`, which says what the methods do, behind the API of a node.

    `open_api_client` makes it. Instead of `DatastoreUnavailable` operations raise its subclass
    `ApiUnavailable`. Of a cancelled change it is not known whether it was made. ``per_page`` is
    bounded by the API, where 0 means its default (30).
    """

    def __init__(self, connection: ApiConnection) -> None:
        self._connection = connection

    # --- apps ---

    async def list_apps(self, where: AppFilter) -> Page[App]:
        """``GET /v2/apps``: one page. Raises `InvalidCursor`. Tried again if the API fails."""
        found = await self._list("/v2/apps", where, ListDocument[AppDocument])
        return Page([item.value() for item in found.items or ()], found.next_cursor)

    async def create_app(self, app: App) -> App:
        """``POST /v2/apps``. Tried again only if it was certainly not sent."""
        return (await self._write("POST", "/v2/apps", AppDocument.of(app))).value()

    async def get_app(self, app_id: str) -> App:
        """``GET /v2/apps/{id}``. Raises `AppNotFound`. Tried again if the API fails."""
        return (await self._read(f"/v2/apps/{_part(app_id)}", AppDocument)).value()

    async def update_app(self, app_id: str, patch: AppPatch) -> App:
        """``PUT /v2/apps/{id}``. Tried again only if it was certainly not sent."""
        path = f"/v2/apps/{_part(app_id)}"
        return (await self._write("PUT", path, AppDocument.of(patch))).value()

    async def delete_app(self, app_id: str) -> None:
        """``DELETE /v2/apps/{id}``. Raises `AppNotFound`. Tried again only if it was certainly not
        sent."""
        await self._connection.send("DELETE", f"/v2/apps/{_part(app_id)}")

    async def app_id_by_name(self, name: str) -> str:
        """Lists the apps with this name. Raises `AppNotFound`. Tried again if the API fails."""
        found = await self.list_apps(AppFilter(name=name))
        if not found.items:
            raise AppNotFound
        return found.items[0].id

    # --- functions ---

    async def list_fns(self, where: FnFilter) -> Page[Fn]:
        """``GET /v2/fns``: one page. Raises `FnMissingAppID` and `InvalidCursor`. Tried again if
        the API fails."""
        found = await self._list("/v2/fns", where, ListDocument[FnDocument])
        return Page([item.value() for item in found.items or ()], found.next_cursor)

    async def create_fn(self, fn: Fn) -> Fn:
        """``POST /v2/fns``. Tried again only if it was certainly not sent."""
        return (await self._write("POST", "/v2/fns", FnDocument.of(fn))).value()

    async def get_fn(self, fn_id: str) -> Fn:
        """``GET /v2/fns/{id}``. Raises `FnNotFound`. Tried again if the API fails."""
        return (await self._read(f"/v2/fns/{_part(fn_id)}", FnDocument)).value()

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        """Two requests: the function's app may be another version than when it was read."""
        fn = await self.get_fn(fn_id)
        return await self.get_app(fn.app_id), fn

    async def update_fn(self, fn_id: str, patch: FnPatch) -> Fn:
        """``PUT /v2/fns/{id}``. Tried again only if it was certainly not sent."""
        path = f"/v2/fns/{_part(fn_id)}"
        return (await self._write("PUT", path, FnDocument.of(patch))).value()

    async def delete_fn(self, fn_id: str) -> None:
        """``DELETE /v2/fns/{id}``. Raises `FnNotFound`. Tried again only if it was certainly not
        sent."""
        await self._connection.send("DELETE", f"/v2/fns/{_part(fn_id)}")

    # --- triggers ---

    async def list_triggers(self, where: TriggerFilter) -> Page[Trigger]:
        """``GET /v2/triggers``: one page. Raises `TriggerMissingAppID` and `InvalidCursor`. Tried
        again if the API fails."""
        found = await self._list("/v2/triggers", where, ListDocument[TriggerDocument])
        return Page([item.value() for item in found.items or ()], found.next_cursor)

    async def create_trigger(self, trigger: Trigger) -> Trigger:
        """``POST /v2/triggers``. Tried again only if it was certainly not sent."""
        return (await self._write("POST", "/v2/triggers", TriggerDocument.of(trigger))).value()

    async def get_trigger(self, trigger_id: str) -> Trigger:
        """``GET /v2/triggers/{id}``. Raises `TriggerNotFound`. Tried again if the API fails."""
        return (await self._read(f"/v2/triggers/{_part(trigger_id)}", TriggerDocument)).value()

    async def trigger_by_source(self, app_id: str, type: str, source: str) -> Trigger:
        """Asks by the path that Fn's LBs use. Raises `TriggerNotFound`. Tried again if the API
        fails."""
        # The source's own slash makes a double one; the API takes one away (Fn's protocol).
        parts = "/".join(_part(part) for part in source.split("/"))
        path = f"/v2/runner/apps/{_part(app_id)}/triggerBySource/{_part(type)}/{parts}"
        return (await self._read(path, TriggerDocument)).value()

    async def update_trigger(self, trigger_id: str, patch: TriggerPatch) -> Trigger:
        """``PUT /v2/triggers/{id}``. Tried again only if it was certainly not sent."""
        path = f"/v2/triggers/{_part(trigger_id)}"
        return (await self._write("PUT", path, TriggerDocument.of(patch))).value()

    async def delete_trigger(self, trigger_id: str) -> None:
        """``DELETE /v2/triggers/{id}``. Raises `TriggerNotFound`. Tried again only if it was
        certainly not sent."""
        await self._connection.send("DELETE", f"/v2/triggers/{_part(trigger_id)}")

    # --- requests ---

    async def _list(
        self, path: str, where: AppFilter | FnFilter | TriggerFilter, type_: type[_T]
    ) -> _T:
        fields = attrs.asdict(where)
        query = {name: str(value) for name, value in fields.items() if value}
        return _decode(await self._connection.send("GET", path, query=query), type_)

    async def _read(self, path: str, type_: type[_T]) -> _T:
        return _decode(await self._connection.send("GET", path), type_)

    async def _write(self, method: str, path: str, document: _T) -> _T:
        body = await self._connection.send(method, path, body=msgspec.json.encode(document))
        return _decode(body, type(document))


@asynccontextmanager
async def open_api_client(
    url: str, config: ApiConfig | None = None, *, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[ApiClient]:
    """A client of the API at ``url``: its path goes before ``/v2`` (which it may end with), as that
    of a proxy; a query does not count.

    Connects when there is something to ask. ``transport`` replaces the network. Raises
    `ConfigError` for a bad URL.
    """
    config = config or ApiConfig()
    async with httpx.AsyncClient(
        base_url=_base(url),
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),  # the whole has a limit of its own
        limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
        headers=authorization(config.token),
        transport=transport,
    ) as client:
        yield ApiClient(ApiConnection(client, config.api_timeout))


def _base(url: str) -> str:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no URL of an API: {error}") from error
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or not is_host(host):
        raise ConfigError(f"{url!r} is no URL of an API: takes http://host:port or https://")
    path = parts.path.rstrip("/").removesuffix("/v2").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def _part(text: str) -> str:
    """One part of a path. What it stands for must not be taken for a part of the way to it."""
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


def _decode(body: bytes, type_: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise no_api(str(error)) from error


log = structlog.get_logger(__name__)

RETRIES = 5
"""Of reads (Fn's number)."""

FIRST_PAUSE, LEAST_PAUSE, GREATEST_PAUSE = 0.050, 0.025, 1.0
"""Seconds between attempts: Fn's first and least ones. Ours doubles, up to the greatest."""

NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class ApiConnection:
    """Sends requests over connections that are kept."""

    def __init__(self, client: httpx.AsyncClient, time_limit: float) -> None:
        self._client = client
        self._time_limit = time_limit

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        """The body of a successful answer. ``path`` is URL-encoded and begins with a slash.

        Reads are tried again after failures of the API (5xx) and of the network; what changes
        something only if it was certainly not sent. Raises `ApiUnavailable`, and what the answer
        says otherwise (`refusal`). In a traced request it is a span of that.
        """
        headers = {"Content-Type": "application/json"} if body else {}
        if (request := request_span.get()) is None:
            return await self._send(method, path, query, body, headers)
        told = {"http.request.method": method, "url.path": path}
        span = request.child("look up", told, kind="client")
        with ending(span):
            headers[PARENT] = span.traceparent
            return await self._send(method, path, query, body, headers)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> bytes:
        reason = ""
        with trio.move_on_after(self._time_limit):
            for attempt in range(RETRIES + 1):
                if attempt:
                    await trio.sleep(_pause(attempt))
                try:
                    answer = await self._client.request(
                        method, path, params=query, content=body, headers=headers
                    )
                except httpx.RequestError as error:
                    reason = f"{type(error).__name__}: {error}".rstrip(": ")
                    again = method == "GET" or isinstance(error, NOT_SENT)
                else:
                    if answer.status_code < 500:
                        return _content(answer)
                    reason = f"{answer.status_code} {message_of(answer.content)}".rstrip()
                    again = method == "GET"
                log.debug("API request failed", method=method, path=path, reason=reason)
                if not again:
                    break
            raise ApiUnavailable(reason)
        timeout = f"no answer within {self._time_limit:g} s"
        raise ApiUnavailable(f"{timeout}; {reason}" if reason else timeout)


def _content(answer: httpx.Response) -> bytes:
    if answer.status_code >= 300:
        raise refusal(answer.status_code, answer.content)
    return answer.content


def _pause(attempt: int) -> float:
    pause = min(FIRST_PAUSE * 2 ** (attempt - 1), GREATEST_PAUSE)
    return random.uniform(max(LEAST_PAUSE, pause / 2), pause)  # noqa: S311  (only spreads)
