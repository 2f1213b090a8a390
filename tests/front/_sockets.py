"""A front end on a real socket, and a client that sends and reads bytes."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import h11
import trio

from hostler.config import NodeConfig
from hostler.front import ASGIApp, HttpServer, invoke_app, serve_http
from hostler.http1.tls import ServerTLS

from ._agent import TABLE, ScriptedAgent

CHUNKED = b"POST /invoke/fn1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

PATIENT = NodeConfig(request_header_read_timeout=60)
"""A client may send its first request long after it has connected: tests take their time."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event, on a clock that is real because sockets are."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.001)


def connect_late(listener: trio.SocketListener) -> None:
    """Have clients that connect to it half connected until they send something: for them all is as
    if the last packet of the handshake were on its way till then."""
    listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)


@attrs.define
class Front:
    """A serving front end. Its end is the end of the test's ``async with``."""

    server: HttpServer
    agent: ScriptedAgent
    shutdown: trio.Event
    done: trio.Event
    clients: list[Client] = attrs.Factory(list)

    @property
    def port(self) -> int:
        return int(self.server.addresses[0].rpartition(":")[2])

    async def connect(self) -> Client:
        return await self.connect_to(self.port)

    async def connect_to(self, port: int) -> Client:
        """A client of a proxy before it."""
        client = Client(await trio.open_tcp_stream("127.0.0.1", port))
        self.clients.append(client)
        return client

    def connect_with(self, data: bytes) -> Client:
        """A client that has already sent ``data`` when the server learns of it: however busy the
        machine is, no time limit of the server's is over before."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.sendall(data)
        client = Client(trio.SocketStream(trio.socket.from_stdlib_socket(connection)))
        self.clients.append(client)
        return client

    async def wait_connections(self, count: int) -> None:
        """Until the server has ``count`` connections."""
        await until(lambda: self.server.statistics().connections == count)


@asynccontextmanager
async def open_front(
    agent: ScriptedAgent | None = None,
    *,
    config: NodeConfig | None = None,
    grace: float = 5.0,
    app: ASGIApp | None = None,
    tls: ServerTLS | None = None,
) -> AsyncIterator[Front]:
    agent = agent or ScriptedAgent()
    config = config or PATIENT
    app = app or invoke_app(agent, TABLE, triggers=TABLE, config=config)
    shutdown, done = trio.Event(), trio.Event()

    async def serve(task_status: trio.TaskStatus[HttpServer]) -> None:
        await serve_http(
            app,
            "127.0.0.1:0",
            config=config,
            shutdown=shutdown,
            grace=grace,
            tls=tls,
            task_status=task_status,
        )
        done.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            server: HttpServer = await nursery.start(serve)
            front = Front(server, agent, shutdown, done)
            try:
                yield front
            finally:
                for client in front.clients:
                    await trio.aclose_forcefully(client.stream)
            shutdown.set()
        assert server.statistics().connections == 0
        assert agent.running == 0


@attrs.define
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection. Reads answers with h11, so a response that is cut short is an error."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.h11 = h11.Connection(h11.CLIENT)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def post(
        self,
        body: bytes = b"",
        *,
        path: str = "/invoke/fn1",
        headers: str = "",
    ) -> Answer:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        await self.send(head.encode() + body)
        return await self.answer()

    def _expect_response(self) -> None:
        if self.h11.our_state is h11.IDLE:
            self.h11.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
            self.h11.send(h11.EndOfMessage())

    async def answer(self) -> Answer:
        """The next answer. Raises `h11.RemoteProtocolError` if it is cut short."""
        self._expect_response()
        status, headers, body = 0, {}, bytearray()
        while True:
            event = await self.event()
            if isinstance(event, h11.Response):
                status = event.status_code
                headers = {k.decode(): v.decode() for k, v in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
        if self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE:
            self.h11.start_next_cycle()
        return Answer(status, headers, bytes(body))

    async def event(self) -> h11.Event:
        """The next event of the answer, one piece of the body at a time."""
        self._expect_response()
        while True:
            event = self.h11.next_event()
            if event is h11.NEED_DATA:
                self.h11.receive_data(await self.stream.receive_some(65536))
                continue
            assert isinstance(event, h11.Event)
            if isinstance(event, h11.ConnectionClosed):
                raise EOFError("the server closed the connection")
            return event

    async def read_all(self) -> bytes:
        """The bytes up to the end of the connection."""
        received = b""
        while data := await self.stream.receive_some():
            received += data
        return received

    async def closed_by_server(self) -> bool:
        """Wait for more bytes: whether there are none."""
        try:
            return not await self.stream.receive_some(1)
        except trio.BrokenResourceError:
            return True


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
