"""Requests made to be seen as one by a proxy and as two by us, or the other way round.

Each is sent over a real connection, with a second request hidden where it would begin if the wrong
one of the two ends were believed. What must never happen is that the hidden one is executed.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress

import pytest
import trio.testing

from hostler.config import NodeConfig
from hostler.front import invoke_app

from ..front._agent import TABLE, ScriptedAgent
from ..front._sockets import open_front
from .smuggling import BROKEN_BODY, BURIED, CHUNKED, HEAD, HIDDEN, ONE, REFUSED, mangled, post

STATUS_LINE = re.compile(rb"HTTP/1\.1 [0-9]{3} ")


async def exchange(data: bytes) -> tuple[bytes, ScriptedAgent]:
    """All that the server answers, up to the end of the connection."""
    agent = ScriptedAgent()
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(data)
        received = await client.read_all()
        await client.stream.aclose()
        await front.wait_connections(0)
        other = await front.connect()
        assert (await other.post(b"x")).body == b"x"
    agent.submitted.pop()  # the other client's
    return received, agent


@pytest.mark.parametrize("name", REFUSED)
async def test_a_request_that_can_be_seen_in_two_ways_is_refused(name: str) -> None:
    received, agent = await exchange(REFUSED[name])
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ", b"HTTP/1.1 505 "))
    assert len(STATUS_LINE.findall(received)) == 1
    assert b"\r\nconnection: close\r\n" in received.lower()
    assert agent.submitted == []


@pytest.mark.parametrize("name", BROKEN_BODY)
async def test_a_body_with_broken_chunks_hides_no_request(name: str) -> None:
    received, agent = await exchange(post(CHUNKED, body=BROKEN_BODY[name] + HIDDEN))
    assert received.startswith(b"HTTP/1.1 400 ")
    assert len(STATUS_LINE.findall(received)) == 1
    assert not [call for call in agent.submitted if "hidden" in call.model.url]


@pytest.mark.parametrize("name", BURIED)
@pytest.mark.parametrize("at_once", [True, False])
async def test_what_belongs_to_a_request_is_no_other_one(name: str, at_once: bool) -> None:
    """Also where its answer does not wait for it: a connection has to end then."""
    head, rest = BURIED[name]
    agent = ScriptedAgent()
    async with open_front(agent, config=NodeConfig(max_request_size=100_000)) as front:
        client = await front.connect()
        if at_once:
            await client.send(head + b"\r\n" + rest)
        else:
            await client.send(head + b"\r\n")
            await trio.testing.wait_all_tasks_blocked()
            with suppress(trio.BrokenResourceError):  # it may have its answer, and its end
                await client.send(rest)
        with suppress(trio.BrokenResourceError):
            await client.stream.send_eof()
        received = await client.read_all()
        await client.stream.aclose()
        await front.wait_connections(0)
    finals = [line for line in STATUS_LINE.findall(received) if b" 100 " not in line]
    assert len(finals) == 1
    assert not [call for call in agent.submitted if "hidden" in call.model.url]


@pytest.mark.parametrize(
    "trailer", [b"Content-Length: 0", b"Content-Length: 1", CHUNKED, b"Host: y", b"X: y"]
)
async def test_trailers_have_no_say(trailer: bytes) -> None:
    """Not in where their request ends, nor in what the function gets."""
    last = HIDDEN.replace(b"Host", b"Connection: close\r\nHost")
    body = ONE[:-2] + trailer + b"\r\n\r\n"
    received, agent = await exchange(post(CHUNKED, body=body) + last)
    assert STATUS_LINE.findall(received) == [b"HTTP/1.1 200 "] * 2
    call, pipelined = agent.submitted
    assert call.model.url == "http://x/invoke/fn1"
    assert not call.model.headers.keys() & {"Content-Length", "Host", "X"}
    assert pipelined.model.url.endswith("hidden")


@pytest.mark.parametrize("name", mangled(b"", b""))
@pytest.mark.parametrize("header", [b"Transfer-Encoding", b"Content-Length"])
async def test_a_header_that_is_written_oddly_hides_no_request(header: bytes, name: str) -> None:
    """It stands beside one that is not, by which all that was sent is one request."""
    if header == b"Transfer-Encoding":
        lines = mangled(header, b"chunked")[name]
        body = b"0\r\n\r\n" + HIDDEN
        sent = post(b"Content-Length: %d" % len(body), *lines, b"Connection: close", body=body)
    else:
        lines = mangled(header, b"0")[name]
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
        sent = post(CHUNKED, *lines, b"Connection: close", body=body)
    received, agent = await exchange(sent)
    assert re.match(rb"HTTP/1\.1 (200|400|501) ", received)
    assert len(STATUS_LINE.findall(received)) == 1
    assert len(agent.submitted) == received.startswith(b"HTTP/1.1 200 ")
    assert not [call for call in agent.submitted if "hidden" in call.model.url]


@pytest.mark.parametrize("name", mangled(b"", b""))
@pytest.mark.parametrize(
    ("header", "value", "body"),
    [(b"Transfer-Encoding", b"chunked", ONE), (b"Content-Length", b"1", b"x")],
    ids=["TE", "CL"],
)
async def test_a_header_that_is_written_oddly_is_that_header_or_another_or_refused(
    header: bytes, value: bytes, body: bytes, name: str
) -> None:
    """Alone: what is taken for the body by it is a body, or no request was made of it."""
    last = HIDDEN.replace(b"Host", b"Connection: close\r\nHost")
    received, agent = await exchange(post(*mangled(header, value)[name], body=body + last))
    hidden = [call for call in agent.submitted if "hidden" in call.model.url]
    if received.startswith(b"HTTP/1.1 200 "):
        another = name in ("underscore", "escape in the name", "another header")
        assert bool(hidden) is not another
        assert (b"x" in received.partition(b"\r\n\r\n")[2][:8]) is not another
    else:
        assert agent.submitted == []


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        ([b"transfer-ENCODING:  CHUNKED  "], b'03;ext="a\r\nabc\r\n000\r\nX: y\r\n\r\n'),
        ([CHUNKED], b"3;a = b\t\r\nabc\r\n0;\xff\r\nX:\ty\r\nY:\r\n\r\n"),
        ([CHUNKED], b"0" * 15 + b"3\r\nabc\r\n" + b"0" * 16 + b"\r\n\r\n"),
        ([b"content-LENGTH: \t 003 "], b"abc"),
        ([b"X: \xff\t\x80", b"Y:", b"Content-Length: 3"], b"abc"),
    ],
    ids=["odd but valid chunks", "extensions", "zeros", "blanks", "odd but valid values"],
)
@pytest.mark.parametrize("bytewise", [False, True])
async def test_what_can_be_seen_in_one_way_only_passes(
    lines: list[bytes], body: bytes, bytewise: bool
) -> None:
    async with open_front() as front:
        client = await front.connect()
        sent = post(*lines, body=body)
        for at in range(0, len(sent), 1 if bytewise else len(sent)):
            await client.send(sent[at : at + 1] if bytewise else sent)
            await trio.testing.wait_all_tasks_blocked()
        assert (await client.answer()).body == b"abc"
        if not bytewise:  # else its answer began before its end was there, and was the last
            assert (await client.post(b"next")).body == b"next"


async def test_the_host_of_an_absolute_target_counts() -> None:
    agent = ScriptedAgent()
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(
            b"POST http://real.example:1/invoke/fn1 HTTP/1.1\r\nHost: other.example\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        assert (await client.answer()).status == 200
    assert agent.submitted[0].model.url == "http://real.example:1/invoke/fn1"


@pytest.mark.parametrize("path", ["/t/app/%zz", "/t/app/%", "/t/app/%4", "/t/app/a%00", "/v2/%00"])
async def test_broken_escapes_are_400(path: str) -> None:
    async with open_front() as front:
        client = await front.connect()
        answer = await client.post(path=path)
        assert (answer.status, front.agent.submitted) == (400, [])
        assert (await client.post(b"x")).body == b"x"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/t/app/a%20b/%C3%BC", 200),
        ("/t/app/a%20b%2F%c3%bc", 200),
        ("/t/ap%70/s/", 200),
        ("/t/app?x=%zz", 200),
        ("/t/app/a+b/%C3%BC", 404),
        ("/t/app/a%20b/%FC", 404),
        ("/t/app/a%2520b/%C3%BC", 404),
        ("/t/app/../app/s/", 404),
        ("/t/app/./s/", 404),
    ],
)
async def test_a_source_is_url_decoded_once_and_not_changed_else(path: str, status: int) -> None:
    agent = ScriptedAgent()
    app = invoke_app(agent, TABLE, triggers=TABLE)
    async with open_front(agent, app=app) as front:
        client = await front.connect()
        assert (await client.post(path=path)).status == status
    if status == 200:
        url = agent.submitted[0].model.headers["Fn-Http-Request-Url"]
        assert url == [f"http://x{path}"]  # as the client wrote it


async def test_sizes_and_the_time_of_a_head_are_limited_by_default() -> None:
    config = NodeConfig()
    assert config.max_request_header_size == 65_536
    assert config.max_request_size == 6 * 1024 * 1024
    assert config.request_header_read_timeout == 5
    async with open_front(config=config) as front:
        client = await front.connect()
        await client.send(HEAD + b"X: " + b"x" * 65_536)
        assert (await client.answer()).status == 431
        client = await front.connect()
        await client.send(post(b"Content-Length: 6291457"))
        assert (await client.answer()).status == 413


async def test_a_client_that_never_sends_has_the_time_of_a_head() -> None:
    config = NodeConfig(request_header_read_timeout=0.1, http_idle_timeout=math.inf)
    async with open_front(config=config) as front:
        silent, used = await front.connect(), front.connect_with(post(b"Content-Length: 1") + b"x")
        assert (await used.answer()).status == 200
        assert await silent.read_all() == b""
        assert (await used.post(b"x")).status == 200
