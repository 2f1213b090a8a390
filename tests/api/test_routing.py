"""Which handler a request goes to, and what is answered where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.api import ApiRequest, Reply, Route, api_app, json_reply
from tests.front._asgi_client import AsgiRequest

from ._client import NO_STORE, Client

"""These requests must not reach a datastore."""


@pytest.fixture
def client() -> Client:
    return Client(api_app(NO_STORE))


async def test_an_unknown_path_is_404(client: Client) -> None:
    answer = await client.post("/v2/nothing", {})
    assert answer.fails(404, "Path not found: POST /v2/nothing")


async def test_a_wrong_method_is_405_and_names_the_right_ones(client: Client) -> None:
    answer = await client.put("/v2/apps", {})
    assert answer.fails(405, "Method not allowed: PUT /v2/apps")
    assert answer.headers["allow"] == "GET, POST"
    assert (await client.send("HEAD", "/v2/fns/x")).headers["allow"] == "DELETE, GET, PUT"


async def test_errors_are_escaped_as_by_gos_encoder(client: Client) -> None:
    answer = await client.get("/v2/<&>")
    assert answer.content == b'{"message":"Path not found: GET /v2/\\u003c\\u0026\\u003e"}\n'


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("POST", 307), ("DELETE", 307)])
async def test_a_trailing_slash_is_redirected(client: Client, method: str, status: int) -> None:
    answer = await client.send(method, "/v2/apps/?per_page=3")
    assert (answer.status, answer.headers["location"]) == (status, "/v2/apps?per_page=3")


async def test_a_redirect_keeps_the_path_as_it_was_sent() -> None:
    request = AsgiRequest("/v2/apps/a b/", method="GET")
    request.scope["raw_path"] = b"/v2/apps/a%20b/"
    await request.body().run(api_app(NO_STORE))
    assert request.headers["location"] == "/v2/apps/a%20b"


@pytest.mark.parametrize("path", ["/v2/apps//", "/v2", "/v2/", "/v2/apps/a/b", "/v2/runner"])
async def test_what_only_looks_like_a_path_is_404(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 404


@pytest.mark.parametrize("path", ["/calls", "/calls/c1", "/calls/c1/log"])
async def test_calls_and_logs_are_gone(client: Client, path: str) -> None:
    assert (await client.get("/v2/fns/f1" + path)).fails(410, "Calls and their logs are not kept")


@pytest.mark.parametrize("path", ["/v2/apps/a\0", "/v2/apps?name=a%00", "/v2/fns?app_id=%00"])
async def test_nul_characters_are_refused(client: Client, path: str) -> None:
    assert (await client.get(path)).fails(400, "path and query must not have NUL characters")


async def _hello(request: ApiRequest) -> Reply:
    return json_reply({"params": dict(request.params), "trace": request.header("X-Trace")})


async def test_a_program_can_add_endpoints() -> None:
    route = Route("GET", "/v2/apps/{app_id}/owners/{owner}", _hello)
    client = Client(api_app(NO_STORE, endpoints=[route]))
    answer = await client.send("GET", "/v2/apps/a1/owners/me", headers=[("X-Trace", "t1")])
    assert answer.json == {"params": {"app_id": "a1", "owner": "me"}, "trace": "t1"}
    assert (await client.post("/v2/apps/a1/owners/me", {})).status == 405


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("GET", "/v2/apps/{id}", "two routes for GET /v2/apps/{id}"),
        ("GET", "/apps", "/apps is not below /v2"),
        ("GET", "/v2/openapi.json", "two routes for GET /v2/openapi.json"),
    ],
)
def test_an_endpoint_that_can_not_be_is_refused(method: str, path: str, text: str) -> None:
    with pytest.raises(ValueError, match="^" + text.replace("{", r"\{") + "$"):
        api_app(NO_STORE, endpoints=[Route(method, path, _hello)])


async def test_the_application_can_stand_alone() -> None:
    """A server asks it whether it has started, and it has no WebSockets."""
    received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    app = api_app(NO_STORE)
    await app({"type": "lifespan"}, receive, send)
    await app({"type": "websocket"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
