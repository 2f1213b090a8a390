"""Who may ask a node for what: by names of hosts, pages, and tokens."""

from __future__ import annotations

from typing import Any

import pytest

from hostler._asgi.access import Access, AccessControl, Hosts, Tokens
from hostler._asgi.middleware import cors, with_middleware
from hostler._asgi.replies import json_reply
from hostler._asgi.types import ASGIApp, HeadReader
from hostler.front import invoke_app

from ._agent import TABLE, ScriptedAgent
from ._asgi_client import AsgiRequest, Pairs
from ._sockets import open_front

TOKEN, CALL_TOKEN = "t" * 16, "c" * 16
KEEPERS = ("/v2/apps", "/v1/apps", "/ui/state.json", "/logs", "/other", "/v2", "//v2/apps")
CALLS = ("/invoke/fn1", "/t/app/source")
OPEN = ("/", "/version", "/healthz", "/readyz")


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the headers that it gets."""
    await json_reply({name.decode(): value.decode() for name, value in scope["headers"]}).send(send)


def guarded(*origins: str, **rules: Any) -> ASGIApp:
    app = AccessControl(inner, Access(origins=origins, **rules))
    return with_middleware(app, [cors(origins)]) if origins else app


async def status(app: ASGIApp, path: str, *headers: tuple[str, str], method: str = "GET") -> int:
    return (await ask(app, path, *headers, method=method)).status


async def ask(
    app: ASGIApp, path: str, *headers: tuple[str, str], method: str = "GET"
) -> AsgiRequest:
    given: Pairs = list(headers)
    if not any(name == "Host" for name, _ in given):
        given.append(("Host", "localhost:8080"))
    request = AsgiRequest(path, method=method, headers=given).body(b"")
    await request.run(app)
    assert request.complete
    return request


# --- Host --------------------------------------------------------------------------------------

OURS = [
    *("localhost", "localhost:8080", "LocalHost", "localhost.", "localhost.:8080", "a.localhost"),
    *("127.0.0.1", "127.0.0.1:1", "10.1.2.3:8080", "[::1]", "[::1]:8080", "[2001:DB8::1]:80"),
    *("0.0.0.0:8080", "[::ffff:127.0.0.1]", "localhost:", ""),
]
STRANGE = [
    *(
        "evil.test",
        "evil.test:8080",
        "localhost.evil.test",
        "evil-localhost",
        "127.0.0.1.evil.test",
    ),
    *("user@localhost", "localhost@evil.test", "localhost/evil.test", "localhost evil.test", ":80"),
    *(
        "[evil.test]",
        "[127.0.0.1]",
        "[::1",
        "::1",
        "[::1]evil.test",
        "127.0.0.1.evil",
        "127.0.0.256",
    ),
    *("localhost..", "0x7f.1", "xn--localhost-abc", "localhost:80:80", "l\u00f6calhost"),
]


@pytest.mark.parametrize("host", OURS)
async def test_an_address_or_a_name_of_this_machine_is_ours(host: str) -> None:
    for path in (*KEEPERS, *CALLS, "/metrics"):
        assert await status(guarded(), path, ("Host", host)) == 200


@pytest.mark.parametrize("host", STRANGE)
async def test_a_name_that_may_have_been_rebound_is_refused(host: str) -> None:
    for path in (*KEEPERS, *CALLS, "/metrics"):
        assert await status(guarded(), path, ("Host", host)) == 403


async def test_health_is_told_by_any_name() -> None:
    for path in OPEN:
        assert await status(guarded(), path, ("Host", "10-0-0-1.pods.test:8080")) == 200


async def test_two_hosts_are_none() -> None:
    hosts = ("Host", "localhost"), ("Host", "evil.test")
    assert await status(guarded(), "/v2/apps", *hosts) == 400
    assert await status(guarded(), "/v2/apps", *reversed(hosts)) == 400


@pytest.mark.parametrize("path", ["/v2/apps", *CALLS])
async def test_what_says_who_asks_is_there_once(path: str) -> None:
    app = guarded("https://page.test", tokens=Tokens([TOKEN]), call_tokens=Tokens([TOKEN]))
    right = ("Authorization", f"Bearer {TOKEN}")
    for twice in (
        [right, ("Authorization", "Bearer x")],
        [("Authorization", "Bearer x"), right],
        [right, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "none")],
    ):
        assert await status(app, path, *twice) == 400
    assert await status(app, path, right, ("Cookie", "a=1"), ("Cookie", "b=2")) == 200


async def test_a_request_without_a_host_is_no_browsers() -> None:
    request = AsgiRequest("/v2/apps", method="GET", version="1.0").body(b"")
    await request.run(guarded())
    assert request.status == 200


async def test_names_are_added() -> None:
    app = guarded(hosts=Hosts(["fn.test", ".Corp.test."]))
    for host in ("fn.test", "FN.test:80", "corp.test", "a.b.corp.test.", "localhost", "1.2.3.4"):
        assert await status(app, "/v2/apps", ("Host", host)) == 200
    for host in ("a.fn.test", "evilcorp.test", "fn.test.evil", "*"):
        assert await status(app, "/v2/apps", ("Host", host)) == 403
    anyone = guarded(hosts=Hosts(["*"]))
    assert await status(anyone, "/v2/apps", ("Host", "what.ever")) == 200
    assert await status(anyone, "/v2/apps", ("Host", "what@ever")) == 403


def test_what_is_remembered_of_names_is_bounded() -> None:
    hosts = Hosts()
    for number in range(3000):
        assert b"%d.evil.test" % number not in hosts
    assert b"a" * 60_000 not in hosts
    assert b"localhost" in hosts
    assert len(hosts._known) <= 1024
    assert max(map(len, hosts._known)) < 300


# --- pages -------------------------------------------------------------------------------------

CROSS_SITE = [("Sec-Fetch-Site", "cross-site")]
OWN = [
    [],
    [("Sec-Fetch-Site", "same-origin")],
    [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")],
    [("Origin", "http://localhost:8080")],
    # Behind a proxy that has another name: the browser knows.
    [("Origin", "https://hostler.test"), ("Sec-Fetch-Site", "same-origin")],
]
PAGES = [
    [*CROSS_SITE, ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")],
    [*CROSS_SITE, ("Origin", "https://evil.test")],
    # Only to what they trust do browsers send more than this.
    [("Origin", "https://evil.test")],
    [("Origin", "null")],
    [("Origin", "http://localhost.evil.test:8080")],
    [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Dest", "iframe"),
    ],
]
NEIGHBOURS = [
    [("Sec-Fetch-Site", "same-site"), ("Origin", "http://localhost:3000")],
    [("Sec-Fetch-Site", "cross-site"), ("Origin", "http://127.0.0.1:3000")],
    [("Origin", "http://localhost:3000")],
]
LINK = [*CROSS_SITE, ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]


@pytest.mark.parametrize("headers", OWN)
async def test_own_pages_and_programs_may_all(headers: Pairs) -> None:
    for path in (*KEEPERS, *CALLS, "/metrics"):
        assert await status(guarded(), path, *headers, method="POST") == 200


@pytest.mark.parametrize("headers", PAGES)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_pages_of_others_may_nothing(headers: Pairs, method: str) -> None:
    for path in (*KEEPERS, *CALLS, "/metrics"):
        assert await status(guarded(), path, *headers, method=method) == 403


@pytest.mark.parametrize("headers", NEIGHBOURS)
async def test_other_pages_of_this_machine_may_call_functions_only(headers: Pairs) -> None:
    for path in CALLS:
        assert await status(guarded(), path, *headers, method="POST") == 200
    for path in (*KEEPERS, "/metrics"):
        assert await status(guarded(), path, *headers, method="POST") == 403


async def test_links_may_be_followed_but_not_posted() -> None:
    for path in (*KEEPERS, *CALLS):
        assert await status(guarded(), path, *LINK) == 200
        assert await status(guarded(), path, *LINK, method="POST") == 403


async def test_functions_that_others_reach_know_themselves_whom_they_answer() -> None:
    app = guarded(local=False, hosts=Hosts(["*"]))
    for headers in PAGES:
        for path in CALLS:
            assert await status(app, path, *headers, method="POST") == 200
        for path in KEEPERS:
            assert await status(app, path, *headers, method="POST") == 403


@pytest.mark.parametrize("origins", [("https://page.test",), ("*",)])
async def test_a_configured_origin_may_all(origins: tuple[str, ...]) -> None:
    app = guarded(*origins, tokens=Tokens([TOKEN]))
    page = ("Sec-Fetch-Site", "cross-site"), ("Origin", "https://page.test")
    bearer = ("Authorization", f"Bearer {TOKEN}")
    for path in (*KEEPERS, *CALLS):
        assert await status(app, path, *page, bearer, method="POST") == 200
    # Browsers ask before, and have no token then; what they are refused, pages may read.
    asks = *page, ("Access-Control-Request-Method", "POST")
    assert await status(app, "/v2/apps", *asks, method="OPTIONS") == 204
    refused = await ask(app, "/v2/apps", *page)
    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"]
    # A rebound name gets nowhere by it.
    rebound = ("Host", "evil.test"), ("Sec-Fetch-Site", "same-origin"), bearer
    assert await status(app, "/v2/apps", *rebound) == 403


# --- tokens ------------------------------------------------------------------------------------


def bearer(token: str, scheme: str = "Bearer") -> tuple[str, str]:
    return "Authorization", f"{scheme} {token}"


async def test_a_token_is_for_all_but_calls_metrics_and_health() -> None:
    app = guarded(tokens=Tokens([TOKEN, "u" * 16]))
    for path in KEEPERS:
        without = await ask(app, path)
        assert without.status == 401
        assert without.headers["www-authenticate"].startswith("Bearer")
        for wrong in (TOKEN[:-1], TOKEN + "t", "", CALL_TOKEN, "T" * 16, "\u00e4"):
            assert await status(app, path, bearer(wrong)) == 401
        assert await status(app, path, bearer(TOKEN, "Basic")) == 401
        assert await status(app, path, bearer(TOKEN)) == 200
        assert await status(app, path, bearer(TOKEN, "bEARER")) == 200
        assert await status(app, path, bearer("u" * 16)) == 200
    for path in (*OPEN, *CALLS, "/metrics"):
        assert await status(app, path) == 200


async def test_calls_have_a_token_of_their_own() -> None:
    app = guarded(tokens=Tokens([TOKEN]), call_tokens=Tokens([CALL_TOKEN]))
    for path in CALLS:
        assert await status(app, path) == 401
        assert await status(app, path, method="OPTIONS") == 401
        assert await status(app, path, bearer(CALL_TOKEN)) == 200
        assert await status(app, path, bearer(TOKEN)) == 200
    assert await status(app, "/v2/apps", bearer(CALL_TOKEN)) == 401
    assert await status(guarded(call_tokens=Tokens([CALL_TOKEN])), "/v2/apps") == 200


@pytest.mark.parametrize("origins", [("https://page.test",), ("*",)])
@pytest.mark.parametrize("local", [True, False])
async def test_a_preflight_needs_no_token_but_what_follows_does(
    origins: tuple[str, ...], local: bool
) -> None:
    """A browser sends no Authorization with it."""
    app = guarded(*origins, local=local, tokens=Tokens((TOKEN,)), call_tokens=Tokens((CALL_TOKEN,)))
    page = [("Origin", "https://page.test"), ("Sec-Fetch-Site", "cross-site")]
    asks = [
        *page,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ]
    for path in ("/v2/apps", "/logs", *CALLS):
        answer = await ask(app, path, *asks, method="OPTIONS")
        assert (answer.status, answer.content) == (204, b"")
        refused = await ask(app, path, *page, method="POST")
        assert refused.status == 401
        assert "access-control-allow-origin" in refused.headers  # the page may know why
        token = TOKEN if path not in CALLS else CALL_TOKEN
        given = [*page, ("Authorization", f"Bearer {token}")]
        assert await status(app, path, *given, method="POST") == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("Origin", "https://other.test"), ("Access-Control-Request-Method", "POST")],
        [("Origin", "https://page.test")],
        [("Access-Control-Request-Method", "POST")],
        [],
    ],
)
async def test_options_that_is_no_preflight_of_a_configured_page_passes_no_token(
    headers: Pairs,
) -> None:
    """A function would run for it."""
    tokens = Tokens((TOKEN,))
    for origins in (("https://page.test",), ()):
        app = guarded(*origins, local=False, tokens=tokens, call_tokens=Tokens((CALL_TOKEN,)))
        for path in ("/v2/apps", *CALLS):
            assert await status(app, path, *headers, method="OPTIONS") in (401, 403)


async def test_no_function_gets_to_know_a_token() -> None:
    for rules in ({"call_tokens": Tokens([CALL_TOKEN])}, {"tokens": Tokens([CALL_TOKEN])}):
        request = await ask(guarded(**rules), CALLS[0], bearer(CALL_TOKEN), ("X-One", "1"))
        assert b"authorization" not in request.content
        assert b"x-one" in request.content
    # What was for the function is passed on.
    request = await ask(guarded(tokens=Tokens([TOKEN])), CALLS[0], bearer("the-functions-own"))
    assert b"the-functions-own" in request.content


def test_a_session_is_signed_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, others = Tokens([TOKEN]), Tokens([CALL_TOKEN])
    name, value = tokens.session()
    assert name != others.session()[0]
    assert TOKEN not in value
    assert tokens.has_session(f"a=b; {name}={value}; c=d".encode())
    # When tokens are changed, the one that was the first is the second for some time.
    assert Tokens([CALL_TOKEN, TOKEN]).has_session(f"{name}={value}".encode())
    assert not others.has_session(f"{name}={value}".encode())
    until, _, signature = value.partition(".")
    forged = (
        f"{int(until) + 1}.{signature}",
        until,
        f"{until}.",
        "",
        f"{until}.{'0' * 64}",
        "\u00e4",
    )
    for wrong in forged:
        assert not tokens.has_session(f"{name}={wrong}".encode())
    monkeypatch.setattr("time.time", lambda: int(until))
    assert not tokens.has_session(f"{name}={value}".encode())
    assert repr(tokens) == "<1 tokens>"


# --- where nobody looks twice ------------------------------------------------------------------


class Known(HeadReader):
    """Would serve all heads like the one that it was asked for."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("asked for each request")

    def handler(self, scope: Any) -> Any:
        return [name for name, _ in scope["headers"]]


