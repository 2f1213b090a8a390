"""Bodies that are too large, too slow, or broken off."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from hostler.api import ApiRequest, Reply, Route, api_app, json_reply
from hostler.config import NodeConfig
from tests.front._asgi_client import AsgiRequest

from ._client import NO_STORE, Answer


async def _length(request: ApiRequest) -> Reply:
    return json_reply(len(request.body))


JSON = [("Content-Type", "application/json")]
ECHO = Route("POST", "/v2/length", _length)


def app(**config: Any) -> Any:
    return api_app(NO_STORE, config=NodeConfig(**config), endpoints=[ECHO])


def answer(request: AsgiRequest) -> Answer:
    return Answer(request.status, request.headers, request.content)


async def test_a_body_of_the_greatest_size_is_taken() -> None:
    request = AsgiRequest("/v2/length", headers=JSON).body(b"a" * 6, more=True).body(b"b" * 4)
    await request.run(app(max_request_size=10))
    assert answer(request).json == 10


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "json"])
async def test_a_body_that_any_page_could_have_sent_is_415(kind: str) -> None:
    headers = [("Content-Type", kind)] if kind else []
    await (request := AsgiRequest("/v2/length", headers=headers).body(b"{}")).run(app())
    assert answer(request).fails(415, "Content-Type must be application/json")


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"]
)
async def test_json_has_several_names(kind: str) -> None:
    request = AsgiRequest("/v2/length", headers=[("Content-Type", kind)]).body(b"{}")
    await request.run(app())
    assert answer(request).json == 2


async def test_a_declared_length_over_the_limit_is_413_before_the_body() -> None:
    request = AsgiRequest("/v2/length", headers=[("Content-Length", "11")])
    await request.run(app(max_request_size=10))
    text = "Content-Length too large for this server, 11 > max 10"
    assert answer(request).fails(413, text)
    assert request.received == 0


async def test_a_chunked_body_over_the_limit_is_413() -> None:
    request = AsgiRequest("/v2/length").body(b"a" * 6, more=True).body(b"b" * 5, more=True)
    await request.run(app(max_request_size=10))
    assert answer(request).fails(413, "Request content too large")


@pytest.mark.parametrize("config", [{}, {"max_request_size": 2**40}])
async def test_the_limit_is_6_mib_at_most(config: dict[str, int]) -> None:
    request = AsgiRequest("/v2/length", headers=[("Content-Length", str(6 * 2**20 + 1))])
    await request.run(app(**config))
    assert request.status == 413


@pytest.mark.parametrize(
    ("config", "seconds"), [({}, 30.0), ({"request_body_read_timeout": 5.0}, 5.0)]
)
async def test_a_slow_body_is_408(
    config: dict[str, Any], seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    request = AsgiRequest("/v2/length").body(b"a", more=True)
    await request.run(app(**config))
    assert answer(request).fails(408, "Request body read timed out")
    assert trio.current_time() == seconds


async def test_a_client_that_leaves_within_its_body_gets_nothing() -> None:
    request = AsgiRequest("/v2/length").body(b"a", more=True)
    request.disconnect()
    await request.run(app())
    assert request.sent == []


async def test_the_body_of_a_get_is_not_waited_for() -> None:
    await (request := AsgiRequest("/v2/fns/f/calls", method="GET")).run(app())
    assert (request.status, request.received) == (410, 0)
