"""A small HTTP server on Trio that plays engines and registries; the answers are the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from socket import MSG_PEEK
from urllib.parse import parse_qs, urlsplit

import attrs
import h11
import msgspec
import trio

DATE = "Tue, 24 Nov 2026 08:00:00 GMT"
"""What all these servers think it is."""


@attrs.frozen
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


@attrs.frozen
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = attrs.Factory(dict)
    """``Date`` is added."""
    complete: bool = True
    """False: the connection breaks in the middle of the body."""
    more: trio.MemoryReceiveChannel[bytes] | None = None
    """Further pieces of the body, until the channel is closed."""


BREAK = Answer(0)
"""No answer: the connection breaks."""

Handler = Callable[[Request], Awaitable[Answer]]


def json_answer(value: object, status: int = 200) -> Answer:
    body = msgspec.json.encode(value)
    return Answer(status, body, {"Content-Type": "application/json"})


@asynccontextmanager
async def serve_unix(path: Path, handler: Handler) -> AsyncIterator[str]:
    """Serve on a unix socket; the value is its address for DOCKER_HOST."""
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await sock.bind(str(path))
    sock.listen(100)
    async with _serve(trio.SocketListener(sock), handler):
        yield f"unix://{path}"


@asynccontextmanager
async def serve_tcp(handler: Handler) -> AsyncIterator[str]:
    """Serve on loopback; the value is ``host:port``."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with _serve(listener, handler):
        yield f"127.0.0.1:{port}"


@asynccontextmanager
async def _serve(listener: trio.SocketListener, handler: Handler) -> AsyncIterator[None]:
    async def connection(stream: trio.SocketStream) -> None:
        try:
            await _serve_connection(stream, handler)
        except* (trio.BrokenResourceError, ConnectionError, h11.RemoteProtocolError):
            pass  # the client has left
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, connection, [listener])
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


async def _serve_connection(stream: trio.SocketStream, handler: Handler) -> None:
    http = h11.Connection(h11.SERVER)
    while (request := await _receive(stream, http)) is not None:
        if not await _answer(stream, http, handler, request):
            return
        http.start_next_cycle()


async def _answer(
    stream: trio.SocketStream, http: h11.Connection, handler: Handler, request: Request
) -> bool:
    """Answer; ends when the client closes its connection. Whether the connection can go on."""
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await trio.lowlevel.wait_readable(stream.socket)
            if not await stream.socket.recv(1, MSG_PEEK):
                nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        answer = await handler(request)
        if answer.status:
            await _send(stream, http, answer, head_only=request.method == "HEAD")
        nursery.cancel_scope.cancel()
    return http.our_state is h11.DONE and http.their_state is h11.DONE


async def _receive(stream: trio.SocketStream, http: h11.Connection) -> Request | None:
    head: h11.Request | None = None
    body = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            head = event
            if http.they_are_waiting_for_100_continue:
                raise AssertionError("unexpected Expect header")
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return _request(head, body)
        else:
            return None


def _request(head: h11.Request, body: bytes) -> Request:
    target = urlsplit(head.target.decode())
    query = {name: values[0] for name, values in parse_qs(target.query).items()}
    headers: dict[str, str] = {}
    for name, value in head.headers:
        before = headers.get(name.decode())
        headers[name.decode()] = f"{before}, {value.decode()}" if before else value.decode()
    return Request(head.method.decode(), target.path, query, headers, body)


async def _send(
    stream: trio.SocketStream, http: h11.Connection, answer: Answer, *, head_only: bool
) -> None:
    headers = {"Date": DATE, **answer.headers}
    length = len(answer.body) + (0 if answer.complete else 10)
    if answer.more is None:
        headers.setdefault("Content-Length", str(length))
    else:
        headers["Transfer-Encoding"] = "chunked"
    head = h11.Response(status_code=answer.status, headers=list(headers.items()))
    await stream.send_all(http.send(head) or b"")
    if not head_only and answer.body:
        await stream.send_all(http.send(h11.Data(data=answer.body)) or b"")
    if answer.more is not None:
        async for chunk in answer.more:
            await stream.send_all(http.send(h11.Data(data=chunk)) or b"")
    if answer.complete:
        await stream.send_all(http.send(h11.EndOfMessage()) or b"")
