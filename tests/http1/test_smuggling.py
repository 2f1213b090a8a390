"""Requests made to be seen as one by a proxy and as two by us, or the other way round.

Each is sent over a real connection, with a second request hidden where it would begin if the wrong
one of the two ends were believed. What must never happen is that the hidden one is executed.
"""

from __future__ import annotations

import math
import re

import pytest
import trio.testing

from hostler.config import NodeConfig
from hostler.front import invoke_app

from ..front._agent import TABLE, ScriptedAgent
from ..front._sockets import open_front

HIDDEN = b"POST /invoke/fn1?hidden HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
STATUS_LINE = re.compile(rb"HTTP/1\.1 [0-9]{3} ")
HEAD = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def mangled(name: bytes, value: bytes) -> dict[str, list[bytes]]:
    """The ways to write a header line that public collections know (those of PortSwigger's HTTP
    Request Smuggler, and of the HTTP Garden) which some servers take for that header, and some
    for another, or for two lines. By name; the lines of each."""
    line = name + b": " + value
    odd = {
        "underscore": [line.replace(b"-", b"_")],
        "blank in the name": [line.replace(b"-", b" ")],
        "backslash in the name": [line.replace(b"-", b"\\")],
        "escape in the name": [line.replace(b"E", b"%45").replace(b"L", b"%4c")],
        "another letter in the name": [line.replace(b"e", b"\x82", 1)],
        "no blank": [name + b":" + value],
        "two blanks": [name + b":  " + value],
        "junk before the colon": [name + b" x: " + value],
        "folded before the value": [name + b":", b" " + value],
        "folded by a tab": [name + b":", b"\t" + value],
        "folded with a bare LF": [name + b":\n " + value],
        "folded before the colon": [name + b"\n : " + value],
        "folded into another header": [b"X: y", b" " + line],
        "folded into another header by a tab": [b"X: y", b"\t" + line],
        "folded behind the value": [line, b" , x"],
        "a vertical tab on a line of its own": [name + b": \n\x0b" + value],
        "behind a bare CR": [b"X: y\r" + line],
        "behind a bare LF": [b"X: y\n" + line],
        "behind CR LF CR": [b"X: y", b"\r" + line],
        "behind two bare LF": [b"X: y\n\n" + line],
        "before a bare LF": [line + b"\nX: y"],
        "before a bare CR": [line + b"\rX: y"],
        "a CR in the name": [line[:3] + b"\r" + line[3:]],
        "upper case": [name.upper() + b": " + value.upper()],
        "mixed case": [name.swapcase() + b": " + value.swapcase()],
        "named by Connection": [b"Connection: " + name, line],
        "in quotes": [name + b': "' + value + b'"'],
        "in apostrophes": [name + b": '" + value + b"'"],
        "cut short": [line[:-1]],
        "behind a comma": [name + b": ," + value],
        "before a comma": [line + b","],
        "twice in a list": [line + b", " + value],
        "twice": [line, line],
        "behind another": [name + b": identity", line],
        "before another": [line, name + b": identity"],
        "in a list": [name + b": identity, " + value + b", identity"],
        "another header": [b"Content-Encoding: " + value],
        "an odd blank": [name + b":\xa0" + value],
        "a byte FF for a blank": [name + b":\xff" + value],
    }
    for code in (0, 1, 8, 9, 11, 12, 13, 31, 127, 133, 160):
        char = bytes([code])
        odd[f"{code} before the name"] = [char + line]
        odd[f"{code} before the colon"] = [name + char + b": " + value]
        odd[f"{code} behind the colon"] = [name + b":" + char + value]
        odd[f"{code} before the value"] = [name + b": " + char + value]
        odd[f"{code} behind the value"] = [line + char]
    return odd


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
    "a CR and a NUL": post(b"X: 1\r\x00Content-Length: 9", body=HIDDEN),
    "a control character in a value": post(b"X: a\x01b", body=HIDDEN),
    "CL twice, the same": post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc" + HIDDEN),
    "CL list of the same": post(b"Content-Length: 3, 3", body=b"abc" + HIDDEN),
    "CL behind a bare LF": post(b"X: 1\nContent-Length: 3", body=b"abc" + HIDDEN),
    "TE folded": post(b"Transfer-Encoding:", b" chunked", body=ONE + HIDDEN),
    "obs-fold": post(b"X: a", b" b", b"\tc", b"Content-Length: 3", body=b"abc" + HIDDEN),
    "a bare LF behind the request line": HEAD.replace(b"\r\n", b"\n", 1) + b"\r\n" + HIDDEN,
    "bare LFs alone": post(b"Content-Length: 3").replace(b"\r", b"") + b"abc" + HIDDEN,
    "a head that ends with LF LF": HEAD + b"X: 1\n\n" + HIDDEN,
    "a head that ends with LF CR LF": HEAD + b"X: 1\n\r\n" + HIDDEN,
    "a head that ends with CR LF LF": HEAD + b"\n" + HIDDEN,
    "a blank before the request line": b" " + HEAD + b"\r\n" + HIDDEN,
    "tabs in the request line": HEAD.replace(b" ", b"\t", 2) + b"\r\n" + HIDDEN,
    "a LF in the request line": HEAD.replace(b" HTTP", b"\nHTTP") + b"\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /invoke/fn1\r\n\r\n" + HIDDEN,
    "HTTP/1": HEAD.replace(b"/1.1", b"/1") + b"\r\n" + HIDDEN,
    "HTTP/1.10": HEAD.replace(b"/1.1", b"/1.10") + b"\r\n" + HIDDEN,
    "http/1.1": HEAD.replace(b"HTTP", b"http") + b"\r\n" + HIDDEN,
    "HTTP/9.9": HEAD.replace(b"/1.1", b"/9.9") + b"\r\n" + HIDDEN,
    "HTTP/0.0": HEAD.replace(b"/1.1", b"/0.0") + b"\r\n" + HIDDEN,
    "HTTP/1.2": HEAD.replace(b"/1.1", b"/1.2") + b"\r\n" + HIDDEN,
    "HTTP/2.0": HEAD.replace(b"/1.1", b"/2.0") + b"\r\n" + HIDDEN,
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
    "trailers that are folded": b"0\r\nX: y\r\n z\r\n\r\n",
    "a trailer behind a bare LF": b"0\r\nX: y\nZ: z\r\n\r\n",
    "trailers that end with LF LF": b"0\r\nX: y\n\n",
    "a trailer with a bare CR": b"0\r\nX: y\rZ\r\n\r\n",
    "an end of CR LF LF": b"0\r\n\n",
    "an end of LF CR LF": b"0\n\r\n",
    "an end of LF LF": b"0\n\n",
    "an end of CR CR": b"0\r\r",
    "a size that ends with LF": b"1\nx\r\n0\r\n\r\n",
    "a chunk that ends with LF": b"1\r\nx\n0\r\n\r\n",
    "a chunk that ends with two other bytes": b"1\r\nxyz0\r\n\r\n",
    "a blank behind the size": b"1 \r\nx\r\n0\r\n\r\n",
    "a tab behind the size": b"1\t\r\nx\r\n0\r\n\r\n",
    "a CR behind the size": b"1\r\r\nx\r\n0\r\n\r\n",
    "a CR before the extension": b"1\r;a\r\nx\r\n0\r\n\r\n",
    "an extension with a bare CR": b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "an extension with a bare LF": b"1;a\nx\r\n0\r\n\r\n",
    "an extension with a NUL": b"1;\x00\r\nx\r\n0\r\n\r\n",
    "an extension without a size": b";a\r\nx\r\n0\r\n\r\n",
    "a size of 17 digits": b"0" * 16 + b"1\r\nx\r\n0\r\n\r\n",
    "a size with a form feed": b"\x0c1\r\nx\r\n0\r\n\r\n",
    "a comma in the size": b"1,1\r\nx\r\n0\r\n\r\n",
    "a fraction": b"1.0\r\nx\r\n0\r\n\r\n",
}


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
    agent.calls.pop()  # the other client's
    return received, agent


