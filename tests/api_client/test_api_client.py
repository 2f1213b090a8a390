"""The API client against the real API, over real connections, and against one that fails."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trustme

from hostler.api import api_app
from hostler.api_client import ApiClient, ApiUnavailable, open_api_client
from hostler.config import ApiConfig, StoreConfig
from hostler.datastore import (
    AppFilter,
    AppPatch,
    Datastore,
    FnFilter,
    FnPatch,
    TriggerFilter,
    TriggerPatch,
)
from hostler.errors import APIError, ConfigError, FnNotFound
from hostler.functions import open_cached_functions
from hostler.models import Fn
from hostler.rules.errors import (
    AppExists,
    AppNotFound,
    Conflict,
    DatastoreUnavailable,
    FnExists,
    Invalid,
    NotFound,
    TriggerNotFound,
    TriggerSourceExists,
)
from hostler.store import open_datastore
from tests.api._served import serving
from tests.store.things import a_fn, a_trigger, an_app


class Faults:
    """Stands before an application: answers, breaks off or hangs as often as it was told."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.script: list[Any] = []
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(f"{scope['method']} {scope['raw_path'].decode()}")
        fault = self.script.pop(0) if self.script else None
        if fault is None:
            await self._app(scope, receive, send)
        elif fault == "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
        elif fault == "break":  # the server ends the connection
            start = {"type": "http.response.start", "status": 200}
            await send({**start, "headers": [(b"content-length", b"9")]})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        else:
            status, body = fault
            length = (b"content-length", b"%d" % len(body))
            await send({"type": "http.response.start", "status": status, "headers": [length]})
            await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def real_api(
    tmp_path: Path, **config: Any
) -> AsyncIterator[tuple[ApiClient, Datastore, Faults]]:
    async with open_datastore(StoreConfig(db_url=f"sqlite3://{tmp_path}/fn.db")) as store:
        faults = Faults(api_app(store))
        async with serving(faults) as url, open_api_client(url, ApiConfig(**config)) as client:
            yield client, store, faults


@asynccontextmanager
async def scripted(*script: Any, **config: Any) -> AsyncIterator[tuple[ApiClient, Faults]]:
    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the script is over")

    faults = Faults(nothing)
    faults.script = list(script)
    async with serving(faults) as url, open_api_client(url, ApiConfig(**config)) as client:
        yield client, faults


APP = b'{"id":"a","name":"shop","created_at":"","config":null,"unknown":[1]}'


async def test_everything_that_the_api_does(tmp_path: Path) -> None:
    annotation = {"k": msgspec.Raw(b'{"b": 1, "a": "x"}')}
    async with real_api(tmp_path) as (client, store, _):
        new = an_app("shöp", config={"A": "1"}, annotations=annotation, syslog_url="udp://h:514")
        app = await client.apps.create(new)
        assert await store.apps.get(app.id) == app == await client.apps.get(app.id)
        assert (app.config, app.syslog_url) == ({"A": "1"}, "udp://h:514")
        assert app.created_at is not None
        assert await client.app_id_by_name("shöp") == app.id
        patch = AppPatch(config={"A": "", "B": "2"}, syslog_url="")
        app = await client.apps.update(app.id, patch)
        assert (app.config, app.syslog_url) == ({"B": "2"}, "")

        fn = await client.fns.create(a_fn(app, memory=256, timeout=7, config={"F": "1"}))
        assert (fn.memory, fn.timeout, fn.idle_timeout) == (256, 7, 30)
        assert await store.fns.get(fn.id) == await _without_endpoint(client, fn.id)
        fn = await client.fns.update(fn.id, FnPatch(image="shop/pay:2"))
        assert (fn.image, fn.memory) == ("shop/pay:2", 256)
        assert (await client.find(fn.id))[0] == app

        trigger = await client.triggers.create(a_trigger(fn, source="/a b/../ü%2F?#/"))
        same = await client.trigger_by_source(app.id, "http", "/a b/../ü%2F?#/")
        assert (same.id, same.source, same.fn_id) == (trigger.id, trigger.source, fn.id)
        moved = await client.triggers.update(trigger.id, TriggerPatch(source="/"))
        assert moved.source == "/"
        assert (await client.trigger_by_source(app.id, "http", "/")).id == trigger.id
        assert (await client.triggers.get(trigger.id)).name == "web"

        assert [x.id for x in (await client.apps.list(AppFilter())).items] == [app.id]
        assert [x.id for x in (await client.fns.list(FnFilter(app_id=app.id))).items] == [fn.id]
        where = TriggerFilter(app_id=app.id, fn_id=fn.id, name="web")
        assert [x.id for x in (await client.triggers.list(where)).items] == [trigger.id]

        await client.triggers.delete(trigger.id)
        await client.fns.delete(fn.id)
        await client.apps.delete(app.id)
        assert (await client.apps.list(AppFilter())).items == []


