"""One HTTP exchange over one connection: cheap enough for hundreds of clients at once.

(httpx looks through all connections of a pool for each request.)
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import h11
import trio

from tests.cli._process import NodeProcess


@attrs.frozen
class Reply:
    """A response, or its head with ``body`` still empty."""

    status: int
    headers: dict[str, str]
    """By lower-case name; of a repeated one the last value."""
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


@attrs.define(eq=False)
class Exchange:
    """A request that was sent. Leaving its block closes the connection, done or not."""

    _stream: trio.SocketStream
    _protocol: h11.Connection

    async def send(self, event: h11.Event) -> None:
        await self._stream.send_all(self._protocol.send(event) or b"")

    async def head(self) -> Reply:
        event = await self._next()
        assert isinstance(event, h11.Response), event
        headers = {name.decode(): value.decode() for name, value in event.headers}
        return Reply(event.status_code, headers)

    async def piece(self) -> bytes:
        """Some of the body, ``b""`` at its end. Raises h11.RemoteProtocolError if it breaks."""
        event = await self._next()
        if isinstance(event, h11.EndOfMessage):
            return b""
        assert isinstance(event, h11.Data), event
        return bytes(event.data)

    async def reply(self) -> Reply:
        head = await self.head()
        return attrs.evolve(head, body=await self.rest())

    async def rest(self) -> bytes:
        """The rest of the body. Raises as `piece` does."""
        body = b""
        while piece := await self.piece():
            body += piece
        return body

    async def _next(self) -> h11.Event:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            self._protocol.receive_data(await self._stream.receive_some())
        assert isinstance(event, h11.Event), event
        return event


@asynccontextmanager
async def posting(
    node: NodeProcess | str, path: str, content: bytes = b"", **headers: str
) -> AsyncIterator[Exchange]:
    """POST ``content`` (headers have ``_`` for ``-``) to a node, or to ``host:port``; the response
    is there to be read."""
    address = node if isinstance(node, str) else node.ready["http"][0]
    host, _, port = address.rpartition(":")
    fields = [("Host", f"{host}:{port}"), ("Content-Length", str(len(content)))]
    fields += [(name.replace("_", "-"), value) for name, value in headers.items()]
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        exchange = Exchange(stream, h11.Connection(h11.CLIENT))
        await exchange.send(h11.Request(method="POST", target=path, headers=fields))
        # Who is answered before the end may find nobody that takes the rest.
        with suppress(trio.BrokenResourceError):
            if content:
                await exchange.send(h11.Data(data=content))
            await exchange.send(h11.EndOfMessage())
        yield exchange


async def call(
    node: NodeProcess, do: str = "", content: bytes = b"", fn: str = "fnt", **headers: str
) -> Reply:
    """Invoke ``fn`` on a front end; ``do`` is what `fnt` shall do."""
    async with posting(node, f"/invoke/{fn}", content, Fnt_Do=do, **headers) as exchange:
        return await exchange.reply()


async def metric(node: NodeProcess, name: str) -> float:
    """The value of a node's metric without labels; 0 if there is none."""
    host, _, port = node.ready["http"][0].rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b"".join([bytes(piece) async for piece in stream]).decode()
    for line in text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return 0.0


async def until_metric(node: NodeProcess, name: str, least: float) -> None:
    while await metric(node, name) < least:  # noqa: ASYNC110  (another's state)
        await trio.sleep(0.02)
