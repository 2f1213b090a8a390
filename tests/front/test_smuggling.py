"""Requests made to be seen as one by a proxy and as two by us, or the other way round.

Each is sent over a real connection, with a second request hidden where it would begin if the wrong
one of the two ends were believed. What must never happen is that the hidden one is executed.
"""

from __future__ import annotations

import math
import re

import pytest

from hostler.config import NodeConfig
from hostler.front import invoke_app

from ._agent import TABLE, ScriptedAgent
from ._sockets import open_front

HIDDEN = b"POST /invoke/fn1?hidden HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
STATUS_LINE = re.compile(rb"HTTP/1\.1 [0-9]{3} ")
HEAD = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"
ONE = b"1\r\nx\r\n0\r\n\r\n"

REFUSED = {
    "CL.TE": post(b"Content-Length: %d" % (5 + len(HIDDEN)), CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "TE.CL": post(CHUNKED, b"Content-Length: 4", body=b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n"),
    "CL.TE of length 0": post(b"Content-Length: 0", CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "TE.TE, the second unknown": post(CHUNKED, b"Transfer-Encoding: x", body=ONE + HIDDEN),
    "TE.TE, the first unknown": post(b"Transfer-Encoding: x", CHUNKED, body=ONE + HIDDEN),
    "TE twice": post(CHUNKED, CHUNKED, body=ONE + HIDDEN),
    "TE list": post(b"Transfer-Encoding: chunked, identity", body=ONE + HIDDEN),
    "TE list of two chunked": post(b"Transfer-Encoding: chunked, chunked", body=ONE + HIDDEN),
    "TE identity": post(b"Transfer-Encoding: identity", body=HIDDEN),
    "TE with a prefix": post(b"Transfer-Encoding: xchunked", body=ONE + HIDDEN),
    "TE in quotes": post(b'Transfer-Encoding: "chunked"', body=ONE + HIDDEN),
    "TE with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=ONE + HIDDEN),
    "TE with a blank before the colon": post(b"Transfer-Encoding : chunked", body=ONE + HIDDEN),
    "TE with a NUL": post(b"Transfer-Encoding: chunked\x00", body=ONE + HIDDEN),
    "TE of HTTP/1.0": b"POST /invoke/fn1 HTTP/1.0\r\n" + CHUNKED + b"\r\n\r\n" + ONE + HIDDEN,
    "CL twice": post(b"Content-Length: 0", b"Content-Length: 9", body=HIDDEN),
    "CL list": post(b"Content-Length: 0, 9", body=HIDDEN),
    "CL with a plus": post(b"Content-Length: +1", body=b"x" + HIDDEN),
    "CL negative": post(b"Content-Length: -1", body=HIDDEN),
    "CL in hex": post(b"Content-Length: 0x1", body=b"x" + HIDDEN),
    "CL empty": post(b"Content-Length:", body=HIDDEN),
    "CL with an underscore": post(b"Content-Length: 1_0", body=b"x" * 10 + HIDDEN),
    "CL in Arabic digits": post(b"Content-Length: \xd9\xa1", body=b"x" + HIDDEN),
    "CL with a blank before the colon": post(b"Content-Length : 1", body=b"x" + HIDDEN),
    "CL folded into nothing": post(b"Content-Length:", b" 0", b" 9", body=HIDDEN),
    "Host twice": post(b"Host: y", b"Content-Length: 0", body=HIDDEN),
    "Host twice, the same": post(b"Host: x", b"Content-Length: 0", body=HIDDEN),
    "Host missing": b"POST /invoke/fn1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "Host with a blank": b"POST /invoke/fn1 HTTP/1.1\r\nHost: a b\r\n\r\n" + HIDDEN,
    "Host with a user": b"POST /invoke/fn1 HTTP/1.1\r\nHost: a@b\r\n\r\n" + HIDDEN,
    "Host with a path": b"POST /invoke/fn1 HTTP/1.1\r\nHost: a/b\r\n\r\n" + HIDDEN,
    "obs-fold before the first header": b"POST /invoke/fn1 HTTP/1.1\r\n Host: x\r\n\r\n" + HIDDEN,
    "a header without a colon": post(b"Content-Length", body=HIDDEN),
    "a header without a name": post(b": 5", body=HIDDEN),
    "a name with a blank": post(b"X Y: 5", body=HIDDEN),
    "a CR alone": post(b"X: 1\rContent-Length: 9", body=HIDDEN),
    "a third version": b"POST /invoke/fn1 HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a blank in the path": b"POST /invoke/fn1 /x HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
}
"""By name. Refused with their heads: no call is made at all."""

BROKEN_BODY = {
    "a size that is no number": b"z\r\nx\r\n0\r\n\r\n",
    "a size with a prefix": b"0x1\r\nx\r\n0\r\n\r\n",
    "a size with a sign": b"+1\r\nx\r\n0\r\n\r\n",
    "a negative size": b"-1\r\nx\r\n0\r\n\r\n",
    "a blank before the size": b" 1\r\nx\r\n0\r\n\r\n",
    "an underscore in the size": b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"1" + b"0" * 21 + b"\r\nx\r\n0\r\n\r\n",
    "no size": b"\r\nx\r\n0\r\n\r\n",
    "a chunk longer than its size": b"1\r\nxyz\r\n0\r\n\r\n",
    "a chunk without its end": b"1\r\nxXX0\r\n\r\n",
    "a size with a NUL": b"1\x00\r\nx\r\n0\r\n\r\n",
    "trailers that are no headers": b"0\r\nPOST / HTTP/1.1\r\n\r\n",
}


async def exchange(data: bytes) -> tuple[bytes, ScriptedAgent]:
    """All that the server answers, up to the end of the connection."""
    agent = ScriptedAgent()
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(data)
        received = await client.read_all()
        await front.wait_connections(0)
        other = await front.connect()
        assert (await other.post(b"x")).body == b"x"
    agent.calls.pop()  # the other client's
    return received, agent


@pytest.mark.parametrize("name", REFUSED)
async def test_a_request_that_can_be_seen_in_two_ways_is_refused(name: str) -> None:
    received, agent = await exchange(REFUSED[name])
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert len(STATUS_LINE.findall(received)) == 1
    assert b"\r\nconnection: close\r\n" in received.lower()
    assert agent.calls == []


@pytest.mark.parametrize("name", BROKEN_BODY)
async def test_a_body_with_broken_chunks_hides_no_request(name: str) -> None:
    received, agent = await exchange(post(CHUNKED, body=BROKEN_BODY[name] + HIDDEN))
    assert received.startswith(b"HTTP/1.1 400 ")
    assert len(STATUS_LINE.findall(received)) == 1
    assert not [call for call in agent.calls if "hidden" in call.model.url]


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        ([b"Content-Length: 3", b"Content-Length: 3"], b"abc"),
        ([b"Content-Length: 3, 3"], b"abc"),
        ([b"X: a", b" b", b"\tc", b"Content-Length: 3"], b"abc"),
        ([b"transfer-ENCODING:  CHUNKED  "], b'03;ext="a\r\nabc\r\n000\r\nX: y\r\n\r\n'),
    ],
    ids=["equal lengths", "a list of equal lengths", "obs-fold", "odd but valid chunks"],
)
async def test_what_can_be_seen_in_one_way_only_passes(lines: list[bytes], body: bytes) -> None:
    agent = ScriptedAgent()
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(post(*lines, body=body))
        assert (await client.answer()).body == b"abc"
        assert (await client.post(b"next")).body == b"next"
    headers = agent.calls[0].model.headers
    assert headers.get("X", ["a b c"]) == ["a b c"]  # a fold is one blank (RFC 9112, section 5.2)
    assert headers.get("Content-Length", ["3"]) == ["3"]


async def test_the_host_of_an_absolute_target_counts() -> None:
    agent = ScriptedAgent()
    async with open_front(agent) as front:
        client = await front.connect()
        await client.send(
            b"POST http://real.example:1/invoke/fn1 HTTP/1.1\r\nHost: other.example\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        assert (await client.answer()).status == 200
    assert agent.calls[0].model.url == "http://real.example:1/invoke/fn1"


@pytest.mark.parametrize("path", ["/t/app/%zz", "/t/app/%", "/t/app/%4", "/t/app/a%00", "/v2/%00"])
async def test_broken_escapes_are_400(path: str) -> None:
    async with open_front() as front:
        client = await front.connect()
        answer = await client.post(path=path)
        assert (answer.status, front.agent.calls) == (400, [])
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
        url = agent.calls[0].model.headers["Fn-Http-Request-Url"]
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
