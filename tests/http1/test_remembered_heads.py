"""What is made of a request's head serves the next request that has the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
from prometheus_client import CollectorRegistry

from hostler._asgi.replies import text_reply
from hostler._asgi.types import (
    ASGIApp,
    Handler,
    HeadReader,
    OwnServer,
    Receive,
    Scope,
    Send,
    own_server,
)
from hostler.abc import CallRequest
from hostler.bodies import BodyBudget
from hostler.config import NodeConfig
from hostler.front import FrontMetrics, NodeApp, invoke_app, node_app
from hostler.front.app import CallRoutes
from hostler.front.invocation import Invoker
from hostler.http1.request import MAX_REMEMBERED, MAX_REMEMBERED_SIZE, Heads
from hostler.models import Call
from tests.conftest import Logs

from ..front._agent import TABLE, ScriptedAgent
from ..front._own_server import FakeServer
from ..front._sockets import open_front


def scope_of(**changes: Any) -> dict[str, Any]:
    return FakeServer().scope(extensions={}, **changes)


async def not_called(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError


APP = invoke_app(ScriptedAgent(), TABLE, triggers=TABLE, mounts={"/v2": not_called})


@pytest.mark.parametrize(("method", "path"), [("POST", "/invoke/fn1"), ("GET", "/t/app/")])
def test_calls_have_a_handler(method: str, path: str) -> None:
    assert isinstance(APP, HeadReader)
    assert APP.handler(scope_of(method=method, path=path, raw_path=path.encode())) is not None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/invoke/fn1"),
        ("POST", "/invoke/"),
        ("POST", "/v2/apps"),
        ("POST", "/invoke/fn%"),
        ("GET", "/t/"),
    ],
)
def test_the_application_is_asked_each_time_for_all_else(method: str, path: str) -> None:
    scope = scope_of(method=method, path=path, raw_path=path.encode())
    assert isinstance(APP, HeadReader)
    assert APP.handler(scope) is None
    node = node_app()
    assert isinstance(node, HeadReader)
    assert node.handler(scope) is None


@attrs.define
class Reader(HeadReader):
    """Has a handler for each path but ``/asked``, and counts."""

    heads: int = 0
    called: int = 0
    scopes: list[Scope] = attrs.Factory(list)

    def handler(self, scope: Scope) -> Handler | None:
        self.heads += 1
        return None if scope["path"] == "/asked" else self.serve

    async def serve(self, server: OwnServer) -> None:
        self.called += 1
        self.scopes.append(server.scope())
        body = server.body or b""
        await server.answer(200, [(b"content-length", b"%d" % len(body))], body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await text_reply("asked").send(send)


async def test_a_head_is_looked_at_once_whichever_connection_has_it() -> None:
    app = Reader()
    async with open_front(app=app) as front:
        for _ in range(2):
            client = await front.connect()
            for body in (b"a", b"b"):
                assert (await client.post(body)).body == body
    assert (app.heads, app.called) == (1, 4)
    clients = {scope["client"] for scope in app.scopes}
    assert len(clients) == 2
    assert all(own_server(scope) for scope in app.scopes)


async def test_an_application_without_a_handler_for_it_is_called() -> None:
    app = Reader()
    async with open_front(app=app) as front:
        client = await front.connect()
        for _ in range(2):
            assert (await client.post(path="/asked")).body == b"asked"
    assert (app.heads, app.called, len(app.scopes)) == (1, 0, 2)


async def test_a_request_that_h11_reads_has_its_handler_too() -> None:
    app = Reader()
    async with open_front(app=app) as front:
        client = await front.connect()
        assert (await client.post(b"a", headers="Upgrade: x\r\n")).body == b"a"
    assert app.called == 1


async def test_an_application_in_between_sees_each_request() -> None:
    seen: list[str] = []
    agent = ScriptedAgent()
    inner = invoke_app(agent, TABLE)

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        await inner({**scope, "path": "/invoke/fn1", "raw_path": b"/invoke/fn1"}, receive, send)

    async with open_front(agent, app=between) as front:
        client = await front.connect()
        for _ in range(2):
            assert (await client.post(path="/pretty")).status == 200
    assert seen == ["/pretty", "/pretty"]
    assert len(agent.submitted) == 2


class Wrapping:
    """Passes on the attributes of the application inside, as many middlewares do."""

    def __init__(self, inner: ASGIApp) -> None:
        self.inner = inner
        self.seen: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope["path"])
        await self.inner(scope, receive, send)


class Inheriting(NodeApp):
    def __init__(self, agent: ScriptedAgent) -> None:
        registry = CollectorRegistry()
        invoker = Invoker(agent, NodeConfig(), FrontMetrics(registry), BodyBudget())
        super().__init__(registry, calls=CallRoutes(invoker, TABLE))
        self.seen: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope["path"])
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize(
    "app_of",
    [lambda agent: Wrapping(invoke_app(agent, TABLE)), Inheriting],
    ids=["has the attributes of the one inside", "inherits from ours"],
)
async def test_an_application_of_another_kind_sees_each_request(
    app_of: Callable[[ScriptedAgent], Wrapping | Inheriting],
) -> None:
    agent = ScriptedAgent()
    app = app_of(agent)
    async with open_front(agent, app=app) as front:
        client = await front.connect()
        for _ in range(2):
            assert (await client.post()).status == 200
    assert len(app.seen) == 2


async def test_an_application_may_have_a_handler_of_its_own_kind() -> None:
    class Routed:
        async def handler(self, scope: Scope, receive: Receive, send: Send) -> None:
            await text_reply("routed").send(send)

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.handler(scope, receive, send)

    async with open_front(app=Routed()) as front:
        client = await front.connect()
        assert (await client.post()).body == b"routed"


async def test_a_mounted_application_that_comes_back_sees_each_request() -> None:
    seen: list[str] = []
    agent = ScriptedAgent()

    async def pretty(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        scope.update(path="/invoke/fn1", raw_path=b"/invoke/fn1")
        await app(scope, receive, send)

    app = invoke_app(agent, TABLE, mounts={"/pretty": pretty})
    async with open_front(agent, app=app) as front:
        client = await front.connect()
        for _ in range(2):
            assert (await client.post(path="/pretty")).status == 200
    assert seen == ["/pretty", "/pretty"]
    assert len(agent.submitted) == 2


async def test_an_application_that_can_not_read_a_head_is_a_500(logs: Logs) -> None:
    class Broken(Reader):
        def handler(self, scope: Scope) -> Handler | None:
            raise RuntimeError("bad head")

    async with open_front(app=Broken()) as front:
        client = await front.connect()
        assert (await client.post()).status == 500
    logs.expect_error("the application failed")


def head(number: int = 0, more: bytes = b"") -> bytes:
    return b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n%b\r\n" % (number, more)


def test_connections_share_the_heads_that_they_have_read() -> None:
    heads = Heads(10_000)
    first = heads.read(head() + b"abc")
    assert first is not None
    assert heads.read(head() + b"xyz") is first
    other = heads.read(head(1) + b"abc")
    assert other is not None
    assert (first[0].target, other[0].target) == (b"/0", b"/1")
    assert heads.read(head() + b"abc") is first


def test_few_heads_are_remembered_and_none_that_is_long() -> None:
    heads = Heads(10_000)
    first = heads.read(head())
    for number in range(1, MAX_REMEMBERED + 1):
        heads.read(head(number))
    assert heads.read(head()) is not first
    long = head(more=b"X: %b\r\n" % (b"x" * MAX_REMEMBERED_SIZE))
    assert heads.read(long) == heads.read(long)
    assert heads.read(long) is not heads.read(long)


@pytest.mark.parametrize("name", [b"Authorization", b"COOKIE", b"proxy-authorization"])
def test_secrets_are_not_kept_when_their_client_has_gone(name: bytes) -> None:
    heads = Heads(10_000)
    secret = head(more=b"%b: s3cret\r\n" % name)
    first = heads.read(secret)
    assert first is not None
    assert heads.read(secret) is not first


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", head()[:-2], head(more=b"Expect: x\r\n")])
def test_what_is_no_plain_head_is_not_read(data: bytes) -> None:
    heads = Heads(10_000)
    assert heads.read(data) is None
    assert heads.read(data) is None
    assert Heads(len(head()) - 1).read(head()) is None


@pytest.mark.parametrize("path", ["/invoke/fn1", "/t/app/"])
async def test_an_overrider_that_changes_headers_changes_those_of_no_other_call(path: str) -> None:
    """Requests of other clients have the same head."""
    seen: list[list[str]] = []

    def meddle(request: CallRequest, _: Call, extensions: Mapping[str, str]) -> Mapping[str, str]:
        (values,) = [v for name, v in request.headers.items() if name.endswith("X-Same")]
        seen.append([*values])
        values.append("mine")
        return extensions

    async with open_front(ScriptedAgent(overrider=meddle)) as front:
        for _ in range(2):
            client = await front.connect()
            assert (await client.post(path=path, headers="X-Same: 1\r\n")).status == 200
    assert seen == [["1"], ["1"]]
