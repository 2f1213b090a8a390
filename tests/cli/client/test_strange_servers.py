"""Servers that answer, but not as a node would: one line on stderr says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest
import trio
import trio.testing

from hostler.cli.client.errors import CommandFailed
from hostler.cli.client.logs import _read

from .._process import run


@asynccontextmanager
async def open_server(status: str, kind: str, body: bytes) -> AsyncIterator[str]:
    """It gives the same answer to all. Yields its URL."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    answer = f"{head}Connection: close\r\n\r\n".encode() + body

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stream.receive_some()
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


JSON = "application/json"


@pytest.mark.parametrize(
    ("command", "answer", "code", "message"),
    [
        ("app list", ("200 OK", "text/html", b"<html>"), 5, "what answers is no API"),
        ("app list", ("302 Found", "text/html", b""), 1, "has no API for functions"),
        ("app create a", ("502 Bad Gateway", "text/html", b"<html>"), 5, "as it should (502)"),
        ("app create a", ("200 OK", JSON, b"{}"), 5, "what answers is no API: it tells no id"),
        ("logs", ("200 OK", "text/html", b"<html>"), 1, ": its answer is not understood: text/htm"),
        ("logs", ("200 OK", JSON, b'{"items":[]}\n'), 1, ": its answer is not understood: applic"),
        ("logs", ("500 Broken", JSON, b'{"message":"a\\nb"}'), 1, ": 500 a b"),
        ("status", ("200 OK", "text/html", b"<html>"), 1, ": its answer is not understood"),
        ("status", ("500 Broken", JSON, b'{"message":"a\\nb"}'), 1, ": 500 a b"),
    ],
)
async def test_what_is_no_node_is_told_in_one_line(
    command: str, answer: tuple[str, str, bytes], code: int, message: str
) -> None:
    async with open_server(*answer) as url:
        done = await run(*command.split(), env={"FN_API_URL": url})
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"hostler: error: {url}")
    assert message in line


@pytest.mark.parametrize("what", ["app", "fn"])
async def test_only_what_has_the_name_is_deleted(what: str) -> None:
    """Of an API that gives all, whatever name it is asked for."""
    body = b'{"id":"1","name":"other","items":[{"id":"1","name":"other"}]}'
    names = ["other", "mine"] if what == "fn" else ["mine"]
    async with open_server("200 OK", JSON, body) as url:
        done = await run(what, "delete", *names, "--yes", env={"FN_API_URL": url})
    assert (done.returncode, done.stdout) == (3, "")
    assert "'mine'; see hostler" in done.stderr or "no app" in done.stderr


async def test_a_name_that_is_not_utf_8_is_wrong_usage() -> None:
    done = await run("app", "inspect", "\udcff")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hostler: error: '\\udcff' is not UTF-8\n"


async def test_a_node_that_keeps_silent_is_not_waited_for(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def open_request(method: str, url: str, **_: object) -> AsyncIterator[NoReturn]:
        await trio.sleep_forever()
        yield

    monkeypatch.setattr("hostler.api_client.open_request", open_request)
    with pytest.raises(CommandFailed, match="no answer within 10 s") as caught:
        await _read("http://node", "", lambda *_: None)
    assert caught.value.code == 5
