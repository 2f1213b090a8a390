"""The API as a datastore: requests, retries, errors."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Generic
from urllib.parse import quote, urlsplit

import attrs
import httpx
import msgspec
import structlog
import trio

from .._api_documents import APPS, FNS, TRIGGERS, Kind
from .._spans import PARENT, ends_span, request_span
from ..config import ApiConfig, is_host
from ..datastore import (
    AppFilter,
    AppPatch,
    Filter,
    FnFilter,
    FnPatch,
    Page,
    Patch,
    Thing,
    TriggerFilter,
    TriggerPatch,
)
from ..errors import ConfigError, InvalidJSON
from ..models import App, Fn, Trigger
from ..rules.errors import AppNotFound
from .calls import ApiUnavailable, authorization, message_of, no_api, reason_of, refusal

MAX_CONNECTIONS = 64
CONNECT_SECONDS = 5.0


class ApiCollection(Generic[Thing, Patch, Filter]):
    """A `hostler.datastore.Collection` at ``path`` of the API.

    Reads are tried again if the API fails, changes only if they were certainly not sent.
    """

    def __init__(self, connection: ApiConnection, path: str, kind: Kind[Thing, Patch]) -> None:
        self._connection = connection
        self._path = path
        self._kind = kind

    async def list(self, where: Filter) -> Page[Thing]:
        query = {name: str(value) for name, value in attrs.asdict(where).items() if value}
        body = await self._connection.send("GET", self._path, query=query)
        with _understood():
            return self._kind.read_page(body)

    async def create(self, new: Thing) -> Thing:
        return await self._ask("POST", self._path, self._kind.encode(new))

    async def get(self, id: str) -> Thing:
        return await self._ask("GET", self._one(id))

    async def update(self, id: str, patch: Patch) -> Thing:
        return await self._ask("PUT", self._one(id), self._kind.encode(patch))

    async def delete(self, id: str) -> None:
        await self._connection.send("DELETE", self._one(id))

    def _one(self, id: str) -> str:
        return f"{self._path}/{_part(id)}"

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> Thing:
        answer = await self._connection.send(method, path, body=body)
        with _understood():
            return self._kind.read(answer)


class ApiClient:
    """A `hostler.datastore.Datastore` behind the API of a node. `open_api_client` makes it.

    Instead of `DatastoreUnavailable` operations raise its subclass `ApiUnavailable`. Of a
    cancelled change it is not known whether it was made. ``per_page`` is bounded by the API, where
    0 means its default (30).
    """

    def __init__(self, connection: ApiConnection) -> None:
        self._connection = connection
        self.apps = ApiCollection[App, AppPatch, AppFilter](connection, "/v2/apps", APPS)
        self.fns = ApiCollection[Fn, FnPatch, FnFilter](connection, "/v2/fns", FNS)
        self.triggers = ApiCollection[Trigger, TriggerPatch, TriggerFilter](
            connection, "/v2/triggers", TRIGGERS
        )

    async def app_id_by_name(self, name: str) -> str:
        """Lists the apps with this name. Raises `AppNotFound`."""
        found = await self.apps.list(AppFilter(name=name))
        if not found.items:
            raise AppNotFound
        return found.items[0].id

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        """Two requests: the function's app may be another version than when it was read."""
        fn = await self.fns.get(fn_id)
        return await self.apps.get(fn.app_id), fn

    async def trigger_by_source(self, app_id: str, type: str, source: str) -> Trigger:
        """Asks by the path that Fn's LBs use. Raises `TriggerNotFound`."""
        # The source's own slash makes a double one; the API takes one away (Fn's protocol).
        parts = "/".join(_part(part) for part in source.split("/"))
        path = f"/v2/runner/apps/{_part(app_id)}/triggerBySource/{_part(type)}/{parts}"
        body = await self._connection.send("GET", path)
        with _understood():
            return TRIGGERS.read(body)


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
    """Encode one part of a path. A dot or a slash in it must not change the path."""
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


@contextmanager
def _understood() -> Iterator[None]:
    """An answer that can't be read is not from the API."""
    try:
        yield
    except (msgspec.DecodeError, ValueError, InvalidJSON) as error:
        raise no_api(str(error)) from error


log = structlog.get_logger(__name__)

RETRIES = 5
"""Further attempts of reads (Fn's number)."""

FIRST_PAUSE, LEAST_PAUSE, GREATEST_PAUSE = 0.050, 0.025, 1.0
"""Seconds between attempts. The first and the least are Fn's; ours double, up to the greatest."""

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
        with ends_span(span):
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
                    reason = reason_of(error)
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
