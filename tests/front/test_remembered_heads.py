"""What is made of a request's head serves the next request that has the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from hostler.abc import CallRequest
from hostler.bodies import BodyBudget
from hostler.config import NodeConfig
from hostler.front import FrontMetrics
from hostler.front._invoke import Invoker
from hostler.front._request import MAX_REMEMBERED, MAX_REMEMBERED_SIZE, Heads
from hostler.front._routes import CallRoutes
from hostler.models import Call

from ._agent import TABLE, ScriptedAgent
from ._own_server import FakeServer
from ._sockets import open_front


@pytest.fixture
def routes() -> CallRoutes:
    metrics = FrontMetrics(CollectorRegistry())
    return CallRoutes(Invoker(ScriptedAgent(), NodeConfig(), metrics, BodyBudget()), TABLE)


def test_the_same_head_is_looked_at_once(routes: CallRoutes) -> None:
    server = FakeServer()
    assert routes.remembered(server.scope()) is None
    way = routes.way(server.scope())
    assert way is not None
    assert routes.remembered(server.scope()) is way


def test_another_application_may_have_other_ways(routes: CallRoutes) -> None:
    server = FakeServer()
    assert routes.way(server.scope())
    assert CallRoutes(routes.invoker, TABLE).remembered(server.scope()) is None


def test_another_server_remembers_nothing(routes: CallRoutes) -> None:
    scope = FakeServer().scope(extensions={})
    assert routes.way(scope)
    assert routes.remembered(scope) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/invoke/b", "raw_path": b"/invoke/b"},
        {"raw_path": None},
        {"query_string": b"q"},
        {"method": "GET"},
        {"headers": [(b"host", b"y")]},
        {"scheme": "https"},
        {"http_version": "2"},
    ],
)
def test_an_application_in_between_may_change_what_the_client_has_sent(
    routes: CallRoutes, changes: dict[str, Any]
) -> None:
    server = FakeServer()
    assert routes.way(server.scope())
    assert routes.remembered(server.scope(**changes)) is None


def test_an_application_in_between_may_change_the_headers_in_place(routes: CallRoutes) -> None:
    server = FakeServer()
    scope = server.scope()
    assert routes.way(scope)
    scope["headers"].append((b"x-more", b"1"))
    assert routes.remembered(scope) is None


def test_an_application_in_between_may_leave_out_the_raw_path(routes: CallRoutes) -> None:
    server = FakeServer()
    scope = server.scope()
    del scope["raw_path"]
    assert routes.way(scope)
    assert routes.remembered(server.scope()) is None
    assert routes.way(server.scope())
    assert routes.remembered(scope) is None


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