@pytest.mark.parametrize("name", REFUSED)
async def test_a_request_that_can_be_seen_in_two_ways_is_refused(name: str) -> None:
    received, agent = await exchange(REFUSED[name])
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ", b"HTTP/1.1 505 "))
    assert len(STATUS_LINE.findall(received)) == 1
    assert b"\r\nconnection: close\r\n" in received.lower()
    assert agent.calls == []


@pytest.mark.parametrize("name", BROKEN_BODY)
async def test_a_body_with_broken_chunks_hides_no_request(name: str) -> None:
    received, agent = await exchange(post(CHUNKED, body=BROKEN_BODY[name] + HIDDEN))
    assert received.startswith(b"HTTP/1.1 400 ")
    assert len(STATUS_LINE.findall(received)) == 1
    assert not [call for call in agent.calls if "hidden" in call.model.url]


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
    assert len(agent.calls) == received.startswith(b"HTTP/1.1 200 ")
    assert not [call for call in agent.calls if "hidden" in call.model.url]


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
    hidden = [call for call in agent.calls if "hidden" in call.model.url]
    if received.startswith(b"HTTP/1.1 200 "):
        another = name in ("underscore", "escape in the name", "another header")
        assert bool(hidden) is not another
        assert (b"x" in received.partition(b"\r\n\r\n")[2][:8]) is not another
    else:
        assert agent.calls == []


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
