"""Cross-origin requests of browsers."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.api import api_app, cors, with_middleware
from hostler.config import NodeConfig

from ._client import HOST, NO_STORE, Answer, Client

PAGE = "https://page.test"
PREFLIGHT = [("Access-Control-Request-Method", "PUT")]


def client(*origins: str, headers: tuple[str, ...] = ()) -> Client:
    config = NodeConfig(api_cors_origins=origins, api_cors_headers=headers)
    return Client(api_app(NO_STORE, config=config))


async def calls(client: Client, origin: str, method: str = "GET", **headers: str) -> Answer:
    pairs = [("Origin", origin), *headers.items()]
    return await client.send(method, "/v2/fns/f/calls", headers=pairs)


async def test_without_configuration_nothing_is_said_or_refused() -> None:
    answer = await calls(client(), PAGE)
    assert answer.status == 410
    assert "access-control-allow-origin" not in answer.headers


async def test_a_page_of_a_named_origin_may_read_the_answer() -> None:
    answer = await calls(client("https://other.test", PAGE), PAGE)
    assert answer.status == 410
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["vary"] == "Origin"


async def test_another_origin_is_refused_before_anything_happens() -> None:
    answer = await calls(client(PAGE), "https://evil.test")
    assert answer.fails(403, "Origin not allowed")
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", [f"http://{HOST}", f"https://{HOST}"])
async def test_the_servers_own_pages_are_not_foreign(origin: str) -> None:
    assert (await calls(client(PAGE), origin)).status == 410


async def test_a_star_is_everyone() -> None:
    answer = await calls(client("*"), "https://any.test")
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_request_without_an_origin_is_no_browsers() -> None:
    answer = await client(PAGE).get("/v2/fns/f/calls")
    assert answer.status == 410
    assert "access-control-allow-origin" not in answer.headers


async def test_a_cache_can_not_give_a_page_an_answer_that_lacks_what_it_needs() -> None:
    without_origin = await client(PAGE).get("/v2/fns/f/calls")
    assert without_origin.headers["vary"] == "Origin"
    own_page = await calls(client(PAGE), f"http://{HOST}")
    assert own_page.headers["vary"] == "Origin"
    for_everyone = await client("*").get("/v2/fns/f/calls")
    assert for_everyone.headers["access-control-allow-origin"] == "*"
    assert "vary" not in for_everyone.headers


async def test_a_preflight_is_answered_for_any_path() -> None:
    answer = await client(PAGE, headers=("X-One", "X-Two")).send(
        "OPTIONS", "/v2/apps", headers=[("Origin", PAGE), *PREFLIGHT]
    )
    assert (answer.status, answer.content) == (204, b"")
    assert "content-length" not in answer.headers
    assert answer.headers["access-control-allow-methods"] == "GET,POST,PUT,HEAD,DELETE"
    assert answer.headers["access-control-allow-headers"] == "X-One,X-Two"
    assert answer.headers["access-control-max-age"] == "43200"


async def test_headers_that_are_not_configured_are_fns() -> None:
    answer = await client(PAGE).send("OPTIONS", "/v2/apps", headers=[("Origin", PAGE), *PREFLIGHT])
    assert answer.headers["access-control-allow-headers"] == "Origin,Content-Length,Content-Type"


async def test_options_that_is_no_preflight_is_a_method_like_others() -> None:
    assert (await calls(client(PAGE), PAGE, "OPTIONS")).status == 405


async def test_around_a_node_and_in_the_api_it_is_said_once() -> None:
    config = NodeConfig(api_cors_origins=(PAGE,))
    app = with_middleware(api_app(NO_STORE, config=config), [cors([PAGE])])
    request = await calls(Client(app), PAGE)
    assert request.headers["access-control-allow-origin"] == PAGE
    raw: list[Any] = []

    async def send(message: Any) -> None:
        raw.extend(message.get("headers", ()))

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v2/fns/f/calls",
        "query_string": b"",
        "headers": [(b"origin", PAGE.encode())],
    }
    await app(scope, send, send)  # type: ignore[arg-type]
    assert [name for name, _ in raw].count(b"access-control-allow-origin") == 1