async def _without_endpoint(client: ApiClient, fn_id: str) -> Any:
    fn = await client.fns.get(fn_id)
    assert fn.annotations.pop("fnproject.io/fn/invokeEndpoint")
    return fn


async def test_pages(tmp_path: Path) -> None:
    async with real_api(tmp_path) as (client, store, _):
        for number in range(5):
            await store.apps.create(an_app(f"app{number}"))
        names, cursor = [], ""
        while True:
            page = await client.apps.list(AppFilter(cursor=cursor, per_page=2))
            assert len(page.items) <= 2
            names += [app.name for app in page.items]
            cursor = page.next_cursor
            if not cursor:
                break
        assert names == [f"app{number}" for number in range(5)]


async def test_errors_are_those_of_the_datastore(tmp_path: Path) -> None:
    async with real_api(tmp_path) as (client, _, faults):
        with pytest.raises(AppNotFound):
            await client.app_id_by_name("none")
        for read in (client.apps.get, client.apps.delete):
            with pytest.raises(AppNotFound):
                await read("none")
        for fn_id in ("none", "..", ".", "?", "%2e", "ä", " "):
            with pytest.raises(FnNotFound):
                await client.fns.get(fn_id)
        with pytest.raises(TriggerNotFound):
            await client.trigger_by_source("none", "http", "/../../../../v2/apps")
        assert all(path.startswith("GET /v2/") for path in faults.paths if path.startswith("GET"))
        app = await client.apps.create(an_app())
        with pytest.raises(AppExists):
            await client.apps.create(an_app())
        with pytest.raises(Invalid) as info:
            await client.fns.create(a_fn(app, memory=9000))
        assert (info.value.code, "8192" in info.value.message) == (400, True)
        fn = await client.fns.create(a_fn(app))
        with pytest.raises(FnExists):
            await client.fns.create(a_fn(app))
        await client.triggers.create(a_trigger(fn))
        with pytest.raises(TriggerSourceExists):
            await client.triggers.create(a_trigger(fn, name="other"))


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (404, b'{"message":"App not found"}', AppNotFound, "App not found"),
        (404, b'{"message":"not here"}', NotFound, "not here"),
        (404, b"<html>", NotFound, "the API answered 404"),
        (409, b'{"message":"no"}', Conflict, "no"),
        (400, b'{"message":"bad"}', Invalid, "bad"),
        (401, b'{"message":"who?"}', APIError, "who?"),
        (302, b"", APIError, "the API answered 302"),
        (429, b'{"message":null}', APIError, "the API answered 429"),
    ],
)
async def test_an_answer_that_is_no_success_is_an_error_at_once(
    status: int, body: bytes, kind: type[APIError], message: str
) -> None:
    async with scripted((status, body)) as (client, faults):
        with pytest.raises(APIError) as info:
            await client.apps.get("a")
        assert (type(info.value), info.value.code) == (kind, status)
        assert info.value.message == message
        assert len(faults.paths) == 1


@pytest.mark.parametrize("fault", ["break", (500, b""), (503, b'{"message":"down"}')])
async def test_a_read_is_tried_six_times(fault: Any) -> None:
    async with scripted(*[fault] * 5, (200, APP)) as (client, faults):
        app = await client.apps.get("a")
        assert (app.name, app.config, app.created_at) == ("shop", {}, None)
        assert len(faults.paths) == 6
    async with scripted(*[fault] * 7) as (client, faults):
        with pytest.raises(ApiUnavailable) as info:
            await client.apps.get("a")
        assert len(faults.paths) == 6
    assert (info.value.code, info.value.message) == (503, "API unavailable, try again later")
    if fault != "break":
        assert info.value.reason == f"{fault[0]} {'down' if fault[1] else ''}".rstrip()


@pytest.mark.parametrize("fault", ["break", (500, b"")])
async def test_a_change_that_may_have_been_made_is_not_made_again(fault: Any) -> None:
    async with scripted(fault, fault, fault) as (client, faults):
        with pytest.raises(ApiUnavailable):
            await client.apps.create(an_app())
        with pytest.raises(ApiUnavailable):
            await client.apps.update("a", AppPatch(config={"A": "1"}))
        with pytest.raises(ApiUnavailable):
            await client.apps.delete("a")
        assert len(faults.paths) == 3


async def test_nobody_listens() -> None:
    async with open_api_client("http://127.0.0.1:1") as client:
        with pytest.raises(ApiUnavailable) as info:
            await client.apps.create(an_app())
    assert info.value.reason == "connection refused"
    assert isinstance(info.value, DatastoreUnavailable)


