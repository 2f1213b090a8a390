"""Whether h11 reads a request or not, its client gets the same, and so does its next one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest

from hostler.http1.request import Heads
from tests.conftest import Logs

from ..front._sockets import Answer, Client, Front, open_front

Fields = list[tuple[bytes, bytes]]
Behaviour = tuple[bool, int, Fields, list[bytes]]
"""Whether the body is read first, then what is answered."""

LENGTH = b"content-length"
BEHAVIOURS: dict[str, Behaviour] = {
    "whole": (True, 200, [(LENGTH, b"2")], [b"ok"]),
    "empty": (True, 200, [(LENGTH, b"0")], [b""]),
    "no length": (True, 200, [], [b"ok"]),
    "pieces": (True, 200, [(LENGTH, b"2")], [b"o", b"", b"k", b""]),
    "chunks": (True, 200, [], [b"o", b"k", b""]),
    "no content": (True, 204, [], [b""]),
    "not modified": (True, 304, [(LENGTH, b"2")], [b""]),
    "error": (True, 500, [(LENGTH, b"2")], [b"no"]),
    "early": (False, 200, [(LENGTH, b"2")], [b"ok"]),
    "early pieces": (False, 200, [(LENGTH, b"2")], [b"o", b"k"]),
    "early chunks": (False, 200, [], [b"o", b"k"]),
    "early no content": (False, 204, [], [b""]),
    "short": (True, 200, [(LENGTH, b"3")], [b"ok"]),
    "short pieces": (True, 200, [(LENGTH, b"3")], [b"o", b"k"]),
    "long": (True, 200, [(LENGTH, b"1")], [b"ok"]),
    "long pieces": (True, 200, [(LENGTH, b"1")], [b"o", b"k"]),
    "two lengths": (True, 200, [(LENGTH, b"2"), (LENGTH, b"2")], [b"ok"]),
    "closing": (True, 200, [(LENGTH, b"2"), (b"connection", b"close")], [b"ok"]),
    "bad name": (True, 200, [(LENGTH, b"2"), (b"x y", b"z")], [b"ok"]),
    "bad value": (True, 200, [(LENGTH, b"2"), (b"x", b"y\r\nz: z")], [b"ok"]),
    "not ASCII": (True, 200, [(LENGTH, b"2"), (b"x", b"\xc3\xbc")], [b"ok"]),
}


def behaving(reads: bool, status: int, headers: Fields, pieces: list[bytes]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = reads and scope["path"] == "/x"
        while more:
            message = await receive()
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, piece in enumerate(pieces, 1):
            more = number < len(pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    return app


@asynccontextmanager
async def fronts(behaviour: Behaviour) -> AsyncIterator[list[Front]]:
    async with (
        open_front(app=behaving(*behaviour)) as plain,
        open_front(app=behaving(*behaviour)) as other,
    ):
        other.server.heads = _NoneIsPlain(other.server.heads.max_head)
        yield [plain, other]


class _NoneIsPlain(Heads):
    def read(self, data: bytes) -> None:
        return None


async def answer(client: Client, *pieces: bytes) -> Answer | str:
    """To a request of these pieces."""
    try:
        for piece in pieces:
            await client.send(piece)
        found = await client.answer()
    except (h11.RemoteProtocolError, EOFError) as error:
        return type(error).__name__
    assert found.headers.pop("date")
    if "connection" in found.headers:  # (h11 writes it as the client did)
        found.headers["connection"] = found.headers["connection"].lower()
    return found


@pytest.mark.parametrize("option", ["", "Connection: close\r\n", "Connection: Keep-Alive\r\n"])
@pytest.mark.parametrize("body", [[b""], [b"abc"], [b"", b"abc"], [b"a", b"bc"]])
@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_the_client_gets_the_same(
    name: str, body: list[bytes], option: str, logs: Logs
) -> None:
    length = sum(map(len, body))
    head = f"POST /x HTTP/1.1\r\nHost: x\r\n{option}Content-Length: {length}\r\n\r\n".encode()
    first, *rest = body
    if name.startswith("early"):
        rest = []  # it would be a matter of time whether it is here before the answer
    got: list[list[object]] = []
    async with fronts(BEHAVIOURS[name]) as both:
        for front in both:
            client = await front.connect()
            got.append([await answer(client, head + first, *rest)])
            if client.h11.our_state is h11.IDLE:
                last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                got[-1].append(await answer(client, last))
            await client.stream.aclose()
            await front.wait_connections(0)
            got[-1].append(len(logs.errors()))
            while logs.errors():
                logs.expect_error("the application failed")
    assert got[0] == got[1]