async def test_a_server_that_remembers_heads_need_not_ask_for_each_request() -> None:
    app = AccessControl(Known(), Access(call_tokens=Tokens([CALL_TOKEN])))
    ours, token = ("Host", "localhost"), bearer(CALL_TOKEN)

    def handler(*headers: tuple[str, str]) -> Any:
        return app.handler(AsgiRequest("/invoke/f", headers=list(headers)).scope)

    assert handler(ours, token) == [b"host"]
    assert handler(("Host", "evil.test"), token) is None
    assert handler(ours) is None


class CountedHosts(Hosts):
    looked = 0

    def __contains__(self, host: bytes) -> bool:
        self.looked += 1
        return super().__contains__(host)


async def test_calls_with_the_same_head_are_looked_at_once() -> None:
    hosts = CountedHosts(["x"])  # that of the client
    app = AccessControl(invoke_app(ScriptedAgent(), TABLE, triggers=TABLE), Access(hosts=hosts))
    async with open_front(app=app) as front:
        client = await front.connect()
        for _ in range(5):
            assert (await client.post(b"a")).status == 200
        assert hosts.looked == 1
        # Another host on the same connection is another head.
        await client.send(b"POST /invoke/fn1 HTTP/1.1\r\nHost: y\r\nContent-Length: 0\r\n\r\n")
        assert (await client.answer()).status == 403
        assert (await client.post(b"a")).status == 200