async def test_a_certificate_that_is_not_trusted_is_told_of() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def refused(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.do_handshake()

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, refused, 0, context, host="127.0.0.1")
        listener = (await nursery.start(serve))[0]
        port = listener.transport_listener.socket.getsockname()[1]
        async with open_api_client(f"https://127.0.0.1:{port}") as client:
            with pytest.raises(ApiUnavailable) as info:
                await client.apps.create(an_app())
        nursery.cancel_scope.cancel()
    assert info.value.reason.startswith("its certificate can't be verified: ")


async def test_all_attempts_have_one_limit_of_time() -> None:
    async with scripted((500, b'{"message":"first"}'), "hang", api_timeout=5.0) as (client, faults):
        with pytest.raises(ApiUnavailable) as info:
            await client.apps.get("a")
        assert info.value.reason == "no answer within 5 s; 500 first"
        assert len(faults.paths) == 2


async def test_what_answers_is_no_api() -> None:
    async with scripted((200, b"<html>"), (200, b'{"id":1}')) as (client, _):
        for _ in range(2):
            with pytest.raises(ApiUnavailable) as info:
                await client.apps.get("a")
            assert "no API" in info.value.reason


async def test_a_success_that_tells_no_id_is_none() -> None:
    """Of a page behind a login, say, that answers 200 with some other JSON."""
    empty = (200, b"{}")
    fn = Fn(id="f", name="pay", app_id="a", image="shop/pay")
    async with scripted(*[empty] * 8, (200, b'{"items":[{"name":"shop"}]}')) as (client, faults):
        asking: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.apps.create(an_app()),
            lambda: client.apps.update("a", AppPatch()),
            lambda: client.apps.get("a"),
            lambda: client.fns.create(fn),
            lambda: client.fns.get("f"),
            lambda: client.triggers.create(a_trigger(fn)),
            lambda: client.trigger_by_source("a", "http", "/"),
        ]
        for ask in asking:
            with pytest.raises(ApiUnavailable) as info:
                await ask()
            assert info.value.reason == "what answers is no API: it tells no id"
        assert (await client.apps.list(AppFilter())).items == []
        with pytest.raises(ApiUnavailable):
            await client.app_id_by_name("shop")
        assert faults.script == []


async def test_a_cancelled_request_leaves_nothing_and_the_client_goes_on() -> None:
    async with scripted("hang", (200, APP)) as (client, faults):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.apps.get, "a")
            while not faults.paths:  # noqa: ASYNC110  (until it has arrived)
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        assert (await client.apps.get("a")).name == "shop"
        pool = client._connection._client._transport._pool  # type: ignore[attr-defined]
        assert len(pool.connections) == 1  # the other one was closed


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:1/v2/", "http://h:1"),
        ("https://h", "https://h"),
        ("h:8080", "http://h:8080"),
        ("http://[::1]:80/x?y", "http://[::1]:80/x"),
        ("http://u:p@h/a%2Fb/c/v2", "http://u:p@h/a%2Fb/c"),
    ],
)
async def test_the_path_of_a_proxy_goes_before_the_apis(url: str, base: str) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, content=APP)

    transport = httpx.MockTransport(answer)
    async with open_api_client(url, transport=transport) as client:
        await client.apps.get("a")
    assert asked == [str(httpx.URL(f"{base}/v2/apps/a"))]


@pytest.mark.parametrize(
    "url", ["", "ftp://h", "http://", "http://h:x", "http://[::1", "http://a..b"]
)
async def test_bad_urls(url: str) -> None:
    with pytest.raises(ConfigError):
        async with open_api_client(url):
            pass


async def test_an_lbs_reads_over_the_api_and_through_its_outage(tmp_path: Path) -> None:
    async with real_api(tmp_path) as (client, store, faults):
        app = await store.apps.create(an_app())
        fn = await store.fns.create(a_fn(app))
        await store.triggers.create(a_trigger(fn))
        config = ApiConfig(lookup_ttl=0.01)
        async with open_cached_functions(client, config) as functions:
            found = await functions.find_trigger("shop", "/pay")
            assert [x.name for x in found] == ["shop", "pay", "web"]
            assert faults.paths == [
                "GET /v2/apps",
                f"GET /v2/apps/{app.id}",
                f"GET /v2/runner/apps/{app.id}/triggerBySource/http//pay",
                f"GET /v2/fns/{fn.id}",
            ]
            with pytest.raises(FnNotFound):
                await functions.find("none")
            await trio.sleep(0.02)
            faults.script = [(500, b"")] * 1000
            assert await functions.find_trigger("shop", "/pay") == found
            with pytest.raises(ApiUnavailable):
                await functions.find("another")
